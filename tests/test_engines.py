"""Engines: whoever dies, every task is done and the board is the same."""

import importlib
import importlib.util
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ganzoo.benchmark.engines import engine, local
from ganzoo.benchmark.work import perform
from ganzoo.errors import Interrupted, PluginError, RunFailed

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the optional Ray is not installed")


TASKS = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from ganzoo.errors import DataError

@dataclass(frozen=True)
class Note:
    folder: str
    number: int
    dies: bool = False
    fault: str = ""

    @property
    def label(self):
        return f"note {self.number}"

    def do(self):
        mark = Path(self.folder, f"dying-{self.number}")
        if self.dies and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "known":
            raise DataError("the data is wrong; mend it")
        if self.fault:
            raise ZeroDivisionError("anybody's code")
        Path(self.folder, str(self.number)).touch()
"""


@pytest.fixture
def note(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a task that other processes can import: it writes its number down, or fails, or dies the first time."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "ganzoo_test_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("ganzoo_test_tasks", None)
    kind: Callable[..., Any] = importlib.import_module("ganzoo_test_tasks").Note
    return kind


def test_a_fault_ends_in_its_own_row(tmp_path: Path, note: Callable[..., Any]) -> None:
    assert perform(note(str(tmp_path), 0)).error == ""
    assert perform(note(str(tmp_path), 0, fault="known")).error == "the data is wrong; mend it"
    assert perform(note(str(tmp_path), 0, fault="other")).error == "note 0 failed (ZeroDivisionError: anybody's code)"


def test_a_process_that_dies_is_replaced(tmp_path: Path, note: Callable[..., Any]) -> None:
    tasks = [note(str(tmp_path), number, dies=number == 2) for number in range(5)]
    done = list(local(tasks, 2))
    assert sorted(task.number for task, _ in done) == [0, 1, 2, 3, 4]
    assert not any(one.error for _, one in done)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2", "3", "4", "dying-2"}


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(RunFailed, match="no engine 'rey'; did you mean 'ray'"):
        engine("rey")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_engine_says_what_to_install() -> None:
    with pytest.raises(PluginError, match=r"pip install 'ganzoo-toolkit\[ray\]'"):
        list(engine("ray")([], 2))


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_of_two_loses_a_worker_and_makes_the_same_board(tmp_path: Path) -> None:
    """A real local Ray cluster: its tasks score two small models while one of its worker processes is killed."""
    from ganzoo.benchmark import work
    from ganzoo.benchmark.protocol import find
    from ganzoo.benchmark.sweep import Order, Silent, sweep
    from ganzoo.jobs import train
    from ganzoo.registry import registry

    (tmp_path / "tiny.toml").write_text(
        'version = 1\nsamples = 150\nseeds = [0, 1, 2]\nextractors = ["pca64"]\nmetrics = ["frechet", "memorisation"]\n'
    )
    settings = {"data.size": 16, "train.samples": 128, "latent.size": 8}
    for name in ("gan", "dcgan"):
        train(name, data="emoji32", settings=settings, run=tmp_path / "runs" / name, device="cpu")
    targets = tuple(str(tmp_path / "runs" / name) for name in ("gan", "dcgan"))
    protocol = find(str(tmp_path / "tiny.toml"), registry())
    order = Order(protocol=protocol, out=tmp_path / "local", targets=targets, device="cpu", workers=1)
    here = sweep(order, registry(), Silent())
    work.spoil()
    killed: list[int] = []

    class Killer(Silent):
        """Kills a worker of the cluster once the first task is done."""

        def step(self, text: str, done: int, total: int, left: float) -> None:
            if not killed:
                killed.append(_kill_worker())

    there = sweep(replace(order, out=tmp_path / "ray", engine="ray", workers=2), registry(), Killer())
    assert killed
    assert killed[0] > 0
    assert [entry["entry_sha256"] for entry in there.entries] == [entry["entry_sha256"] for entry in here.entries]
    assert all(entry["status"] == "scored" for entry in there.entries)


def _kill_worker() -> int:
    """Kill one process that is doing tasks for this cluster; Ray calls it after the function."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                name = (place / "cmdline").read_bytes().split(b"\0")[0]
            except OSError:
                continue
            if name.startswith(b"ray::perform"):
                os.kill(int(place.name), signal.SIGKILL)
                return int(place.name)
        time.sleep(0.01)
    return 0


@dataclass(frozen=True)
class StoppedTask:
    """A training that a signal ends."""

    label: str = "stopped"

    def do(self) -> None:
        raise Interrupted("stopped by SIGINT at 1 of 2 samples, all saved; the same command goes on", 130)


def test_who_is_stopped_does_not_go_on_with_the_next_task():
    """Else Ctrl-C during a sweep would cost one row, and the sweep would train the rest."""
    with pytest.raises(Interrupted, match="stopped by SIGINT") as raised:
        list(local([StoppedTask(), StoppedTask()], 1))
    again = pickle.loads(pickle.dumps(raised.value))  # as it comes back from another process
    assert (str(again), again.exit_code) == (str(raised.value), 130)
