"""Scoring: one protocol, the same numbers whatever the batch, the process or the interruption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ganzoo.benchmark import work
from ganzoo.benchmark.entry import lint
from ganzoo.benchmark.protocol import find, names
from ganzoo.benchmark.sweep import Order, Result, Silent, sweep
from ganzoo.benchmark.verify import verify
from ganzoo.checkpoint import read_tensors
from ganzoo.errors import CheckpointError, DataError, GanzooError, PluginError, RecipeError
from ganzoo.jobs import train
from ganzoo.registry import registry

TOML = """version = 1
samples = 150
seeds = [0, 1]
extractors = ["pca64", "rconv"]
metrics = ["frechet", "kernel", "density-coverage", "memorisation"]
[options.frechet]
groups = 10
[options.kernel]
subsets = 5
size = 100
[options.density-coverage]
samples = 150
[options.memorisation]
samples = 150
"""


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory):
    """Keep features out of the user's cache, for this process and those that it starts."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    work.spoil()
    yield
    work.spoil()
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a protocol and the runs of two small models."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "tiny.toml").write_text(TOML)
    settings = {"data.size": 16, "train.samples": 256, "latent.size": 8}
    for name in ("gan", "dcgan"):
        train(name, data="emoji32", settings=settings, run=folder / "runs" / name, device="cpu")
    return folder


@pytest.fixture(scope="module")
def order(place: Path) -> Order:
    protocol = find(str(place / "tiny.toml"), registry())
    targets = tuple(str(place / "runs" / name) for name in ("gan", "dcgan"))
    return Order(protocol=protocol, out=place / "board", targets=targets, device="cpu", workers=1)


@pytest.fixture(scope="module")
def board(order: Order) -> Result:
    return sweep(order, registry(), Silent())


def hashes(result: Result) -> list[str]:
    return [entry["entry_sha256"] for entry in result.entries]


def test_every_installed_protocol_is_whole() -> None:
    assert {"smoke", "offline10k", "fid10k", "fid50k"} <= set(names(registry()))
    seen = {find(name, registry()).sha256 for name in names(registry())}
    assert len(seen) == len(names(registry()))


def test_the_hash_of_a_protocol_is_that_of_what_scores_depend_on(place: Path) -> None:
    protocol = find(str(place / "tiny.toml"), registry())
    assert replace(protocol, summary="other words").sha256 == protocol.sha256
    assert replace(protocol, samples=151).sha256 != protocol.sha256
    assert protocol.id == "tiny/1"
    assert protocol.changed(samples=150, seeds=None) == protocol
    custom = protocol.changed(samples=99)
    assert (custom.id, custom.overrides) == ("tiny/1+custom", ("samples = 99",))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("samplez = 3", "protocol 'bad' has no option 'samplez'; did you mean 'samples'"),
        ("overrides = ['x']", "only the command line may set"),
        ("truncation = -1.0", "truncation must not be negative"),
        ("[options.frechett]\ngroups = 3", "options must belong to metrics"),
    ],
)
def test_a_bad_protocol_is_refused(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f'version = 1\nsamples = 5\nseeds = [0]\nextractors = ["a"]\nmetrics = ["frechet"]\n{line}\n')
    with pytest.raises(GanzooError, match=message):
        find(str(path), registry())


def test_a_board_has_all_models_and_the_rows_that_say_what_scores_mean(board: Result) -> None:
    found = {(entry["kind"], entry["model"]["name"]): entry for entry in board.entries}
    assert {name for kind, name in found if kind == "model"} == {"gan+emoji32", "dcgan+emoji32"}
    baselines = {"real-test", "train-copies", "noise", "mean-image", "pixel-gaussian"}
    assert {name for kind, name in found if kind == "baseline"} == baselines
    assert board.left == 0
    for entry in board.entries:
        assert entry["status"] == "scored"
        assert lint(entry, "entry") == []
    key = f"FD/{found['model', 'gan+emoji32']['extractors'][0]['id']}"
    distance = {name: entry["scores"][key]["mean"] for (_, name), entry in found.items()}
    assert distance["train-copies"] < distance["real-test"] < min(distance["gan+emoji32"], distance["noise"])
    copies = found["baseline", "train-copies"]["scores"]
    assert copies[key.replace("FD", "AuthPct")]["mean"] == 0
    assert copies[key.replace("FD", "C_T")]["mean"] < -10
    real = found["baseline", "real-test"]["scores"][key.replace("FD", "AuthPct")]
    assert real["mean"] == pytest.approx(real["heldout"], abs=12)
    assert "collapsed" not in found["model", "gan+emoji32"]["flags"]


