"""Everything that a person sees: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.live import Live as RichLive
    from rich.progress import Progress, TaskID

    from .recipe import Recipe
    from .trainer import Report, Trainer

QUIET = 5.0  # seconds between two plain lines where standard error is no terminal


def out() -> Console:
    """Return the console for results; wide where it is no terminal, so that nothing is cut."""
    console = Console(markup=False, highlight=False, emoji=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, emoji=False, width=200)


def err() -> Console:
    """Return the console for progress, notes and errors."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=True))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print rows as a table; texts are shown as they are, never as markup."""
    console = out()
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in ("name", "kind"))
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console.print(table)


def plain(text: str) -> str:
    """Return a text without control characters, which a plugin's or file's name might carry."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def duration(seconds: float) -> str:
    """Return a time as people say it: 45 s, 12 min 30 s, 3 h 05 min."""
    if seconds != seconds or seconds == float("inf"):
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95:  # what rounds to 1000.0 goes to the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def terms_text(terms: Mapping[str, float]) -> str:
    """Return a report's terms on one line."""
    return "  ".join(f"{name} {value:.3f}" for name, value in terms.items())


def reporter() -> Live | Plain:
    """Return the live view on a terminal and plain lines elsewhere."""
    console = err()
    return Live(console) if console.is_terminal and not console.is_dumb_terminal else Plain(console)


def header(recipe: Recipe, trainer: Trainer, folder: Path) -> str:
    """Return the line that a training begins with."""
    counts = ", ".join(f"{name} {sum(p.numel() for p in net.parameters()):,}" for name, net in trainer.nets.items())
    world = trainer.device.world
    where = f"{trainer.device.device} {trainer.device.precision}" + f" of {world.size} processes" * (world.size > 1)
    return f"{recipe.name}: {counts} parameters, {where}, into {folder}"


class Plain:
    """One line every few seconds: for logs, pipes and batch systems."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._last = 0.0

    def start(self, recipe: Recipe, trainer: Trainer, folder: Path) -> None:
        """Say what is trained."""
        self.note(header(recipe, trainer, folder))

    def report(self, report: Report, speed: float, left: float) -> None:
        """Print a line unless the last one is hardly over."""
        progress = report.progress
        done = progress.samples >= progress.total
        if done or time.monotonic() - self._last >= QUIET:
            self._last = time.monotonic()
            self.note(
                f"{progress.samples:,}/{progress.total:,} samples ({progress.share:.0%})  {speed:,.0f} images/s  "
                f"{duration(left)} left  {terms_text(report.terms)}"
            )

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(plain(text))

    def stop(self) -> None:
        """Nothing is left open."""


class Live:
    """A progress bar with speed and time left, and the latest terms beneath it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._view: RichLive | None = None

    def start(self, recipe: Recipe, trainer: Trainer, folder: Path) -> None:
        """Open the bar."""
        from rich.live import Live as RichLive
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self.note(header(recipe, trainer, folder))
        name, speed = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[speed]"))
        self._bar = Progress(name, BarColumn(), TaskProgressColumn(), speed, console=self.console)
        self._task = self._bar.add_task(
            plain(recipe.name), total=trainer.plan.total, completed=trainer.samples, speed="starting"
        )
        self._view = RichLive(self._bar, console=self.console, refresh_per_second=4)
        self._view.start()

    def report(self, report: Report, speed: float, left: float) -> None:
        """Move the bar and show the terms."""
        if self._bar is not None and self._task is not None and self._view is not None:
            text = f"{speed:,.0f} images/s, {duration(left)} left"
            self._bar.update(self._task, completed=report.progress.samples, speed=text)
            self._view.update(Group(self._bar, Text(plain(terms_text(report.terms)))))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(plain(text))

    def stop(self) -> None:
        """Close the bar and leave it as it stands."""
        if self._view is not None:
            self._view.stop()
            self._view = None


class Steps:
    """A line for each task of a longer work, with what is left: for sweeps."""

    def __init__(self, console: Console | None) -> None:
        self.console = console

    def note(self, text: str) -> None:
        """Print a line."""
        if self.console is not None:
            self.console.print(plain(text))

    def step(self, text: str, done: int, total: int, left: float) -> None:
        """Print how many of all tasks are done, what the last one was, and how long the rest may take."""
        rest = f"about {duration(left)} left" if done < total else "done"
        self.note(f"[{done}/{total}] {text}; {rest}")


def steps(quiet: bool = False) -> Steps:
    """Return the reporter of a sweep."""
    return Steps(None if quiet else err())
