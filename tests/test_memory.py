"""How many samples are computed at once: the search, what it leaves as it was, and processes with too little memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.regularizers.lecam import LeCam
from ganzoo_plugins.regularizers.r1 import R1
from torch import nn

from ganzoo import checkpoint, memory
from ganzoo.api import Regularizer
from ganzoo.device import Device
from ganzoo.errors import RecipeError, ResourceError
from ganzoo.jobs import Silent, enough_memory, estimate, run_recipe
from ganzoo.memory import Found, largest, settle
from ganzoo.players import Plan, largest_divisor
from ganzoo.recipe import Recipe
from ganzoo.registry import registry
from ganzoo.runs import RunFolder
from ganzoo.speed.measure import measure
from ganzoo.testing.tiny import Onlooker, TinyArchitecture, TinyDiscriminator, TinyGenerator, tiny_recipe, tiny_trainer
from ganzoo.trainer import Trainer
from ganzoo.world import World, joined
from ganzoo.zoo import Request, resolve

AUTO = tiny_recipe({"train": {"micro_batch": "auto"}})
EVERY = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96]
SCRIPT = Path(__file__)


class Normed(TinyArchitecture):
    """Batch norm in both networks, and dropout in one."""

    def generator(self, spec):
        net = TinyGenerator(spec)
        net.body.insert(1, nn.BatchNorm1d(32))
        return net

    def discriminator(self, spec):
        net = TinyDiscriminator(spec)
        net.conv = nn.Sequential(net.conv, nn.BatchNorm2d(8), nn.Dropout(0.2))
        return net


class Limited(Regularizer):
    """Memory for so many samples, and a record of those that were shown."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.most, self.met = most, []

    def penalty(self, duel):
        self.met.append(len(duel.real))
        if len(duel.real) > self.most:
            raise MemoryError
        return duel.output("real").logits.square().mean()


def limited(most: int):
    """Return a regularizer without options that has memory for so many samples."""

    class Here(Limited):
        def __init__(self) -> None:
            super().__init__(most)

    return Here


def searched(need, limit, sizes=EVERY, fails=()):
    """Return what is found, with the sizes that were tried, where a size needs so much and errors come at some."""
    tried = []

    def attempt(size):
        tried.append(size)
        return None if size in fails or need(size) > limit else need(size)

    return largest(sizes, need(0), lambda peak: peak <= limit, attempt), tried


# -- the search -----------------------------------------------------------------------------------------------------


def test_sizes_are_doubled_until_all_is_computed_at_once():
    assert searched(lambda size: 100 + 10 * size, 10_000) == (Found(96, 1060), [4, 8, 16, 32, 48, 96])
    assert searched(lambda size: 100 + 10 * size, 10_000, [1, 7]) == (Found(7, 170), [1, 7])
    assert searched(lambda size: 100 + 10 * size, 10_000, [1]) == (Found(1, 110), [1])


@pytest.mark.parametrize("fitting", EVERY)
def test_the_largest_that_fits_is_found_and_none_is_tried_in_vain(fitting):
    found, tried = searched(lambda size: 100 + 10 * size, 100 + 10 * fitting)
    assert found == Found(fitting, 100 + 10 * fitting)
    # of the first try nothing is known yet
    assert all(size <= max(fitting, memory.FIRST) for size in tried)


@pytest.mark.parametrize("fitting", EVERY)
def test_an_error_at_any_size_leads_to_a_smaller_one(fitting):
    found, tried = searched(lambda size: 10 * size, 10**9, fails=[size for size in EVERY if size > fitting])
    assert found == Found(fitting, 10 * fitting)
    assert len(tried) == len(set(tried))


def test_where_nothing_fits_nothing_is_found():
    assert searched(lambda size: 10, 1, fails=EVERY)[0] is None
    assert largest([1, 2], 100, lambda peak: False, lambda size: pytest.fail("tried")) is None


