"""Cores that other programs keep busy: from a table of the system, and beside a program that really does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganzoo import busy
from ganzoo.busy import Others, cores

needs_table = pytest.mark.skipif(not Others().used, reason="this system does not count how its cores are used")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A system of four cores of which this process may use two, with clocks that are turned by hand."""
    clock = {"real": 100.0, "own": 7.0}
    monkeypatch.setattr(busy.os, "sched_getaffinity", lambda process: {1, 3}, raising=False)
    monkeypatch.setattr(busy.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(busy.time, "monotonic", lambda: clock["real"])
    monkeypatch.setattr(busy.time, "process_time", lambda: clock["own"])
    monkeypatch.setattr(busy.time, "sleep", lambda seconds: clock.update(real=clock["real"] + seconds))
    table = tmp_path / "stat"

    def turn(seconds: float = 0.0, own: float = 0.0, **used: float) -> Path:
        """Let time pass, and say how many seconds each core has been in use since the system began."""
        clock["real"] += seconds
        clock["own"] += own
        rows = ["cpu  9 9 9 9 9 9 9 9 0 0"]
        for name in ("cpu0", "cpu1", "cpu2", "cpu3"):
            ticks = round(100 * used.get(name, 0.0))
            rows.append(f"{name} {ticks - ticks // 4} {ticks // 4} 0 5000 300 0 0 0 77 0")  # idle, waiting and guests too
        table.write_text("\n".join([*rows, "intr 5 4 3", "ctxt 9"]) + "\n")
        return table

    return turn


def test_what_others_use_of_one_s_cores_is_counted(machine) -> None:  # type: ignore[no-untyped-def]
    others = Others(machine(cpu0=50, cpu1=10, cpu3=20))
    machine(2.0, own=1.0, cpu0=52, cpu1=12, cpu3=20.5, cpu2=9)  # 2.5 s in use, 1 of them by this process
    assert others.cores() == pytest.approx(0.75)


def test_it_is_not_told_before_the_system_can_count_it(machine) -> None:  # type: ignore[no-untyped-def]
    others = Others(machine())
    machine(0.1, cpu1=0.15)
    assert others.cores() == pytest.approx(0.15 / 0.3)  # it waited for the rest


@pytest.mark.parametrize(
    ("threads", "used", "fewer"),
    [
        (2, 1.0, "OMP_NUM_THREADS=1"),
        (2, 2.0, "OMP_NUM_THREADS=1"),
        (2, 0.4, ""),
        (1, 2.0, ""),
        (2, 0.6, "OMP_NUM_THREADS=1"),
    ],
)
def test_threads_that_would_share_a_core_are_advised_against(machine, threads: int, used: float, fewer: str) -> None:  # type: ignore[no-untyped-def]
    others = Others(machine())
    machine(1.0, cpu1=used / 2, cpu3=used / 2)
    said = others.advice(threads)
    assert fewer in said
    assert bool(said) == bool(fewer)
    if said:
        assert f"keep {used:.1f} of 2 cores busy, and the {threads} threads" in said


def test_where_the_system_tells_nothing_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Others(tmp_path / "none").advice(64) == ""
    monkeypatch.delattr(busy.os, "sched_getaffinity", raising=False)
    assert Others().cores() == 0.0
    assert cores() == os.cpu_count()


@needs_table
def test_a_program_beside_this_one_is_seen_and_this_one_is_not() -> None:
    beside = "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", beside], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        others = Others()
        time.sleep(0.6)
        found = others.cores()
        child.kill()
    assert 0.3 < found <= cores() + 0.1  # other tests may run beside these
    others, began, own = Others(), time.monotonic(), time.process_time()
    while time.process_time() < own + 0.5:
        pass
    mine = (time.process_time() - own) / (time.monotonic() - began)
    assert others.cores() <= cores() - mine + 0.2  # no more than is left beside this loop, to the system's hundredths
