"""What is wrong with this installation, and what to do about it; nothing heavy or foreign runs in this process."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import DISTRIBUTION
from .busy import cores
from .errors import PluginError
from .registry import GROUPS, Problem, Record, Registry, registry

__all__ = ["Finding", "diagnose", "doubtful"]

TORCH = (2, 10)  # before it, torch.load runs code from hostile files even with weights_only (CVE-2026-24747)
PACKAGES = (DISTRIBUTION, "torch", "torchvision", "torch-fidelity", "safetensors", "click", "rich")
TORCH_SECONDS = 180  # a first import from a slow network disk takes minutes
PLUGIN_SECONDS = 60
FREE_BYTES = 2_000_000_000  # checkpoints, samples and decoded data of a run
MARK = "ganzoo-doctor:"  # lines of a child process that are its report: plugins may print too
PAIR = "pip install --force-reinstall torch torchvision"

# run in a process of its own: importing torch takes seconds, and a broken build may kill the process
PROBE = f"""
import json, torch, torchvision
from ganzoo.device import available, native_bf16
for kind in available():
    backend = torch.get_device_module(kind)
    for number in range(backend.device_count()):
        name = backend.get_device_name(number) if hasattr(backend, "get_device_name") else ""
        report = [kind, number, name, native_bf16(torch.device(kind, number))]
        print({MARK!r} + json.dumps(report), flush=True)
"""
LOAD = "import sys, ganzoo.doctor; ganzoo.doctor.load_package(sys.argv[1])"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what to do if it is not in order."""

    name: str
    status: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""


def diagnose(load_plugins: bool = False, seconds: float | None = None) -> list[Finding]:
    """Look at everything; plugins are imported only if asked for, each package in a process of its own.

    A package whose imports take longer than `seconds` (default: a minute) is reported as one that hangs.
    """
    known = registry()
    python = Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    findings = [python, *map(_package, PACKAGES), *_torch(), *_plugins(known)]
    if load_plugins:
        packages = sorted({record.distribution for record in known.records})
        with ThreadPoolExecutor(cores()) as pool:  # a package that hangs must not keep the others waiting
            findings += pool.map(lambda name: _loaded(name, known, seconds), packages)
    return [*findings, *_disk()]


def load_package(distribution: str) -> None:
    """Import every plugin of a package, and report on standard output: what the child process of the doctor does."""
    known = registry()
    for record in _of(distribution, known):
        try:
            known.load(record.kind, record.qualified)
        except PluginError as error:
            print(f"\n{MARK}{json.dumps(str(error))}", flush=True)
        else:
            print(f'\n{MARK}""', flush=True)


def _of(distribution: str, known: Registry) -> list[Record]:
    return [record for record in known.records if record.distribution == distribution]


def _package(name: str) -> Finding:
    try:
        version = importlib.metadata.version(name) or "unknown"  # nothing where an installation broke off
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "problem", "is not installed", f"pip install {name}")
    if name == "torch" and [int(part) for part in re.findall(r"\d+", version)[:2]] < list(TORCH):
        remedy = f"pip install --upgrade 'torch>={TORCH[0]}.{TORCH[1]}' torchvision"
        return Finding(name, "problem", f"{version} runs code from hostile weight files", remedy)
    return Finding(name, "ok", version)


def _torch() -> Iterator[Finding]:
    """Try torch and torchvision together, and list the devices that they see."""
    name = "torch and torchvision"
    code, reports, output = child(PROBE, TORCH_SECONDS)
    if "torchvision::nms does not exist" in output:
        yield Finding(
            name, "problem", "come from different builds (such as a CPU-only torch beside a CUDA torchvision)", PAIR
        )
    elif code is None:
        yield Finding(name, "problem", f"could not be imported within {TORCH_SECONDS} s", f"try again, or: {PAIR}")
    elif code != 0:
        yield Finding(name, "problem", f"cannot be imported ({ending(code, output)})", PAIR)
    else:
        yield Finding(name, "ok", "fit together")
        yield from _devices(reports)


def _devices(reports: list[Any]) -> Iterator[Finding]:
    for kind, number, name, bf16 in reports:
        if kind == "cpu":
            device, name = "cpu", f"{cores()} cores"
        else:
            device = f"{kind}:{number}"
        yield Finding(f"device {device}", "ok", ", ".join(filter(None, (name, "bf16" if bf16 else "no native bf16"))))
    if shutil.which("nvidia-smi") and not any(kind == "cuda" for kind, *_ in reports):
        text = "an NVIDIA driver is installed, but torch sees no GPU and computes on the processor"
        yield Finding("device cuda", "warning", text, f"see whether nvidia-smi lists one; if so: {PAIR}")


