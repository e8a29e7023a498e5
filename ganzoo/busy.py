"""How many processor cores other programs keep busy: threads that share a core with one wait for each other."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["Others", "cores"]

LEAST = 0.3  # seconds; the system counts time in hundredths of one
FIELDS = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq and steal of proc/stat; idle and iowait are no work
NOTICED = 0.5  # cores


def cores() -> int:
    """Return how many cores this process may use, which a batch system limits."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Others:
    """Looks at the use of this process's cores, beginning now; where the system does not tell it there is none."""

    def __init__(self, table: Path = Path("/proc/stat")) -> None:
        self.table = table
        self.began, self.own, self.used = time.monotonic(), time.process_time(), self._used()

    def cores(self) -> float:
        """Return the mean number of cores that other programs have kept busy since; waits until it can be told."""
        if self.used is None:
            return 0.0
        time.sleep(max(self.began + LEAST - time.monotonic(), 0.0))
        elapsed, own, used = time.monotonic() - self.began, time.process_time() - self.own, self._used()
        return max(((used or 0.0) - self.used - own) / elapsed, 0.0)

    def advice(self, threads: int) -> str:
        """Say what to do where so many threads would share cores with other programs; empty where they would not."""
        busy = self.cores() if threads > 1 else 0.0
        if busy < NOTICED or threads + busy < cores() + NOTICED:
            return ""
        fewer = max(cores() - round(busy), 1)
        return (
            f"warning: other programs keep {busy:.1f} of {cores()} cores busy, and the {threads} threads of this training "
            f"wait for each other there; with OMP_NUM_THREADS={fewer} it may be many times faster"
        )

    def _used(self) -> float | None:
        """Return the seconds that this process's cores have been in use since the system began."""
        if not (self.table.is_file() and hasattr(os, "sched_getaffinity")):
            return None
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in self.table.read_text().splitlines()]
        ticks = sum(int(line[1 + field]) for line in lines if line[0] in mine for field in FIELDS)
        return ticks / os.sysconf("SC_CLK_TCK")
