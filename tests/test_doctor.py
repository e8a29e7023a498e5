"""The doctor: broken installations, plugins that hang, and folders that cannot be written to."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from ganzoo import doctor
from ganzoo.doctor import Finding, diagnose
from ganzoo.registry import Problem, Record, Registry, registry

BROKEN_PAIR = "raise RuntimeError('operator torchvision::nms does not exist')"
CPU = [["cpu", 0, "", False]]


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that puts modules of this source before the installed ones, in child processes only."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def write(**modules: str) -> Path:
        for name, source in modules.items():
            (folder / f"{name}.py").write_text(source)
        return folder

    return write


def package(folder: Path, **modules: str) -> None:
    """Install a fake package of losses, one a module, into a folder."""
    info = folder / "fake-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: fake\nVersion: 1.0\n")
    entries = "".join(f"{name} = {name}:Plain\n" for name in modules)
    (info / "entry_points.txt").write_text(f"[ganzoo.datasets]\n{entries}")
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)


def only(findings: list[Finding], name: str) -> Finding:
    found = [finding for finding in findings if finding.name == name]
    assert len(found) == 1, findings
    return found[0]


def torch_findings() -> list[Finding]:
    return list(doctor._torch())


def test_a_mismatched_pair_is_recognised(stubs) -> None:
    stubs(torch="", torchvision=BROKEN_PAIR)
    (finding,) = torch_findings()
    assert finding.status == "problem"
    assert "different builds" in finding.text
    assert finding.remedy == "pip install --force-reinstall torch torchvision"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise ImportError('libcudart.so.99: cannot open')", "exit status 1: ImportError: libcudart.so.99: cannot open"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9: it printed nothing"),
        ("import sys; sys.exit(4)", "exit status 4: it printed nothing"),
    ],
)
def test_other_failures_show_their_last_line(stubs, source: str, text: str) -> None:
    stubs(torch=source)
    (finding,) = torch_findings()
    assert (finding.status, finding.text) == ("problem", f"cannot be imported ({text})")
    assert finding.remedy


def test_an_import_that_hangs_is_cut_off(stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    # the grandchild holds the output open after its parent is gone
    sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'])"
    stubs(torch=f"import subprocess, sys, time\n{sleeper}\ntime.sleep(60)")
    monkeypatch.setattr(doctor, "TORCH_SECONDS", 2)
    (finding,) = torch_findings()
    assert finding.text == "could not be imported within 2 s"


def test_a_file_in_the_current_folder_is_not_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('wrong json')")
    monkeypatch.chdir(tmp_path)
    code, reports, _ = doctor.child(f"import json; print({doctor.MARK!r} + json.dumps([1]))", 30)
    assert (code, reports) == (0, [[1]])


def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = list(doctor._devices([["cuda", 0, "Fast One", True], ["mps", 0, "", False], *CPU]))
    assert [(finding.name, finding.status) for finding in found] == [
        ("device cuda:0", "ok"),
        ("device mps:0", "ok"),
        ("device cpu", "ok"),
    ]
    assert [finding.text for finding in found][:2] == ["Fast One, bf16", "no native bf16"]
    assert found[2].text.endswith(" cores, no native bf16")


def test_a_gpu_that_torch_does_not_see_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/" + name)
    assert [finding.status for finding in doctor._devices(CPU)] == ["ok", "warning"]
    assert [finding.status for finding in doctor._devices([["cuda", 0, "x", True], *CPU])] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("version", "status"), [("2.9.1+cpu", "problem"), ("2.10.0", "ok"), ("3.0", "ok"), ("1.13", "problem")]
)
def test_an_unsafe_torch_is_a_problem(monkeypatch: pytest.MonkeyPatch, version: str, status: str) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    finding = doctor._package("torch")
    assert finding.status == status
    assert version in finding.text
    assert bool(finding.remedy) == (status == "problem")


def test_a_missing_package_is_a_problem() -> None:
    assert doctor._package("no-such-package") == Finding(
        "no-such-package", "problem", "is not installed", "pip install no-such-package"
    )


def test_plugin_problems_and_ambiguous_names_are_findings() -> None:
    records = [Record("loss", "twice", "m", "a", name, "1.0") for name in ("one", "two")]
    known = Registry(records, [Problem("bad", "3.0", "its entry_points.txt is malformed")])
    problem, ambiguous, count = doctor._plugins(known)
    assert (problem.name, problem.status) == ("package bad 3.0", "problem")
    assert problem.text == "its entry_points.txt is malformed"
    assert (ambiguous.name, ambiguous.status, ambiguous.remedy) == (
        "loss 'twice'",
        "warning",
        "write one:twice or two:twice",
    )
    assert (count.status, count.text) == ("ok", "2 from one, two")


def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Finding:
    monkeypatch.syspath_prepend(folder)
    try:
        return doctor._loaded("fake", registry(refresh=True))
    finally:
        monkeypatch.undo()
        registry(refresh=True)


def test_plugins_are_imported_in_a_child(stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stubs()
    package(folder, a="print('noise', end='')\ndef Plain(): pass", b="def Plain(): pass")
    finding = loaded(folder, monkeypatch)
    assert (finding.name, finding.status) == ("imports of fake 1.0", "ok")
    assert finding.text == "all 2 plugins can be imported"
    assert "a" not in sys.modules


def test_every_broken_plugin_is_named(stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stubs()
    package(folder, a="raise OSError('out of order')", b="def Plain(): pass", c="import os; os._exit(3)", d="")
    finding = loaded(folder, monkeypatch)
    assert finding.status == "problem"
    assert "dataset 'a' of package fake 1.0 cannot be imported (OSError: out of order)" in finding.text
    assert "the import of dataset 'c' of package fake 1.0 ended (exit status 3: it printed nothing)" in finding.text
    assert "'b'" not in finding.text


def test_a_plugin_that_hangs_is_named(stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stubs()
    package(folder, a="def Plain(): pass", b="import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "PLUGIN_SECONDS", 5)
    finding = loaded(folder, monkeypatch)
    assert finding.text == "the import of dataset 'b' of package fake 1.0 did not finish within 5 s"


def test_the_folder_and_its_space_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [finding.status for finding in doctor._disk()][1:] == ["ok"]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    space = next(doctor._disk())
    assert (space.status, space.text) == ("warning", f"1.0 GB free in {tmp_path}")

    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    *_, last = doctor._disk()
    assert (last.status, last.text) == ("problem", f"{tmp_path} cannot be written to (Permission denied)")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder that is in use")
def test_a_current_folder_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, ganzoo.doctor as d; os.rmdir(os.getcwd()); d.registry(); print([f.status for f in d._disk()])"
    )
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=gone, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['problem']", done.stderr


def test_a_diagnosis_is_json_and_imports_no_torch(stubs) -> None:
    stubs(torch="", torchvision=BROKEN_PAIR)
    code = """
import dataclasses, json, sys
from ganzoo.doctor import diagnose
print(json.dumps([dataclasses.asdict(finding) for finding in diagnose()]))
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    findings = [Finding(**finding) for finding in json.loads(done.stdout)]
    assert only(findings, "python").status == "ok"
    assert only(findings, "torch and torchvision").status == "problem"
    assert only(findings, "plugins").status == "ok"
    assert {"ganzoo-toolkit", "torch", "torchvision", "torch-fidelity", "safetensors", "click", "rich"} <= {
        f.name for f in findings
    }
    assert all(finding.remedy for finding in findings if finding.status != "ok")


def test_this_installation_is_in_order() -> None:
    findings = diagnose(load_plugins=True)
    assert json.dumps([asdict(finding) for finding in findings])
    assert only(findings, "torch and torchvision").status == "ok"
    assert only(findings, "device cpu").status == "ok"
    assert only(findings, f"imports of ganzoo-toolkit {importlib.metadata.version('ganzoo-toolkit')}").status == "ok"
    assert [finding for finding in findings if finding.status == "problem"] == []
