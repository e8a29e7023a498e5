"""A training from start to finish, and everything that can come between: signals, kills, damage, other recipes, NaN."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from PIL import Image

import ganzoo
from ganzoo import assemble, checkpoint, pictures
from ganzoo.errors import CheckpointError, DataError, Interrupted, PluginError, RecipeError, ResourceError, RunFailed
from ganzoo.jobs import Silent, estimate, run_recipe
from ganzoo.registry import registry
from ganzoo.runs import RunFolder
from ganzoo.sampling import load
from ganzoo.seed import latents
from ganzoo.zoo import Request, resolve

TINY = """\
summary = "as small as can be"
[data]
name = "fashion-mnist-10k"
size = 16
[architecture]
name = "dcgan"
width = 2
[loss]
name = "non-saturating"
[latent]
size = 8
[optimizer]
name = "adam"
lr = 1e-3
betas = [0.5, 0.9]
[train]
batch = 8
samples = 160
ema = 0.9
precision = "fp32"
log = 16
checkpoint = 32
grid = 80
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of its own with the recipe in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    return tmp_path


class Heard(Silent):
    """A reporter that keeps what it is told, and sends a signal to this process at a report of its choice."""

    def __init__(self, stop_at=0, number=signal.SIGINT):
        self.notes, self.samples, self.stop_at, self.number = [], [], stop_at, number

    def note(self, text):
        self.notes.append(text)

    def report(self, report, speed, left):
        self.samples.append(report.progress.samples)
        if report.progress.samples == self.stop_at:
            os.kill(os.getpid(), self.number)


def train(place="run", *sets, heard=None, fresh=False, **request):
    recipe = resolve("tiny.toml", Request(sets=sets, **request), registry())
    return run_recipe(recipe, registry(), RunFolder(place).path, "cpu", fresh, heard)


def final(place="run"):
    return RunFolder(place).checkpoints()[0].read_bytes()


def logged(place="run"):
    return [json.loads(line)["samples"] for line in RunFolder(place).log_file.read_text(encoding="utf-8").splitlines()]


def test_a_run_folder_holds_all_that_a_training_was(home):
    outcome = train()
    folder = RunFolder("run")
    assert (outcome.samples, outcome.already_finished) == (160, False)
    assert sorted(os.listdir("run")) == ["checkpoints", "lock", "log.jsonl", "recipe.toml", "run.json", "samples"]
    assert [path.name for path in folder.checkpoints()] == ["000000000160.safetensors", "000000000128.safetensors"]
    assert sorted(os.listdir("run/samples")) == ["000000000080.png", "000000000160.png"]
    assert logged() == [8, *range(16, 161, 16)]
    entry = json.loads(folder.log_file.read_text(encoding="utf-8").splitlines()[-1])
    assert {"samples", "rounds", "images_per_second", "D/loss", "G/loss", "D/real", "D/fake"} <= entry.keys()
    assert (folder.state()["state"], folder.state()["samples"]) == ("finished", 160)
    with Image.open("run/samples/000000000160.png") as grid:
        assert grid.text == {"recipe": "tiny", "samples": "160", "seed": "0"}
    _, counters, provenance = checkpoint.read(folder.checkpoints()[0])
    assert (counters["samples"], counters["rounds"]) == (160, 20)
    assert provenance["recipe"] == folder.recipe_file.read_text(encoding="utf-8")
    assert {plugin["name"] for plugin in provenance["plugins"]} == {"dcgan", "non-saturating", "fashion-mnist-10k"}
    assert provenance["data"]["samples"] == 10_000
    assert str(home) not in json.dumps(provenance)


def test_grids_show_the_averaged_generator_on_the_same_latents_through_time(home):
    train("run", "train.grid=32")
    model = load("run", "cpu")
    made = model.decode(latents(64, 8, "normal", 0, "grid"), {})
    with Image.open("run/samples/000000000160.png") as grid:
        assert grid.tobytes() == pictures.grid(made).tobytes()
    train("longer", "train.samples=64", "train.checkpoint=32", "train.grid=32", "train.keep=9")
    early = load("longer/checkpoints/000000000032.safetensors", "cpu").decode(latents(64, 8, "normal", 0, "grid"), {})
    with Image.open("longer/samples/000000000032.png") as grid:
        assert grid.tobytes() == pictures.grid(early).tobytes()


def test_the_same_command_says_that_all_is_done(home):
    train()
    before = final()
    heard = Heard()
    assert train(heard=heard).already_finished
    assert heard.samples == []
    assert final() == before
    assert RunFolder("run").state()["state"] == "finished"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_round_and_the_same_command_goes_on_bit_exactly(home, number, code):
    train("whole")
    with pytest.raises(Interrupted, match=r"stopped by SIG\w+ at 48 of 160 samples, all saved; the same command") as caught:
        train(heard=Heard(48, number))
    assert caught.value.exit_code == code
    assert RunFolder("run").state()["state"] == "interrupted"
    assert RunFolder("run").checkpoints()[0].name == "000000000048.safetensors"
    heard = Heard()
    train(heard=heard)
    assert any(note.startswith("going on at 48 samples") for note in heard.notes)
    assert heard.samples[0] == 56
    assert final() == final("whole")
    assert len(logged()) == len(set(logged()))