def test_a_peak_of_before_foretells_nothing():
    """Where a peak only grows, as high as 500 before: the first size that shows must not be taken for the second of two."""
    found, tried = searched(lambda size: max(500 if size else 0, 100 + 24 * size), 950, [4, 8, 16, 48])
    assert (found, tried) == (Found(16, 500), [4, 8, 16])


# -- numbers --------------------------------------------------------------------------------------------------------


def test_a_number_is_taken_as_the_largest_divisor_of_each_stage():
    assert [largest_divisor(12, most) for most in (1, 2, 5, 6, 7, 11, 12, 99)] == [1, 2, 4, 6, 6, 6, 12, 12]
    raw = {"train": {"micro_batch": 5, "batch": 12}, "stages": [{"samples": 24}, {"samples": 32, "batch": 16}]}
    trainer = tiny_trainer(raw=raw, regularizers={"it": limited(16)})
    assert memory.pieces(trainer) == [3, 4]
    for size in (12, 12, 16, 16):
        assert memory.at_once(trainer) == (size, 4)
        trainer.round()
    assert trainer.rules[0].regularizer.met == [4] * (3 + 3 + 4 + 4)
    assert Plan(64, 8, ("D",), accumulate=2).pieces(0, 8) == 2


def test_each_process_cuts_its_own_part():
    trainer = tiny_trainer(
        raw={"train": {"micro_batch": 3}}, device=replace(Device.choose("cpu", "fp32"), world=World(0, 2))
    )
    assert memory.at_once(trainer) == (4, 2)
    assert memory.pieces(trainer) == [2]


def test_a_number_trains_as_so_many_pieces_do():
    one, two = (tiny_trainer(raw={"train": train}) for train in ({"micro_batch": 2}, {"accumulate": 4}))
    for trainer in (one, two):
        for _ in range(3):
            trainer.round()
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(two)


