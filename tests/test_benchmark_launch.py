"""Scoring by the processes of a launch: the board of one process, also where one of them is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ganzoo.benchmark import launch, work
from ganzoo.benchmark.drawing import _piece
from ganzoo.benchmark.protocol import find
from ganzoo.benchmark.sweep import Order, Silent, sweep
from ganzoo.cli.start import main
from ganzoo.errors import PeerFailed, RankLost
from ganzoo.jobs import train
from ganzoo.registry import registry

TOML = """version = 1
samples = 150
seeds = [0, 1]
extractors = ["pca64", "rconv"]
metrics = ["frechet", "memorisation"]
"""
TIMES = ("seconds", "sample_ms", "sha256")  # of a unit: what differs from run to run, and the seal over it


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", "-m", "--", "ganzoo", "benchmark", str(folder / "run"), "--device", "cpu"]
    command += ["--protocol", str(folder / "tiny.toml"), "--batch-size", "64", "--quiet", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def units(folder: Path) -> dict[str, dict]:
    found = {path.name: json.loads(path.read_text()) for path in (folder / "units").glob("*.json")}
    return {name: {key: value for key, value in unit.items() if key not in TIMES} for name, unit in found.items()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of a launch in /proc")
def test_two_processes_make_the_board_of_one_and_go_on_where_one_was_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work.spoil()
    (tmp_path / "tiny.toml").write_text(TOML)
    settings = {"data.size": 16, "train.samples": 128, "latent.size": 8}
    train("dcgan", data="emoji32", settings=settings, run=tmp_path / "run", device="cpu")
    protocol = find(str(tmp_path / "tiny.toml"), registry())
    order = Order(protocol=protocol, out=tmp_path / "one", targets=(str(tmp_path / "run"),), device="cpu", workers=1)
    board = sweep(order, registry(), Silent())

    out = tmp_path / "two"
    process = start(tmp_path, "--out", str(out))
    while not units(out):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert 0 < len(units(out)) < len(units(tmp_path / "one"))
    assert not list(out.glob("*.html"))

    process = start(tmp_path, "--out", str(out), "--json-stdout")
    told, noted = process.communicate(timeout=300)
    assert process.returncode == 0, noted
    json.loads(told)  # of both processes one speaks
    assert units(out) == units(tmp_path / "one")
    monkeypatch.setattr(work, "draw", None)  # whoever calls it fails
    again = sweep(Order(**{**vars(order), "out": out}), registry(), Silent())
    assert [entry["entry_sha256"] for entry in again.entries] == [entry["entry_sha256"] for entry in board.entries]


@pytest.mark.parametrize(
    ("words", "message"), [(("--workers", "2"), "leave --workers out"), (("--device", "tpu"), "device 'tpu' is not known")]
)
def test_of_a_launch_that_cannot_begin_the_leading_process_alone_says_why(words, message, tmp_path):
    process = start(tmp_path, *words)
    told, noted = process.communicate(timeout=120)
    assert told == ""
    assert noted.count(message) == 1
    assert noted.count("exitcode  : 2 ") == 1
    assert noted.count("of this launch") == 0


@dataclass(frozen=True)
class Raises:
    """A task that ends with an error."""

    error: Exception
    label: str = "task"

    def do(self) -> None:
        raise self.error


def test_a_lost_process_is_no_fault_of_the_model_and_ends_the_sweep():
    assert work.perform(Raises(PeerFailed("process 1 says why"))).error == ""
    with pytest.raises(RankLost, match="gone"):
        work.perform(Raises(RankLost("gone")))


@pytest.mark.parametrize("words", [["--engine", "ray"], ["--workers", "2"]])
def test_who_does_the_work_is_said_once(words, monkeypatch, tmp_path, capsys):
    @contextmanager
    def together(device):
        yield True, lambda tasks, workers: iter(())

    monkeypatch.setattr(launch, "together", together)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ganzoo", "benchmark", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert f"torchrun started do all the work; leave {words[0]} out" in capsys.readouterr().err


def test_who_does_not_lead_says_nothing(monkeypatch, tmp_path, capsys):
    @contextmanager
    def together(device):
        yield False, None

    monkeypatch.setattr(launch, "together", together)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ganzoo", "benchmark"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [2, 64, 150, 1000, 10_000])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("batch", [1, 100, 256])
def test_a_piece_is_whole_chunks_within_what_may_be_held(count, processes, batch):
    piece, held = _piece(count, processes, 64, batch), -(-batch // 64) * 64
    assert 0 < piece <= held
    assert piece % 64 == 0
    assert -(-count // (piece * processes)) == -(-count // (held * processes))  # smaller pieces, but no more stretches