def test_outside_the_main_thread_signals_are_left_alone(home):
    before = signal.getsignal(signal.SIGTERM)
    outcomes = []
    worker = threading.Thread(target=lambda: outcomes.append(train()))
    worker.start()
    worker.join()
    assert outcomes[0].samples == 160
    assert signal.getsignal(signal.SIGTERM) is before


def test_fresh_sets_the_old_run_aside(home):
    train()
    before, heard = final(), Heard()
    train("run", "train.samples=32", fresh=True, heard=heard)
    assert heard.notes == ["the earlier run is now run.1"]
    assert final("run.1") == before
    assert RunFolder("run").state()["samples"] == 32


def test_another_recipe_is_refused_and_the_run_is_left_as_it_was(home):
    train()
    before = RunFolder("run").state()
    with pytest.raises(RecipeError, match=r"holds another recipe \(train.batch: 8 -> 4\)"):
        train("run", "train.batch=4")
    assert RunFolder("run").state() == before


def test_a_first_attempt_that_failed_does_not_block_the_folder(home):
    with pytest.raises(PluginError, match="has no option 'widht'; did you mean 'width'"):
        train("run", "architecture.widht=4")
    assert RunFolder("run").state()["state"] == "failed"
    assert train().samples == 160


def test_lists_and_tuples_of_a_caller_are_one_recipe(home):
    for again in (False, True):
        recipe = resolve("tiny.toml", Request(values={"optimizer.betas": (0.5, 0.9)}), registry())
        assert run_recipe(recipe, registry(), RunFolder("run").path, "cpu").already_finished is again


def test_settings_that_change_no_weight_may_differ_when_going_on(home):
    train("whole")
    with pytest.raises(Interrupted):
        train(heard=Heard(48))
    train("run", "train.keep=9", "train.log=8", "train.checkpoint=8")
    tensors = [checkpoint.read(RunFolder(place).checkpoints()[0])[0] for place in ("run", "whole")]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[1])


