"""Training in a child process that is started again where it died: `ganzoo train --retries` and `--torchrun`."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from .errors import RankLost, ResourceError
from .runs import RunFolder

MENDABLE = (ResourceError.exit_code, RankLost.exit_code)  # what may be better the next time
STOPPED = ("interrupted", "finished")  # states in which a run is where somebody wanted it
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK = 0.2  # seconds until a signal is passed on, at most


@dataclass(frozen=True)
class Ending:
    """How a child ended: its exit code, why in words, and whether another try may go better."""

    code: int
    why: str
    mendable: bool


@dataclass(frozen=True)
class Standing:
    """What a run folder says at one moment: its newest checkpoint with the time of writing, and run.json."""

    newest: Path | None
    written: int  # nanoseconds
    state: Mapping[str, Any]

    @classmethod
    def of(cls, folder: RunFolder) -> Standing:
        """Read a folder, which need not be there yet."""
        newest = next(iter(folder.checkpoints()), None)
        return cls(newest, newest.stat().st_mtime_ns if newest else 0, folder.state())

    def progressed(self, before: Standing) -> bool:
        """Is there a checkpoint that was not there before?"""
        return self.newest is not None and (self.newest, self.written) != (before.newest, before.written)

    def told(self, before: Standing) -> Mapping[str, Any]:
        """Return run.json where it was written since: what an earlier process left there says nothing of this one."""
        return self.state if self.state != before.state else {}


def command_line(arguments: Sequence[str], torchrun: Sequence[str] | None = None) -> list[str]:
    """Return the command that trains with these arguments, in one process or in those that torchrun starts."""
    # torchrun's own restarts meet the leavings of the processes that died; here the whole launch begins anew
    launcher = [] if torchrun is None else ["-m", "torch.distributed.run", *torchrun, "--max-restarts", "0"]
    own = [] if torchrun is None else ["--"]  # without it torchrun takes --run for a short form of its --run-path
    return [sys.executable, *launcher, "-m", *own, "ganzoo", "train", *arguments]


def ending(returned: int, told: Mapping[str, Any], *, torchrun: bool = False, passed: int = 0) -> Ending:
    """Say how a child ended: from what it returned, what it wrote into run.json, and the signal passed on to it, or 0."""
    own, stopped = told.get("exit_code"), bool(passed) or told.get("state") in STOPPED
    if own is not None:
        return Ending(own, str(told.get("reason", f"exit code {own}")), own in MENDABLE and not stopped)
    if returned < 0:
        return Ending(128 - returned, f"killed by signal {-returned} ({signal.strsignal(-returned)})", not stopped)
    if torchrun and returned == 1:  # it returns 1 whatever it was
        code = 128 + passed if passed else returned
        return Ending(code, "a process of the launch died", not stopped)
    return Ending(returned, f"exit code {returned}", returned in MENDABLE and not stopped)


def supervise(
    place: Path,
    arguments: Sequence[str],
    *,
    retries: int = 0,
    torchrun: Sequence[str] | None = None,
    fresh: bool = False,
    say: Callable[[str], None],
) -> int:
    """Train in a child process and start it again where it died after a new checkpoint; return the last one's exit code.

    RunInUse where another process has taken the folder in the meantime.
    """
    folder = RunFolder(place)
    first = ["--fresh", *arguments] if fresh else arguments
    with _signals() as caught:
        for number in range(1, retries + 2):
            before = Standing.of(folder)
            returned, passed = _run(command_line(arguments if number > 1 else first, torchrun), caught)
            after = Standing.of(folder)
            told = after.told(before)
            end = ending(returned, told, torchrun=torchrun is not None, passed=passed)
            if returned == 0 or passed or told.get("state") in STOPPED:
                return end.code
            say(f"try {number} of at most {retries + 1} ended: {end.why}")
            if not end.mendable:
                say("it is not tried again, since it would end in the same way")
                return end.code
            if not after.progressed(before):
                say("it saved no checkpoint, so it is not tried again; --set train.checkpoint=N saves more often")
                return end.code
            if number <= retries:
                _free(folder, after)
                say(f"the next try goes on from {after.newest}")
    say(f"no try is left; the same command goes on from {after.newest}")
    return end.code


def _free(folder: RunFolder, standing: Standing) -> None:
    """RunInUse where another process of this machine trains in the folder, be it what a killed launcher left behind."""
    if standing.state.get("host") == platform.node():  # on another machine it may be this launch, begun again there
        with folder.locked():
            pass


def _run(command: Sequence[str], caught: list[int]) -> tuple[int, int]:
    """Run a command to its end and pass each caught signal on to it; return what it returned, and the last signal or 0.

    Its process group is its own, so that a terminal's Ctrl-C reaches it once, through this process. Outside the
    terminal's foreground it would be halted if it read from there.
    """
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=_environment(), process_group=0)
    passed = 0
    while True:
        while caught:
            passed = caught.pop(0)
            child.send_signal(passed)
        try:
            return child.wait(TICK), [passed, *caught][-1]  # one that came too late ends the tries all the same
        except subprocess.TimeoutExpired:
            continue


def _environment() -> dict[str, str]:
    """Return variables with which `python -m` finds modules where this process does: not first in the current folder."""
    here = {"", os.getcwd()} & set(sys.path)
    return dict(os.environ) if here else {**os.environ, "PYTHONSAFEPATH": "1"}


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that are to be passed on; what this process was told to ignore stays ignored."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    heard = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, catch) for number in heard}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