@pytest.mark.parametrize(
    ("train", "complaint"),
    [
        ({"micro_batch": -1}, r"train.micro_batch must be 'auto', 0 \(see train.accumulate\) or a number of samples$"),
        ({"micro_batch": "all"}, "'micro_batch' must be one of 'auto' or a whole number, not 'all'"),
        ({"micro_batch": 4, "accumulate": 2}, "micro_batch=4 and train.accumulate=2 both cut the batch; set train.micro_b"),
        ({"micro_batch": "auto", "accumulate": 2}, "train.micro_batch=auto and train.accumulate=2 both cut the batch"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(train, complaint):
    with pytest.raises(RecipeError, match=complaint):
        tiny_recipe({"train": train})


# -- on a trainer ---------------------------------------------------------------------------------------------------

PARTS = {
    "batch norm": {"architecture": Normed},
    "lazy phases": {
        "regularizers": {"r1": R1, "lecam": LeCam},
        "raw": {"regularizer": {"r1": {"every": 3}, "lecam": {"every": 2, "start": 1}}},
    },
    "stages": {"raw": {"stages": [{"samples": 16, "size": 8}, {"samples": 96, "batch": 16, "turns": ["D", "D", "G"]}]}},
}


@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize("name", PARTS)
def test_training_after_the_search_is_as_if_it_had_never_been(name, rounds):
    parts = PARTS[name]
    raw = {"train": {"samples": 112}, **parts.get("raw", {})}
    rules = {**parts.get("regularizers", {}), "limited": limited(2)}
    trainers = []
    for settling in (True, False):
        trainer = tiny_trainer(loss=NonSaturating, **{**parts, "raw": raw, "regularizers": rules})
        trainer.rules[-1].regularizer.most = 10**9
        for _ in range(rounds):
            trainer.round()
        trainer.rules[-1].regularizer.most = 2
        torch.manual_seed(7)
        if settling:
            notes = settle(AUTO, trainer)
            assert len(notes) == max(len(trainer.plan.stages), 1)
            assert notes[0].startswith("2 of 8 samples ")
        trainer.plan = replace(trainer.plan, micro_batches=(2,) * max(len(trainer.plan.stages), 1))
        trainers.append((trainer, torch.get_rng_state()))
    (one, drawn), (two, untouched) = trainers
    assert torch.equal(drawn, untouched)
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(two)
    assert one.feed._course == (two.feed._course if rounds == 0 else None)
    for _ in range(5):
        one.round()
        two.round()
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(two)
    assert one.report() == two.report()


def test_what_is_found_is_what_the_loop_uses_and_is_said():
    trainer = tiny_trainer(architecture=Normed, regularizers={"it": limited(4)})
    (note,) = settle(AUTO, trainer)
    assert trainer.plan.micro_batches == (4,)
    assert re.match(r"4 of 8 samples are computed at once, with \d+\.\d\d GB of memory at most", note)
    assert note.endswith(" GB of memory at most; batch norm in D and G has statistics of 4 samples")
    shown = trainer.rules[0].regularizer.met
    del shown[:]
    trainer.round()
    assert shown == [4, 4]
    assert settle(tiny_recipe({}), trainer) == []  # a recipe that does not ask


def test_batch_norm_is_never_given_one_sample():
    trainer = tiny_trainer(architecture=Normed, regularizers={"it": limited(1)})
    with pytest.raises(ResourceError, match=r"^not even 2 of a batch's 8 samples fit into memory; use narrower networks, "):
        settle(AUTO, trainer)
    assert 1 not in trainer.rules[0].regularizer.met
    trainer = tiny_trainer(regularizers={"it": limited(0)})
    with pytest.raises(ResourceError, match=r"^not even 1 of a batch's 8 samples fit into memory"):
        settle(AUTO, trainer)


def test_a_lazy_phase_counts_whenever_it_is_due():
    raw = {"regularizer": {"it": {"every": 100}}}
    trainer = tiny_trainer(regularizers={"it": limited(2)}, raw=raw)
    trainer.players["D"].turns = 1  # it will be due in 99 turns
    settle(AUTO, trainer)
    assert trainer.plan.micro_batches == (2,)
    assert trainer.players["D"].turns == 1


def test_each_stage_gets_what_fits_there():
    raw = {"stages": [{"samples": 16, "size": 8}, {"samples": 16}, {"samples": 16, "size": 8}], "train": {"batch": 8}}

    class Pixels(Regularizer):
        def penalty(self, duel):
            if duel.real.numel() > 8 * 8 * 8:
                raise MemoryError

    trainer = tiny_trainer(raw=raw, regularizers={"it": Pixels})
    notes = settle(AUTO, trainer)
    assert trainer.plan.micro_batches == (8, 2, 8)
    assert [note.split(" are computed")[0] for note in notes] == ["8 of 8 samples of stage 1", "2 of 8 samples of stage 2"]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    class Broken(Regularizer):
        def penalty(self, duel):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        settle(AUTO, tiny_trainer(regularizers={"it": Broken}))


def test_free_memory_is_not_used_up(monkeypatch):
    """As if a sample took a million bytes beside ten million that are held; 32 samples would fit, with nothing to spare."""
    trainer = tiny_trainer(raw={"train": {"batch": 32}})
    now = {"peak": 0}
    monkeypatch.setattr(Device, "forget_peak", lambda device: now.update(peak=10 * 10**6))
    monkeypatch.setattr(Device, "peak_bytes", lambda device: now["peak"])
    monkeypatch.setattr(Device, "reachable_bytes", lambda device, sharing: 44 * 10**6)
    real, tried = trainer.round, []

    def played():
        tried.append(trainer.plan.micro_batches[0])
        now["peak"] += 10**6 * tried[-1]
        real()

    trainer.round = played
    settle(AUTO, trainer)
    assert (tried, trainer.plan.micro_batches) == ([4, 8, 16], (16,))


def test_a_device_that_tells_nothing_needs_a_number(monkeypatch):
    monkeypatch.setattr(Device, "tells_memory", False)
    with pytest.raises(ResourceError, match=r"^device 'cpu' does not tell how much memory is used; set train.micro_batch"):
        settle(AUTO, tiny_trainer())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process forget its peak")
def test_the_peak_of_a_processor_begins_anew():
    device = Device.choose("cpu")
    held = torch.ones(10**8 // 4)
    assert device.peak_bytes() >= held.nbytes
    del held
    device.forget_peak()
    low = device.peak_bytes()
    torch.ones(10**8 // 4)
    assert 0.9e8 < device.peak_bytes() - low < 1.5e8
    assert low < device.reachable_bytes(2) < device.reachable_bytes()


# -- a whole run ----------------------------------------------------------------------------------------------------

SETTINGS = (
    *("train.batch=8", "train.samples=32", "train.checkpoint=16", "train.precision=fp32", "data.size=16"),
    "architecture.width=2",
)


class Heard(Silent):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def run(*sets: str) -> list[str]:
    heard = Heard()
    recipe = resolve("dcgan", Request(sets=(*SETTINGS, *sets)), registry())
    run_recipe(recipe, registry(), Path("run"), "cpu", reporter=heard)
    return heard.notes


def engine() -> dict:
    return checkpoint.read_header(RunFolder("run").checkpoints()[0])["provenance"]["engine"]


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A folder of its own, and a function that says how many samples memory has room for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real = memory._Tries._play
    most = [10**9]

    def play(tries, start):
        return None if tries.trainer.plan.micro_batches[0] > most[0] else real(tries, start)

    monkeypatch.setattr(memory._Tries, "_play", play)
    return lambda samples: most.__setitem__(0, samples)


def test_a_checkpoint_says_how_a_batch_was_cut_where_it_was(room):
    run()
    before = engine()
    assert "pieces" not in before
    RunFolder("run").set_aside()
    run("train.micro_batch=auto")
    assert engine() == before
    RunFolder("run").set_aside()
    room(4)
    assert run("train.micro_batch=auto")[-1].startswith("4 of 8 samples are computed at once")
    assert engine() == {**before, "pieces": [2]}


def test_going_on_with_other_pieces_is_said_not_to_be_bit_exact(room):
    run("train.micro_batch=4")
    newest = RunFolder("run").checkpoints()[0]
    newest.unlink()
    assert not any("bit-exact" in note for note in run("train.micro_batch=4"))
    for sets, told in (("train.micro_batch=2", "[2] -> [4]"), ("train.micro_batch=0", "[2] -> None")):
        RunFolder("run").checkpoints()[0].unlink()
        RunFolder("run").set_state("interrupted")
        assert f"warning: going on is not bit-exact: pieces {told}" in run(sets)


def test_a_finished_run_searches_nothing(room, monkeypatch):
    run("train.micro_batch=auto")
    monkeypatch.setattr(memory._Tries, "search", lambda *_: pytest.fail("searched"))
    assert [note.split(" from ")[0] for note in run("train.micro_batch=auto")] == ["going on at 32 samples"]


def test_a_dry_run_and_a_measurement_of_speed_search_too(room):
    room(2)
    recipe = resolve("dcgan", Request(sets=(*SETTINGS, "train.micro_batch=auto")), registry())
    found = estimate(recipe, registry(), "cpu", rounds=1)
    assert found.notes[0].startswith("2 of 8 samples are computed at once")
    room(0)
    for work in (
        lambda: estimate(recipe, registry(), "cpu", rounds=1),
        lambda: measure({"as it is": recipe}, registry(), "cpu", 1, 0.1),
    ):
        with pytest.raises(ResourceError, match="not even 2 of a batch's 8 samples fit"):
            work()


# -- real processes -------------------------------------------------------------------------------------------------

ROOM = 150 * 10**6  # bytes that the child may have beyond what it has: one tensor of the whole batch, and little else


class Wide(TinyArchitecture):
    """A discriminator whose only large thing is a million bytes a sample, which torch alone allocates.

    Smaller things must not meet the limit: libraries beneath torch die of it without a word.
    """

    class Discriminator(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(-1, 1, 1000))

        def forward(self, x):
            return nn.functional.softplus(x.flatten(1)[:, :, None] * self.weight).mean((1, 2))

    def discriminator(self, spec):
        return self.Discriminator()


def wide(**train: object) -> tuple[Recipe, Trainer]:
    raw = {"train": {"batch": 128, "samples": 256, **train}}
    return tiny_recipe(raw), tiny_trainer(architecture=Wide, raw=raw)


def child(micro_batch: str) -> None:
    """Train in little memory and print what is told; run as a process of its own."""
    import re
    import resource

    torch.set_num_threads(1)
    wide(batch=4)[1].round()  # what libraries load when they are first used is there
    recipe, trainer = wide(micro_batch=int(micro_batch) if micro_batch.isdecimal() else micro_batch)
    held = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    resource.setrlimit(resource.RLIMIT_DATA, (int(held[1]) * 1024 + ROOM,) * 2)
    notes, error = [], ""
    try:
        with enough_memory(recipe, trainer):
            notes = settle(recipe, trainer)
            trainer.fit(Onlooker())
    except ResourceError as ended:
        error = str(ended)
    print(json.dumps({"rounds": trainer.rounds, "error": error, "notes": notes}))


def in_little_memory(micro_batch: str) -> dict:
    command = [sys.executable, str(SCRIPT), "child", micro_batch]
    # glibc would keep what is freed for pieces of its own choice, and the limit counts that
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_what_does_not_fit_trains_in_pieces_that_do():
    whole = in_little_memory("0")
    assert (whole["rounds"], whole["error"]) == (
        0,
        "batch 128 does not fit into memory; use --set train.micro_batch=64, --set train.micro_batch=auto, or a smaller "
        "--set train.batch",
    )
    pieces = in_little_memory("64")
    assert pieces["error"].startswith(
        "batch 128 does not fit into memory in pieces of 64; use --set train.micro_batch=32, "
    )
    found = in_little_memory("auto")
    assert (found["rounds"], found["error"]) == (2, "")
    (note,) = found["notes"]
    assert 4 <= int(note.split(" of 128 samples are computed at once")[0]) <= 32


def several(folder: Path) -> None:
    """Search in one of two processes, of which the second has memory for two samples only, and train."""
    with joined() as world:
        device = replace(Device.choose("cpu", "fp32"), world=world)
        results = {}
        for name, sync in (("plain", False), ("batch norm over all", True)):
            raw = {"train": {"batch": 16, "sync_batch_norm": sync}}
            rules = {"it": limited(2 if world.rank else 4)}
            one = tiny_trainer(device=device, raw=raw, architecture=Normed, regularizers=rules)
            notes = settle(AUTO, one)
            raw["train"]["micro_batch"] = 2
            two = tiny_trainer(device=device, raw=raw, architecture=Normed, regularizers=rules)
            for trainer in (one, two):
                trainer.round()
            same = checkpoint.fingerprint(one) == checkpoint.fingerprint(two)
            everyone = len(set(world.everyone(checkpoint.fingerprint(one)))) == 1
            results[name] = {"found": one.plan.micro_batches, "notes": notes, "same": same, "everyone": everyone}
        (folder / f"{world.rank}.json").write_text(json.dumps(results), encoding="utf-8")


def test_several_processes_take_what_fits_on_all(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", str(SCRIPT), "several", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    # torch was seen, once, to abort a process with these words after it had left the launch
    assert ended.returncode == 0 or "terminate called without an active exception" in ended.stderr, ended.stderr
    for rank in (0, 1):
        for result in json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")).values():
            assert (result["found"], result["same"], result["everyone"]) == ([2], True, True)
            assert result["notes"][0].startswith("2 of 8 samples are computed at once")


if __name__ == "__main__":
    {"child": child, "several": lambda folder: several(Path(folder))}[sys.argv[1]](*sys.argv[2:])
