"""What a package promises before anything of it is built: quiet, quick imports, and none at all when it is listed.

Both are looked at in child processes, because what goes wrong there cannot be undone.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import re
import sys
import warnings
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any

import torch

from ..doctor import MARK, TORCH_SECONDS, child, ending
from .conduct import generators
from .contract import require, told

SECONDS = 60.0
CHAPTER = "Errors"
PROBE = "import sys; from ganzoo.testing.imports import probe; probe(float(sys.argv[1]), sys.argv[2:])"
LISTING = f"""
import json, sys
from ganzoo.config import read_toml
from ganzoo.registry import registry
from ganzoo.zoo import entries
known = registry()
for record in known.records:
    known.summary(record)
for entry in entries(known):
    entry.path.read_bytes()
print("\\n" + {MARK!r} + json.dumps(sorted(sys.modules)), flush=True)
"""


def import_is_quiet_and_quick(problem: str) -> None:
    """Importing its module ends soon, prints nothing, and changes nothing outside of it."""
    require(not problem, "an import that is quiet and quick", problem, CHAPTER)


def listing_imports_nothing(modules: Collection[str]) -> None:
    """Listing names, summaries and recipes imports neither torch nor a module of a plugin."""
    code, reports, output = child(LISTING, TORCH_SECONDS)
    require(bool(reports), "a listing that ends", "one that does not" if code is None else ending(code, output), CHAPTER)
    loaded = sorted(set(reports[0]) & {"torch", *modules})
    require(not loaded, "a listing that imports nothing", f"imports of {', '.join(loaded)}", CHAPTER)


def imported(modules: Sequence[str], seconds: float = SECONDS) -> dict[str, str]:
    """Import modules one by one in child processes; return for each what is wrong with that, or an empty text."""
    found: dict[str, str] = {}
    todo = list(dict.fromkeys(modules))
    while todo:
        code, _, output = child(PROBE, TORCH_SECONDS + seconds * len(todo), str(seconds), *todo)
        found |= _read(output)
        lacking = [module for module in todo if module not in found]
        if lacking:  # in order, so the first without a report has ended the process
            hung = code is None or "Timeout (" in output[output.rfind(MARK) :]
            reason = f"{lacking[0]} did not finish within {seconds:g} s"
            last = output[output.rfind(MARK) :]  # what was printed before is another module's
            found[lacking[0]] = reason if hung else f"{lacking[0]} ends the process ({ending(code or 0, last)})"
        todo = lacking[1:]
    return found


def _read(output: str) -> dict[str, str]:
    """Return the reports of a probe; whatever stands between two of them was printed by the second one's module."""
    found: dict[str, str] = {}
    printed: list[str] = []
    for line in output.splitlines():
        if not line.startswith(MARK):
            printed += [line.strip()] if line.strip() else []
            continue
        module, problem = json.loads(line.removeprefix(MARK))
        if module:
            said = f"{module} prints {printed[0]!r}" if printed else ""
            found[module] = problem or said
        printed = []
    return found


class _Import:
    """One import: whatever it raises, exits included, becomes a sentence."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.problem = ""

    def __enter__(self) -> _Import:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if not isinstance(error, Exception | SystemExit):
            return False
        self.problem = f"{self.module} raises {told(error)}"
        if isinstance(error, SystemExit):
            self.problem = f"{self.module} calls sys.exit({error.code!r})"
        missing = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if missing and missing != self.module.split(".")[0]:
            self.problem = f"{self.module} needs the package {missing!r}, which is not installed; declare it"
        return True


def probe(seconds: float, modules: Sequence[str]) -> None:
    """Import modules and report on standard output: what the child process does."""
    _report("", "")  # torch and ganzoo stand: what comes now is the plugin's
    for module in modules:
        before = _surroundings()
        faulthandler.dump_traceback_later(seconds, exit=True)
        with _Import(module) as attempt:
            importlib.import_module(module)
        faulthandler.cancel_dump_traceback_later()
        sys.stderr.flush()
        changed = [name for name, value in _surroundings().items() if value != before[name]]
        _report(module, attempt.problem or (f"{module} changes {changed[0]}" if changed else ""))


def _report(module: str, problem: str) -> None:
    print(f"\n{MARK}{json.dumps([module, problem])}", flush=True)


def _surroundings() -> dict[str, Any]:
    return {
        "the current folder": os.getcwd(),
        "environment variables": dict(os.environ),
        "the filters of warnings": [re.sub(" at 0x[0-9a-f]+", "", str(entry)) for entry in warnings.filters],
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "the state of torch's generator": torch.get_rng_state().tolist(),
        **generators(),
    }