@pytest.mark.parametrize("batch", [7, 64, 500])
def test_scores_are_the_same_for_any_batch(order: Order, board: Result, tmp_path: Path, batch: int) -> None:
    again = sweep(replace(order, out=tmp_path, batch=batch), registry(), Silent())
    assert hashes(again) == hashes(board)


def test_a_second_run_computes_nothing(order: Order, board: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "score", None)  # whoever calls it fails
    assert hashes(sweep(order, registry(), Silent())) == hashes(board)


def test_scoring_leaves_the_callers_generators_alone(order: Order, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    sweep(replace(order, out=tmp_path, targets=order.targets[:1], baselines=False), registry(), Silent())
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_a_damaged_result_is_computed_anew(order: Order, board: Result, tmp_path: Path) -> None:
    shutil.copytree(order.out, tmp_path / "board")
    units = sorted((tmp_path / "board" / "units").glob("*.json"))
    units[0].write_text("{")
    edited = json.loads(units[1].read_text())
    edited["scores"]["FD"]["value"] = 0.001
    units[1].write_text(json.dumps(edited))
    os.truncate(units[2], 100)
    assert hashes(sweep(replace(order, out=tmp_path / "board"), registry(), Silent())) == hashes(board)


def test_a_damaged_or_stale_cache_is_computed_anew(order: Order, board: Result, tmp_path: Path) -> None:
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "ganzoo" / "features"
    files = sorted(cache.glob("*.safetensors"))
    assert files
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-4] + b"\0\1\2\3")
    shutil.copyfile(files[2], files[1])  # whole, but of another split or extractor
    with pytest.raises(CheckpointError):
        read_tensors(files[0])
    work.spoil()
    assert hashes(sweep(replace(order, out=tmp_path), registry(), Silent())) == hashes(board)


