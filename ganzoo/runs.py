"""The folder that one training fills: resolved recipe, log, samples, checkpoints, and the lock that keeps others out."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .config import difference, read_toml
from .errors import RecipeError, ResourceError, RunInUse
from .recipe import HOW, Recipe

FREE_KEYS = (  # change no weight
    *("name", "summary", "tier", "train.log", "train.grid", "train.checkpoint", "train.keep"),
    *(f"train.{key}" for key in HOW),
)


class RunFolder:
    """Paths and rules of a run folder; nothing here knows of networks."""

    def __init__(self, path: Path | str, *, writes: bool = True) -> None:
        self.path = Path(path)
        self.writes = writes  # of a launch's processes only the leading one does
        self.recipe_file = self.path / "recipe.toml"
        self.state_file = self.path / "run.json"
        self.log_file = self.path / "log.jsonl"
        self.samples = self.path / "samples"
        self.checkpoint_folder = self.path / "checkpoints"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; RunInUse names the one that has it. A killed process holds nothing."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "lock", timeout=0)
            lock.acquire()
        except Timeout:
            state = self.state()
            who = f"process {state.get('pid', '?')} on {state.get('host', '?')}"
            raise RunInUse(
                f"run folder {self.path} is in use by {who}; wait for it or choose another --run folder"
            ) from None
        except OSError as error:
            raise ResourceError(
                f"run folder {self.path} cannot be used: {error.strerror}; choose another --run folder"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        return sorted(self.checkpoint_folder.glob("[0-9]*.safetensors"), reverse=True)

    def checkpoint_path(self, samples: int) -> Path:
        """Return where the checkpoint after so many samples lies."""
        return self.checkpoint_folder / f"{samples:012d}.safetensors"

    def prune(self, keep: int) -> None:
        """Remove all but the newest checkpoints, and what a killed process left half-written."""
        if not self.writes:
            return
        for path in self.checkpoints()[keep:]:
            path.unlink(missing_ok=True)
        for path in self.checkpoint_folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """Return what the last process wrote about itself, or nothing."""
        try:
            state = json.loads(self.state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def set_state(self, state: str, **more: Any) -> None:
        """Write who trains here and how it stands: running, finished, interrupted or failed."""
        self.write_text(
            self.state_file,
            json.dumps(
                {"state": state, "pid": os.getpid(), "host": platform.node(), "time": time.time(), **more}, indent=1
            ),
        )

    def adopt(self, recipe: Recipe) -> None:
        """Write the recipe into a new folder, or refuse a folder that belongs to another one."""
        if self.recipe_file.exists() and self.checkpoints():  # a run that has saved nothing has nothing to lose
            old = read_toml(self.recipe_file)
            changed = difference(old, recipe.raw, ignore=FREE_KEYS)
            changed = [line for line in changed if not line.startswith(("provenance.", "presets."))]
            if changed:
                raise RecipeError(
                    f"run folder {self.path} holds another recipe ({'; '.join(changed[:4])}"
                    f"{'; ...' if len(changed) > 4 else ''}); choose another --run folder, or --fresh to set this one aside"
                )
        elif not self.recipe_file.exists() and not self._empty_but_lock():
            raise RecipeError(f"folder {self.path} is not empty and holds no run; choose another --run folder")
        self.write_text(self.recipe_file, recipe.toml())

    def _empty_but_lock(self) -> bool:
        return {path.name for path in self.path.iterdir()} <= {"lock", "run.json"}

    def set_aside(self) -> Path | None:
        """Rename the folder, so that a fresh run takes its name and nothing is lost; return the new place."""
        if not self.recipe_file.exists():
            return None
        number = 1
        while (place := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(place)
        return place

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one line to the log."""
        if not self.writes:
            return
        try:
            with open(self.log_file, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise ResourceError(f"{self.log_file} cannot be written: {error.strerror}; make room, then go on") from error

    def rewind_log(self, samples: int) -> None:
        """Drop the lines after a checkpoint that a run goes on from: they will be written again."""
        if not self.writes or not self.log_file.exists():
            return
        kept = []
        for line in self.log_file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a line that a killed process left unfinished
            if entry.get("samples", 0) <= samples:
                kept.append(line)
        self.write_text(self.log_file, "".join(f"{line}\n" for line in kept))

    def write_text(self, path: Path, text: str) -> None:
        """Write a small file so that a crash leaves the old or the new one."""
        if not self.writes:
            return
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            raise ResourceError(f"{path} cannot be written: {error.strerror}; choose another --run folder") from error
