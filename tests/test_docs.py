"""The documentation is true: its links lead somewhere, its code runs, and the generated pages are fresh."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ganzoo import errors
from ganzoo.registry import GROUPS

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "writing-plugins.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")

ONE_PROCESS = str(Path(__file__).with_name("one_process.py"))


def generator():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def defined(path: Path) -> set[str]:
    """Return the dotted names of all functions and classes of a Python file, and of its constants."""
    names = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + node.name)
                walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    walk(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return names


def anchors(path: Path) -> set[str]:
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_a_heading_or_a_definition(page):
    for text, target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith(("https://", "http://")):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.is_relative_to(ROOT), target
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target
        code = re.fullmatch(r"`([A-Za-z_][\w.]*)(?:\(\))?`", text)
        if code and file.suffix == ".py" and code[1] not in (file.name, place):
            assert code[1] in defined(file), f"{place} defines no {code[1]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_shows_a_path_of_somebodys_machine(page):
    text = page.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert str(Path.home()) + "/" not in text
    assert not re.search(r"(?<![\w.~])/(home|root|Users|work)/", text)


def test_the_generated_pages_are_fresh():
    diff = generator().stale()
    assert not diff, f"run python tools/generate_docs.py\n{diff}"


def test_the_generated_pages_cover_every_plugin_kind_recipe_and_exit_code():
    module = generator()
    assert set(module.INTRODUCTIONS) == set(GROUPS) - {"zoo"}
    classes = [thing for thing in vars(errors).values() if isinstance(thing, type)]
    codes = {thing.exit_code for thing in classes if issubclass(thing, errors.GanzooError) and hasattr(thing, "exit_code")}
    assert codes <= set(module.EXIT_CODES)
    zoo = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    for path in (ROOT / "zoo_configs").glob("[!_]*.toml"):
        assert f"\n## {path.stem}\n" in zoo


def test_the_contracts_page_has_every_public_name_with_what_it_is_for():
    module = generator()
    page = module.contracts_page()
    for source in module.CONTRACTS:
        for name in source.__all__:
            section = re.search(rf"^### {name}\n\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
            assert section, name
            assert name in section[1]
            assert "```python\n" in section[1]
            thing = getattr(source, name)
            for method in vars(thing) if isinstance(thing, type) else ():
                public = inspect.isfunction(vars(thing)[method]) and not method.startswith("_")
                assert not public or f"def {method}(" in section[1], f"{name}.{method}"
    spec = page.partition("### Spec\n")[2].partition("\n### ")[0]
    assert "classes: int = 0  # 0: no labels are passed" in spec
    assert "contracts.md" in GUIDE.read_text(encoding="utf-8")


def test_other_packages_are_described_in_a_folder_of_their_own_only(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        generator().main(["--also", "somebody"])
    assert end.value.code == 2
    assert "--to" in capsys.readouterr().err
    assert generator().main(["--to", str(tmp_path / "docs")]) == 0
    for name in ("plugins.md", "zoo.md", "cli.md", "contracts.md"):
        assert (tmp_path / "docs" / name).read_bytes() == (ROOT / "docs" / name).read_bytes()


def test_every_row_of_a_generated_table_has_the_columns_of_its_head():
    for page in generator().pages().values():
        columns = 0
        for line in FENCE.sub("", page).splitlines():
            found = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not (columns and found) or found == columns, line
            assert not line.startswith("|") or line.endswith("|"), line
            columns = found


def test_the_check_says_what_is_stale(monkeypatch, tmp_path, capsys):
    module = generator()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "pages", lambda: {tmp_path / "docs" / "cli.md": "new\n"})
    assert module.main(["--check"]) == 1
    assert "+new" in capsys.readouterr().out
    (tmp_path / "docs").mkdir()
    assert module.main([]) == 0
    assert module.main(["--check"]) == 0


# the guide for plugin authors -----------------------------------------------------------------------------------------


def guide_files() -> dict[str, str]:
    """Return the files that the guide tells to write; what is shown later is added at the end."""
    files: dict[str, str] = {}
    for _, title, body in FENCE.findall(GUIDE.read_text(encoding="utf-8")):
        if title:
            files[title] = f"{files[title]}\n{body}" if title in files else body
    return files


def guide_commands() -> list[tuple[list[str], str]]:
    """Return the ganzoo commands of the guide, each with the error that it is to end in, or nothing."""
    commands: list[tuple[list[str], str]] = []
    for language, _, body in FENCE.findall(GUIDE.read_text(encoding="utf-8")):
        for line in body.splitlines() if language == "console" else ():
            if line.startswith("$ ganzoo "):
                commands.append((shlex.split(line)[2:], ""))
            elif line.startswith("error: "):
                commands[-1] = (commands[-1][0], line)
            else:
                assert line.startswith("$ pip "), line
    return commands


@pytest.fixture(scope="module")
def garden(tmp_path_factory) -> Path:
    """A folder that looks to ganzoo as if the guide's package were installed in it."""
    folder = tmp_path_factory.mktemp("garden")
    files = guide_files()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.parent != folder and path.parts[-2] != "tests":
            (path.parent / "__init__.py").touch()
    project = tomllib.loads(files["pyproject.toml"])["project"]
    info = folder / f"ganzoo_garden-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    groups = project["entry-points"].items()
    sections = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in entries.items()) for group, entries in groups]
    (info / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
    return folder


def python(garden: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(garden), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=variables, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def test_every_python_and_toml_block_of_the_guide_is_a_file():
    for language, title, _ in FENCE.findall(GUIDE.read_text(encoding="utf-8")):
        assert title or language in ("text", "console")
    assert set(tomllib.loads(guide_files()["pyproject.toml"])["project"]["entry-points"]) == set(GROUPS.values()) - {
        "ganzoo.readers"
    }


def test_the_guide_has_the_sections_that_the_contract_checks_point_to():
    text = (ROOT / "ganzoo" / "testing" / "promises.py").read_text(encoding="utf-8")
    chapters = {
        node.args[-1].value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require"
    }
    headings = set(re.findall(r"^## (.+)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE))
    assert chapters
    assert chapters <= headings


def test_the_guide_s_package_is_listed(garden, tmp_path):
    done = python(garden, tmp_path, "-m", "ganzoo", "list", "--json")
    assert done.returncode == 0, done.stderr
    listed = {(row["kind"], row["name"]) for row in json.loads(done.stdout)["plugins"] if row["summary"]}
    entry_points = tomllib.loads(guide_files()["pyproject.toml"])["project"]["entry-points"]
    kinds = {group: kind for kind, group in GROUPS.items() if kind != "zoo"}
    expected = {(kinds[group], name) for group, names in entry_points.items() if group in kinds for name in names}
    assert expected | {("recipe", "stripes-two-critics")} <= listed


def test_the_guide_s_commands_run(garden, tmp_path):
    """Trainings last a few rounds of narrow networks here; nothing else of the commands is changed."""
    tiny = "--set train.samples=40 --set train.batch=8 --set architecture.width=8 --device cpu"
    commands = guide_commands()
    arguments = [
        [*given, *(tiny.split() if given[0] == "train" else ()), *(("--run", f"run{n}") if given[0] == "train" else ())]
        for n, (given, _) in enumerate(commands)
    ]
    done = python(garden, tmp_path, ONE_PROCESS, json.dumps(arguments))
    assert done.returncode == 0, done.stderr
    for number, ((given, error), (code, out, err)) in enumerate(zip(commands, json.loads(done.stdout), strict=True)):
        said = f"{' '.join(given)}: exit {code}\n{out}{err}"
        if error:
            assert code != 0, said
            assert error in err.splitlines(), said
        else:
            assert code == 0, said
            assert given[0] != "train" or list((tmp_path / f"run{number}" / "checkpoints").glob("*.safetensors")), said


def test_the_guide_s_plugins_keep_their_contracts(garden, tmp_path):
    program = (garden / "tests" / "test_garden.py").read_text(
        encoding="utf-8"
    ) + "\ntest_every_plugin_keeps_its_contract()\n"
    done = python(garden, tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