def _plugins(known: Registry) -> Iterator[Finding]:
    for problem in known.problems:
        remedy = f"reinstall or remove it, or tell its author: pip install --force-reinstall {problem.distribution}"
        yield Finding(f"package {problem.distribution} {problem.version}", "problem", problem.message, remedy)
    for kind in GROUPS:
        for name in sorted(known.ambiguous(kind)):
            names = [record.qualified for record in known.of(kind) if record.name == name]
            text = f"is offered by {len(names)} packages"
            yield Finding(f"{kind} {name!r}", "warning", text, f"write {' or '.join(names)}")
    for problem in doubtful(known):
        remedy = "keep one of the installations" if "more than once" in problem.message else "reinstall it"
        yield Finding(f"package {problem.distribution} {problem.version}", "warning", problem.message, remedy)
    packages = {record.distribution for record in known.records}
    yield Finding("plugins", "ok", f"{len(known.records)} from {', '.join(sorted(packages)) or 'no package'}")


def doubtful(known: Registry) -> list[Problem]:
    """Return the packages that are found, but not as meant: installed twice, or a zoo without a folder."""
    found = []
    for record in known.of("zoo"):
        try:
            known.zoo_folder(record)
        except PluginError as error:
            found.append(Problem(record.distribution, record.version, str(error)))
    packages = {_canonical(record.distribution): record for record in known.records}
    for name, places in _places(set(packages)).items():
        if len(places) > 1:
            record = packages[name]
            text = f"is installed more than once: {places[0]} is used and {', '.join(places[1:])} is not"
            found.append(Problem(record.distribution, record.version, text))
    return sorted(found, key=lambda one: (one.distribution, one.message))


def _places(packages: set[str]) -> dict[str, list[str]]:
    """Return where the metadata of these packages lies, in the order of the import path; nothing is opened."""
    here = os.path.realpath(os.curdir)
    folders = dict.fromkeys(os.path.realpath(folder) for folder in sys.path if folder)
    found: dict[str, list[str]] = {}
    for folder in folders:
        if folder == here or not os.path.isdir(folder):
            continue
        for entry in sorted(os.listdir(folder)):
            name = _canonical(entry.partition("-")[0]) if entry.endswith(".dist-info") else ""
            if name in packages:
                found.setdefault(name, []).append(os.path.join(folder, entry))
    return found


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _loaded(distribution: str, known: Registry, seconds: float | None = None) -> Finding:
    """Import a package's plugins in a child process; a plugin that hangs or kills it is named."""
    limit = PLUGIN_SECONDS if seconds is None else seconds
    records = _of(distribution, known)
    name = f"imports of {distribution} {records[0].version}"
    code, reports, output = child(LOAD, limit, distribution)
    errors = [error for error in reports if error]
    if len(reports) < len(records):  # in order, so the first without a report is the culprit
        reason = f"did not finish within {limit:g} s" if code is None else f"ended ({ending(code, output)})"
        errors.append(f"the import of {records[len(reports)]} {reason}")
    if errors:
        return Finding(name, "problem", "; ".join(errors), f"pip install --upgrade --force-reinstall {distribution}")
    return Finding(name, "ok", f"all {len(records)} plugins can be imported")


def child(program: str, seconds: float, *arguments: str) -> tuple[int | None, list[Any], str]:
    """Run Python code; return its exit status (None: out of time), its report, and all that it printed."""
    # -P: a file of the current folder must not stand in for a package
    command = [sys.executable, "-P", "-c", program, *arguments]
    with tempfile.TemporaryFile() as output:  # a file, because a pipe waits for grandchildren that hold it open
        try:
            done = subprocess.run(
                command, timeout=seconds, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = None
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    return code, [json.loads(line.removeprefix(MARK)) for line in text.splitlines() if line.startswith(MARK)], text


def ending(code: int, output: str) -> str:
    """Say how a child process ended: by a signal or with a status, and its last words."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith(MARK)]
    last = lines[-1] if lines else "it printed nothing"
    return f"killed by signal {-code}: {last}" if code < 0 else f"exit status {code}: {last}"


def _disk() -> Iterator[Finding]:
    """Look at the current folder: runs are written below it."""
    try:
        folder = Path.cwd()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding("disk", "problem", f"the current folder cannot be read ({error.strerror})", "go to another folder")
        return
    text = f"{free / 1e9:.1f} GB free in {folder}"
    enough = free >= FREE_BYTES
    yield Finding("disk", "ok" if enough else "warning", text, "" if enough else "make room, or go to another folder")
    try:
        tempfile.TemporaryFile(dir=folder).close()  # permission bits do not tell: read-only mounts, quotas, root
    except OSError as error:
        text = f"{folder} cannot be written to ({error.strerror})"
        yield Finding("current folder", "problem", text, "go to another folder, or name one with --run")
    else:
        yield Finding("current folder", "ok", "can be written to")