def damage(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_said_and_the_older_one_taken(home):
    train()
    before = final()
    damage(RunFolder("run").checkpoints()[0])
    heard = Heard()
    train(heard=heard)
    assert "000000000160.safetensors is damaged" in heard.notes[0]
    assert heard.notes[0].startswith("warning: ")
    assert heard.notes[1].startswith("going on at 128 samples")
    assert final() == before
    assert len(logged()) == len(set(logged()))


def test_where_all_checkpoints_are_damaged_nothing_is_trained_over_them(home):
    train()
    found = RunFolder("run").checkpoints()
    for path in found:
        damage(path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole; use --fresh or another --run folder"):
        train()
    assert RunFolder("run").checkpoints() == found


def test_a_loss_that_explodes_ends_the_run_and_keeps_the_last_good_checkpoint(home):
    lr = "optimizer.lr={from=1e-3,to=1e30,begin=0.45,end=0.5}"
    with pytest.raises(
        RunFailed, match=r"(term|tensor) '[DG/]\S+' (became|is not finite).*lower the learning rate"
    ) as caught:
        train("run", lr, "train.checkpoint=8")
    state = RunFolder("run").state()
    assert (state["state"], state["reason"]) == ("failed", str(caught.value))
    kept = RunFolder("run").checkpoints()
    assert kept
    for path in kept:
        assert all(value.isfinite().all() for value in checkpoint.read(path)[0].values())


def test_data_that_changed_is_refused_with_both_counts(home):
    folder = home / "pictures"
    folder.mkdir()
    for number in range(5):
        Image.new("RGB", (16, 16), (40 * number, 0, 9)).save(folder / f"{number}.png")
    with pytest.raises(Interrupted):
        train(heard=Heard(48), data=str(folder))
    (folder / "4.png").unlink()
    with pytest.raises(DataError, match=r"the data changed since 000000000048.safetensors \(5 samples then, 4 now\)"):
        train(data=str(folder))
    Image.new("RGB", (16, 16), (160, 0, 9)).save(folder / "4.png")
    assert train(data=str(folder)).samples == 160


def test_the_seed_decides(home):
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(place, "train.samples=32", seed=seed)
    assert final("a") == final("b")
    assert not torch.equal(load("a", "cpu").sample(4), load("c", "cpu").sample(4))


def test_a_dry_run_measures_and_writes_nothing(home):
    recipe = resolve("tiny.toml", Request(), registry())
    found = estimate(recipe, registry(), "cpu", rounds=2)
    train()
    model = load("run", "cpu")
    assert found.parameters == {name: sum(p.numel() for p in net.parameters()) for name, net in model.nets.items()}
    (pace,) = found.stages
    assert (pace.samples, pace.samples_per_round, pace.size) == (160, 8, None)
    assert (found.device, found.precision) == ("cpu", "fp32")
    assert 0 < found.checkpoint_bytes <= len(final())
    assert found.seconds_to_finish == pytest.approx(pace.seconds_per_round * 20)


def test_a_dry_run_measures_every_stage(home):
    """The first stages of a growing network say nothing of the last, which takes the most time."""
    sizes = {f"stages.{number}.size": size for number, size in enumerate((4, 8, 16, 16))}
    small = {"data.size": 16, "architecture.channel_base": 64, "latent.size": 8, "train.samples": 1000, "train.batch": 4}
    recipe = resolve("progan", Request(values={**sizes, **small}), registry())
    found = estimate(recipe, registry(), "cpu", rounds=2)
    assert [stage.size for stage in found.stages] == [4, 8, 16, 16]
    assert [stage.samples for stage in found.stages] == [80, 120, 160, 640]
    assert all(stage.samples_per_round == 4 for stage in found.stages)
    assert found.seconds_to_finish == pytest.approx(sum(s.seconds_per_round * s.samples / 4 for s in found.stages))


@pytest.mark.parametrize(
    ("sets", "advice"),
    [
        ((), "use --set train.micro_batch=4, --set train.micro_batch=auto, or a smaller --set train.batch"),
        (("train.accumulate=2",), "in pieces of 4; use --set train.accumulate=1 with --set train.micro_batch=2, --set"),
        (("train.micro_batch=auto",), "use --set train.micro_batch=4, or a smaller --set train.batch"),
        (("train.batch=7",), "use --set train.micro_batch=1, --set train.micro_batch=auto, or a smaller"),
        (("train.micro_batch=1",), "in pieces of 1; use a smaller --set train.batch"),
    ],
)
def test_memory_that_runs_out_is_said_with_what_to_do(home, monkeypatch, sets, advice):
    monkeypatch.setattr(assemble, "cast", lambda *_: torch.empty(10**15))
    recipe = resolve("tiny.toml", Request(sets=sets), registry())
    for work in (
        lambda: run_recipe(recipe, registry(), RunFolder("run").path, "cpu"),
        lambda: estimate(recipe, registry()),
    ):
        with pytest.raises(ResourceError, match="does not fit into memory") as caught:
            work()
        assert advice in str(caught.value)
    assert RunFolder("run").state()["state"] == "failed"


def test_other_errors_of_torch_are_not_taken_for_a_lack_of_memory(home, monkeypatch):
    monkeypatch.setattr(assemble, "cast", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        train()


def test_three_lines_of_python_train_and_two_sample(home):
    model = ganzoo.train("tiny.toml", device="cpu", settings={"train.samples": 32}, seed=3)
    images = ganzoo.load("runs/tiny+seed3", "cpu").sample(4)
    assert images.shape == (4, 1, 16, 16)
    assert torch.equal(images, model.sample(4))


# -- real processes -------------------------------------------------------------------------------------------------


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ganzoo", "train", "tiny.toml", "--run", "run", "--device", "cpu", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.002)


def lines():
    path = RunFolder("run").log_file
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def test_one_folder_one_process_and_signals_from_outside(home):
    endless = ("--set", "train.samples=100000000", "--set", "train.checkpoint=1000000", "--set", "train.log=8")
    first = start(*endless)
    try:
        wait_for(lambda: lines() > 0, first)
        second = start(*endless)
        _, said = second.communicate(timeout=60)
        assert second.returncode == 6
        assert f"is in use by process {first.pid} on " in said
        assert "Traceback" not in said
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=60)
        assert first.returncode == 143
        assert "stopped by SIGTERM at " in said
        before = RunFolder("run").checkpoints()[0]
        again = lines()
        first = start(*endless)
        wait_for(lambda: lines() > again, first)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=60)
        assert first.returncode == 130
        assert f"from {before}" in said
        assert "the same command goes on" in said
    finally:
        first.kill()
        first.communicate()


def test_kills_at_any_moment_change_nothing_of_the_result(home):
    budget = ("train.samples=4800", "train.checkpoint=160", "train.log=80", "train.grid=1600")
    train("whole", *budget)
    luck, kills = random.Random(5), 0
    arguments = [part for text in budget for part in ("--set", text)]
    for attempt in range(3):
        before = lines()
        process = start(*arguments)
        try:
            wait_for(lambda before=before: lines() > before + 6, process)
            time.sleep(luck.random() * 0.1)
        finally:
            process.kill()
            process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert len(RunFolder("run").checkpoints()) <= 3, attempt  # the one being written may come before pruning
    assert kills == 3, "the runs were over before they could be killed"
    last = start(*arguments)
    _, said = last.communicate(timeout=120)
    assert last.returncode == 0, said
    assert "going on at" in said
    assert final() == final("whole")
    assert len(logged()) == len(set(logged()))
    assert logged()[-1] == 4800
    assert not list(RunFolder("run").checkpoint_folder.glob(".*"))