def test_a_model_that_fails_is_a_row(order: Order, board: Result, place: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(place / "runs" / "gan", broken)
    path = max((broken / "checkpoints").glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1000] ^= 255
    path.write_bytes(content)
    result = sweep(replace(order, targets=(*order.targets, str(broken)), out=tmp_path / "out"), registry(), Silent())
    failed = [entry for entry in result.entries if entry["status"] == "failed"]
    assert len(failed) == 1
    assert "is damaged" in failed[0]["reason"]
    assert lint(failed[0], "entry") == []
    assert set(hashes(board)) < set(hashes(result))


def test_a_diverged_model_is_a_row(order: Order, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ganzoo.sampling import Model

    decode = Model.decode
    monkeypatch.setattr(Model, "decode", lambda self, *args: decode(self, *args) * torch.nan)
    result = sweep(replace(order, targets=order.targets[:1], out=tmp_path, baselines=False), registry(), Silent())
    assert [entry["status"] for entry in result.entries] == ["diverged"]
    assert "not finite" in result.entries[0]["reason"]
    assert result.entries[0]["scores"] == {}
    assert lint(result.entries[0], "entry") == []


def test_a_collapsed_model_is_flagged(order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ganzoo.sampling import Model

    decode = Model.decode
    monkeypatch.setattr(Model, "decode", lambda self, *args: torch.zeros_like(decode(self, *args)))
    result = sweep(replace(order, targets=order.targets[:1], out=tmp_path, baselines=False), registry(), Silent())
    assert "collapsed" in result.entries[0]["flags"]


class TestVerify:
    def model(self, board: Result) -> dict:
        return json.loads(json.dumps(board.entries[0]))

    def checkpoint(self, place: Path) -> Path:
        return max((place / "runs" / "gan" / "checkpoints").glob("*.safetensors"))

    @pytest.fixture
    def installed(self, monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
        """Let the small protocol be found by its name."""
        from ganzoo.benchmark import verify as module

        monkeypatch.setattr(module, "find", lambda name, known: order.protocol)

    def test_another_process_reproduces_every_bit(
        self, board: Result, place: Path, tmp_path: Path, installed: None
    ) -> None:
        work.spoil()
        verdict = verify(self.model(board), place / "runs" / "gan", "cpu", Silent())
        assert (verdict.badge, verdict.ok) == ("bit-exact", True)
        script = (
            "import json, sys; from pathlib import Path\n"
            "from ganzoo.benchmark import verify as v; from ganzoo.benchmark.protocol import find\n"
            "from ganzoo.benchmark.sweep import Silent; from ganzoo.registry import registry\n"
            "v.find = lambda name, known: find(sys.argv[3], known)\n"
            "print(v.verify(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), 'cpu', Silent()).badge)\n"
        )
        (tmp_path / "entry.json").write_text(json.dumps(self.model(board)))
        arguments = [str(tmp_path / "entry.json"), str(self.checkpoint(place)), str(place / "tiny.toml")]
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "bit-exact", done.stderr

    def test_an_edited_score_is_caught(self, board: Result, place: Path, installed: None) -> None:
        from ganzoo.benchmark.entry import seal

        entry = self.model(board)
        key = next(iter(entry["scores"]))
        entry["scores"][key]["mean"] *= 0.9
        entry["scores"][key]["per_seed"] = [value * 0.9 for value in entry["scores"][key]["per_seed"]]
        assert any("edited" in line for line in verify(entry, self.checkpoint(place), "cpu", Silent()).lines)
        resealed = seal(entry)  # a careful cheat
        assert lint(resealed, "entry") == []
        verdict = verify(resealed, self.checkpoint(place), "cpu", Silent())
        assert (verdict.badge, verdict.ok) == ("disputed", False)
        assert any(key in line for line in verdict.lines)

    def test_another_checkpoint_is_caught(self, board: Result, place: Path, installed: None) -> None:
        other = max((place / "runs" / "dcgan" / "checkpoints").glob("*.safetensors"))
        verdict = verify(self.model(board), other, "cpu", Silent())
        assert not verdict.ok
        assert "the checkpoint is another one" in verdict.lines[0]

    def test_an_edited_recipe_is_caught(self, board: Result, place: Path, installed: None) -> None:
        from ganzoo.benchmark.entry import seal

        entry = self.model(board)
        entry["model"]["recipe"] = entry["model"]["recipe"].replace("samples = 256", "samples = 9999")
        verdict = verify(seal(entry), self.checkpoint(place), "cpu", Silent())
        assert not verdict.ok
        assert any("recipe" in line for line in verdict.lines)

    def test_another_protocol_is_refused(self, board: Result, place: Path) -> None:
        entry = self.model(board)
        entry["protocol"]["id"] = "smoke/1"
        from ganzoo.benchmark.entry import seal

        with pytest.raises(DataError, match="install the version of ganzoo that the entry names"):
            verify(seal(entry), self.checkpoint(place), "cpu", Silent())


SWEEP = """
import sys
import time
from pathlib import Path
from ganzoo.benchmark.protocol import find
from ganzoo.benchmark.sweep import Order, Silent, sweep
from ganzoo.registry import registry
from ganzoo.benchmark import work

slow = work.score
def slowly(*args):
    print("scoring", flush=True)
    time.sleep(0.4)
    return slow(*args)
work.score = slowly
protocol = find(sys.argv[1], registry())
order = Order(protocol=protocol, out=Path(sys.argv[2]), targets=tuple(sys.argv[3:]), device="cpu", workers=1)
result = sweep(order, registry(), Silent())
print(*[entry["entry_sha256"] for entry in result.entries])
"""


def start(place: Path, order: Order, out: Path, log: Path) -> "subprocess.Popen[bytes]":
    arguments = [str(place / "tiny.toml"), str(out), *order.targets]
    with open(log, "wb") as file:
        return subprocess.Popen([sys.executable, "-c", SWEEP, *arguments], stdout=file)


def test_a_killed_sweep_goes_on_and_two_at_once_share_it(order: Order, board: Result, place: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "first"
    with start(place, order, out, log) as first:
        while log.read_text().count("scoring") < 3:
            assert first.poll() is None
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    done = len(list((out / "units").glob("*.json")))
    assert 0 < done < 24
    logs = [tmp_path / "second", tmp_path / "third"]
    for process in [start(place, order, out, log) for log in logs]:
        with process:
            assert process.wait(timeout=120) == 0
    outputs = [log.read_text().splitlines() for log in logs]
    assert [output[-1].split() for output in outputs] == [hashes(board)] * 2
    assert sum(output.count("scoring") for output in outputs) == 12 - done // 2  # shared: nothing is done twice


def test_several_processes_make_the_same_board(order: Order, board: Result, tmp_path: Path) -> None:
    again = sweep(replace(order, out=tmp_path, workers=2), registry(), Silent())
    assert hashes(again) == hashes(board)


def test_shards_together_make_the_same_board(order: Order, board: Result, tmp_path: Path) -> None:
    for number in range(3):
        part = sweep(replace(order, out=tmp_path, shard=(number, 3)), registry(), Silent())
    assert part.left == 0
    assert hashes(part) == hashes(board)


def test_a_time_limit_leaves_a_valid_part(order: Order, board: Result, tmp_path: Path) -> None:
    part = sweep(replace(order, out=tmp_path, time_limit=1e-9), registry(), Silent())
    assert part.left == 7
    assert part.entries == []
    assert hashes(sweep(replace(order, out=tmp_path), registry(), Silent())) == hashes(board)


def test_missing_models_are_trained_with_one_budget(place: Path, order: Order, tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    text = (place / "runs" / "gan" / "recipe.toml").read_text()
    recipe.write_text(text.replace('name = "gan+emoji32"', 'name = "small"'))
    asked = replace(order, targets=(str(recipe),), runs=tmp_path / "runs", out=tmp_path / "out", baselines=False)
    with pytest.raises(RecipeError, match="nothing to score"):
        sweep(asked, registry(), Silent())
    result = sweep(replace(asked, train_missing=True, budget=128), registry(), Silent())
    assert [entry["training"]["images_seen"] for entry in result.entries] == [128]
    again = sweep(replace(asked, train_missing=True, budget=128), registry(), Silent())
    assert hashes(again) == hashes(result)


def test_extractors_are_chosen_by_the_data(order: Order) -> None:
    from ganzoo.benchmark.scoring import choose

    protocol = find("offline10k", registry())
    names = [one.name for one in choose(protocol, "emoji32", registry(), {}) if not one.optional]
    assert names == ["rconv", "pca64"]
    clothes = choose(protocol, "fashion-mnist", registry(), {})
    assert (clothes[0].name, clothes[0].ranks, clothes[1].ranks) == ("cls-fashion-mnist", True, False)
    with pytest.raises(PluginError, match="--weights names extractor 'vgg16'"):
        choose(protocol, "emoji32", registry(), {"vgg16": "x"})
    with pytest.raises(PluginError, match="no extractor of the protocol was made for 'emoji32'"):
        choose(replace(protocol, extractors=("cls-fashion-mnist",), optional=()), "emoji32", registry(), {})


def test_features_that_are_kept_are_listed_checked_and_handed_on(board: Result, tmp_path: Path) -> None:
    import numpy as np
    from click.testing import CliRunner

    from ganzoo.cli.stats import command

    def run(*arguments: str):
        return CliRunner().invoke(command, list(arguments), standalone_mode=False)

    assert "rconv@" in run("ls").output
    assert run("verify").return_value == 0
    file = tmp_path / "emoji.npz"
    assert "mu and sigma of emoji32" in run("export", "pca64", str(file), "--data", "emoji32", "--size", "16").output
    with np.load(file) as moments:
        assert moments["mu"].shape == (64,)
        assert np.allclose(moments["sigma"], moments["sigma"].T)
        assert np.trace(moments["sigma"]) == pytest.approx(64, rel=0.01)
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "ganzoo" / "features"
    path = max(cache.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-8] + b"\1" * 8)
    assert run("verify").return_value == 1
    assert "files removed" in run("clear").output
    assert not list(cache.glob("*.safetensors"))


def test_a_score_from_python_is_that_of_the_command(order: Order, board: Result, place: Path, tmp_path: Path) -> None:
    from ganzoo.benchmark import score

    entry = score(place / "runs" / "gan", protocol=str(place / "tiny.toml"), out=tmp_path, device="cpu", batch=100)
    sealed = {key for key in entry if key not in ("timing", "verified")}
    assert {key: entry[key] for key in sealed} == {key: board.entries[0][key] for key in sealed}


def test_path_lengths_and_distances_at_infinity_are_measured_where_they_can_be(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for LPIPS, whose weights are not to be had here; without it, the reason is told."""
    from torch_fidelity.registry import SAMPLE_SIMILARITY_REGISTRY
    from torch_fidelity.sample_similarity_base import SampleSimilarityBase

    class Squares(SampleSimilarityBase):
        def __init__(self, name: str, **kwargs: object) -> None:
            super().__init__(name)

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            assert first.shape == second.shape == (len(first), 3, 16, 16)
            return (first.float() - second.float()).square().flatten(1).mean(1)

    monkeypatch.setitem(SAMPLE_SIMILARITY_REGISTRY, "squares", Squares)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = {"samples": 100, "epsilon": 0.1, "similarity": "squares"}
    settings = {"perceptual-path-length": path, "frechet-infinity": {"least": 60}}
    asked = order.protocol.changed(metrics=tuple(settings), options=settings, extractors=("pca64",))
    models = replace(order, targets=order.targets[:1], out=tmp_path, baselines=False)
    (entry,) = sweep(replace(models, protocol=asked), registry(), Silent()).entries
    scores = {key.split("/")[0]: value for key, value in entry["scores"].items()}
    assert scores["PPL"]["mean"] > 0
    assert scores["FD-inf"]["mean"] is not None
    assert lint(entry, "entry") == []
    asked = order.protocol.changed(metrics=("perceptual-path-length",), options={}, extractors=("pca64",))
    (entry,) = sweep(replace(models, protocol=asked), registry(), Silent()).entries
    (score,) = entry["scores"].values()
    assert score["mean"] is None
    assert "weights-vgg16-lpips.pth" in score["note"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--protocol", "nosuch"], 3, "no protocol 'nosuch'"),
        (["--metrics", "frechett"], 3, "no metric 'frechett'; did you mean 'frechet'"),
        (["--extractor", "pca65"], 4, "no extractor 'pca65'; did you mean 'pca64'"),
        (["--sort", "fdd"], 3, "no column 'fdd'"),
        (["--engine", "rey"], 2, "no engine 'rey'; did you mean 'ray'"),
        (["--format", "pdf"], 2, "no format 'pdf'"),
        (["--budget", "much"], 2, "write 200k"),
        (["--time-limit", "soon"], 2, "write 90s"),
        (["--shard", "5/2"], 2, "no share of the work"),
        (["--eval-seeds", "a"], 2, "no list of seeds"),
        (["--weights", "nofile"], 3, "is no file"),
        (["--protocol", "fid10k"], 3, "SHA-256 6726825d"),
        ([], 3, "nothing to score in runs"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_trained(
    arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    from ganzoo.cli.start import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    train = [] if arguments == [] else ["--train-missing"]
    monkeypatch.setattr(sys, "argv", ["ganzoo", "benchmark", *arguments, *train])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""
    assert not (tmp_path / "runs").exists()


def test_starting_anew_keeps_what_it_has_just_computed_for_other_data(
    order: Order, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"data.size": 16, "data.channels": 1, "train.samples": 64, "latent.size": 8}
    train("gan", data="emoji32", settings=settings, run=tmp_path / "grey", device="cpu")
    both = replace(order, out=tmp_path / "board", targets=(order.targets[0], str(tmp_path / "grey")), baselines=False)
    first = sweep(replace(both, fresh=True), registry(), Silent())
    assert len(first.entries) == 2
    monkeypatch.setattr(work, "score", None)  # whoever calls it fails
    assert hashes(sweep(both, registry(), Silent())) == hashes(first)


def test_a_model_whose_code_changed_is_scored_anew(order: Order, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale result must not be believed: the same checkpoint draws other samples by other code."""
    from ganzoo.benchmark import sources
    from ganzoo.registry import Registry

    path = place / "runs" / "gan"
    before = sources.ModelSource(path).key
    assert sources.ModelSource(path).key == before
    provenance = Registry.provenance
    monkeypatch.setattr(Registry, "provenance", lambda self, one: {**provenance(self, one), "sha256": f"other {one.name}"})
    assert sources.ModelSource(path).key != before
    assert sources.ModelSource(path).stem == before.rpartition("-")[0]
