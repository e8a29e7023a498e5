"""The rules of the house: the direction of the arrows, no plugin's name in the core, small files and functions."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
CORE = sorted((HOUSE / "ganzoo").rglob("*.py"))
PLUGINS = sorted((HOUSE / "plugins").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in (*CORE, *PLUGINS)}

# module -> what it may import of ganzoo at run time; a module that is not here must be given its place first
ROOT = "ganzoo"  # the package itself: names and versions
ARROWS: dict[str, set[str]] = {
    ROOT: {"jobs", "sampling"},
    "__main__": {"cli"},
    "errors": set(),
    "seed": set(),
    "options": {"errors"},
    "optimizers": {"errors"},
    "changing": {"config", "errors", "options", "players", "recipe", "registry"},
    "convolutions": set(),
    "world": {"errors"},
    "sync_batch_norm": {"errors", "world"},
    "memory": {"checkpoint", "errors", "recipe", "sync_batch_norm", "trainer", "world"},
    "allocator": set(),
    "busy": set(),
    "main_memory": set(),
    "device": {"convolutions", "errors", "main_memory", "recipe", "world"},
    "ema": {"api", "recipe"},
    "api": {"errors"},
    "game": {"api", "convolutions"},
    "layers": {"api"},
    "ahead": {"api", "busy", "device", "errors", "main_memory"},
    "data": {"ahead", "api", "device", "seed"},
    "recipe": set(),
    "config": {"errors", "options", "recipe"},
    "registry": {ROOT, "api", "errors", "options"},  # api: base classes, when a plugin is loaded
    "players": {"api", "recipe"},
    "costs": {"api", "game", "players"},
    "compilation": {"api", "costs", "players"},
    "recording": {"api", "players", "recipe"},
    "trainer": {
        *("api", "compilation", "costs", "data", "device", "ema", "errors", "game", "players", "recipe", "recording"),
        "seed",
    },
    "assemble": {
        *("api", "changing", "config", "data", "device", "errors", "game", "optimizers", "recipe", "registry", "seed"),
        *("players", "sync_batch_norm", "trainer"),
    },
    "checkpoint": {"errors", "trainer"},
    "zoo": {ROOT, "api", "config", "errors", "options", "recipe", "registry"},
    "runs": {"config", "errors", "recipe"},
    "launch": {"errors", "runs"},
    "pictures": {"errors"},
    "sampling": {
        *("api", "assemble", "checkpoint", "config", "device", "drawing", "errors", "recipe", "registry", "runs", "seed"),
    },
    "watch": {"checkpoint", "errors", "pictures", "recipe", "runs", "seed", "trainer", "world"},
    "drawing": {"api"},
    "finetuning": {"checkpoint", "errors", "sampling", "world"},
    "jobs": {
        *(ROOT, "api", "assemble", "busy", "checkpoint", "device", "errors", "recipe", "registry", "runs"),
        *("finetuning", "memory", "players", "sampling", "trainer", "watch", "world", "zoo"),
    },
    "fidelity": {"api"},
    "pretrained": {"api", "fidelity"},
    "benchmark": {
        *(ROOT, "api", "busy", "checkpoint", "config", "console", "device", "errors", "fidelity", "flops", "jobs"),
        "assemble",
        *("options", "pictures", "pretrained", "recipe", "registry", "runs", "sampling", "seed", "world", "zoo"),
    },
    "speed": {ROOT, "assemble", "device", "flops", "jobs", "memory", "recipe", "registry", "trainer", "zoo"},
    "flops": set(),
    "console": set(),
    "clusters": set(),
    "doctor": {ROOT, "busy", "errors", "registry"},
    "scaffold": {ROOT, "errors", "registry"},
    "cli": {
        *(ROOT, "allocator", "assemble", "benchmark", "busy", "checkpoint", "clusters", "config", "console", "device"),
        *("doctor", "errors", "jobs"),
        *("launch", "options", "pictures", "recipe", "registry", "sampling", "scaffold", "speed", "testing", "zoo"),
    },
    "testing": {
        *(
            "api",
            "assemble",
            "checkpoint",
            "config",
            "costs",
            "device",
            "doctor",
            "errors",
            "game",
            "layers",
            "options",
            "players",
            "recipe",
            "registry",
            "trainer",
            "zoo",
        ),
    },
}
FOR_PLUGINS = {"api", "game", "layers", "pretrained"}
LIGHT = {
    ROOT,
    "allocator",
    "cli",
    "config",
    "console",
    "doctor",
    "errors",
    "launch",
    "options",
    "recipe",
    "registry",
    "runs",
    "scaffold",
    "zoo",
}  # no torch on import
KINDS_OF_PLUGINS = ("architectures", "losses", "regularizers", "games", "datasets", "extractors")


def module_of(path: Path) -> str:
    """Return the first name below ganzoo that a file belongs to: `cli` for all of ganzoo/cli/."""
    parts = path.relative_to(HOUSE / "ganzoo").with_suffix("").parts
    return ROOT if parts == ("__init__",) else parts[0]


def package_of(path: Path) -> str:
    folder, *parts = path.relative_to(HOUSE).parent.parts
    return ".".join(({"plugins": "ganzoo_plugins"}.get(folder, folder), *parts))


def for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(node: ast.AST, deep: bool) -> Iterator[ast.AST]:
    """Yield what runs when a file is imported and, if deep, what runs when its functions are called."""
    for child in ast.iter_child_nodes(node):
        if for_type_checkers(child):
            continue
        yield child
        if deep or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(child, deep)


def imports(path: Path, deep: bool = True) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute dotted name) of everything that a file imports at run time."""
    for node in statements(TREES[path], deep):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package_of(path).split(".")
            base = base[: len(base) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and str(first.value).startswith("ganzoo"):
                yield node.lineno, str(first.value)


def core_modules(path: Path, deep: bool = True) -> Iterator[tuple[int, str]]:
    """Yield (line, module of the core) for each of them that a file imports."""
    known = {module_of(other) for other in CORE}
    for line, name in imports(path, deep):
        first, _, rest = name.partition(".")
        if first == "ganzoo":
            target = rest.split(".")[0]
            yield line, target if target in known else ROOT


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(HOUSE).as_posix()}:{line}"


def name_of(path: Path) -> str:
    return path.relative_to(HOUSE).as_posix()


each_core = pytest.mark.parametrize("path", CORE, ids=name_of)
each_plugin = pytest.mark.parametrize("path", PLUGINS, ids=name_of)
each = pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=name_of)


@each_core
def test_arrows_point_the_right_way(path):
    module = module_of(path)
    assert module in ARROWS, f"ganzoo/{module} is new: give it its place in ARROWS of this test"
    allowed = ", ".join(sorted(ARROWS[module])) or "nothing"
    wrong = [
        f"{where(path, line)}: {module} must not import {target}; it may import {allowed}"
        for line, target in core_modules(path)
        if target != module and target not in ARROWS[module]
    ]
    assert not wrong, "\n".join(wrong)


def test_every_arrow_of_the_table_is_used():
    used = {(module_of(path), target) for path in CORE for _, target in core_modules(path)} | {
        (ROOT, target) for target in ("jobs", "sampling")  # by name, in ganzoo.__getattr__
    }  # fmt: skip
    unused = [(module, target) for module, targets in ARROWS.items() for target in targets if (module, target) not in used]
    assert not unused, f"these arrows are allowed and not there, so take them out of ARROWS: {sorted(unused)}"


def test_there_are_no_circles():
    graph: dict[str, set[str]] = {}
    for path in CORE:
        module = module_of(path)
        graph.setdefault(module, set()).update(target for _, target in core_modules(path) if target not in (module, ROOT))

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "a circle of imports: " + " -> ".join((*trail, module))
        for target in graph.get(module, ()):
            walk(target, (*trail, module))

    for module in graph:
        walk(module, ())


@each_plugin
def test_plugins_need_little_of_the_core(path):
    wrong = [
        f"{where(path, line)}: a plugin imports ganzoo.{target}; it may import only {', '.join(sorted(FOR_PLUGINS))}"
        for line, target in core_modules(path)
        if target not in FOR_PLUGINS
    ]
    assert not wrong, "\n".join(wrong)


@each_core
def test_the_core_imports_no_plugin(path):
    wrong = [where(path, line) for line, name in imports(path) if name.split(".")[0] in ("ganzoo_plugins", "ganzoo_zoo")]
    assert not wrong, f"the core must reach plugins through the registry only: {wrong}"


@pytest.mark.parametrize(("package", "home"), [("entrypoints", "registry"), ("safetensors", "checkpoint")])
def test_a_package_that_only_one_file_may_know(package, home):
    found = {
        where(path, line): module_of(path) for path in CORE for line, name in imports(path) if name.split(".")[0] == package
    }
    assert found, f"nobody imports {package} any more: drop it"
    assert set(found.values()) == {home}, f"{package} belongs into {home}.py alone: {found}"


def test_light_modules_do_not_import_torch():
    """Neither themselves nor through others, when they are imported."""
    heavy = {"torch", "torchvision", "torch_fidelity", "numpy", "safetensors"}
    direct = {module: set[str]() for module in ARROWS}
    arrows = {module: set[str]() for module in ARROWS}
    for path in CORE:
        module = module_of(path)
        direct[module] |= {name.split(".")[0] for _, name in imports(path, deep=False)} & heavy
        arrows[module] |= {target for _, target in core_modules(path, deep=False)}
    for start in sorted(LIGHT):
        seen, todo = set(), [(start, start)]
        while todo:
            module, trail = todo.pop()
            assert not direct[module], f"importing {trail} imports {direct[module]}; import it inside the function"
            seen.add(module)
            todo += [(target, f"{trail} -> {target}") for target in arrows[module] - seen]


def plugin_names() -> set[str]:
    points = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    names = {name for kind in KINDS_OF_PLUGINS for name in points[f"ganzoo.{kind}"]}
    return names | {name.replace("-", "_") for name in names}


def docstrings(tree: ast.AST) -> set[int]:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, owners)]
    return {
        id(body[0].value)
        for body in bodies
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    }


@each_core
def test_the_core_knows_no_plugins_name(path):
    names, skipped = plugin_names(), docstrings(TREES[path])
    assert {"gradient-penalty", "gradient_penalty", "r1"} <= names
    wrong = []
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            words = set(re.findall(r"[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*", node.value.lower()))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            words = set(re.findall(r"\w+", ast.unparse(node)))
        else:
            continue
        wrong += [f"{where(path, node.lineno)}: {word!r}" for word in sorted(words & names)]
    assert not wrong, "the core must not know a plugin by name: " + "; ".join(wrong)


@each_core
def test_the_core_does_not_branch_on_names(path):
    wrong = []
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.If):
            for branch in node.orelse[:1]:
                if isinstance(branch, ast.If) and len(node.orelse) == 1 and compares_text(branch.test):
                    wrong.append(f"{where(path, branch.lineno)}: elif {ast.unparse(branch.test)}")
        elif isinstance(node, ast.Match) and any(
            isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
            for case in node.cases
            for leaf in ast.walk(case.pattern)
        ):
            wrong.append(f"{where(path, node.lineno)}: match {ast.unparse(node.subject)}")
    assert not wrong, "use a table or a method in place of: " + "; ".join(wrong)


def compares_text(test: ast.expr) -> bool:
    for node in ast.walk(test):
        if isinstance(node, ast.Compare):
            leaves = [leaf for side in (node.left, *node.comparators) for leaf in ast.walk(side)]
            if any(isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) for leaf in leaves):
                return True
    return False


@each
def test_files_and_functions_are_small(path):
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= 400, f"{name_of(path)} has {length} lines; a file over 400 is a reason to look again"
    long = [
        f"{where(path, node.lineno)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 50
    ]
    assert not long, "a function over 50 lines is a reason to look again: " + "; ".join(long)


def test_only_the_import_of_plugins_catches_everything():
    found = []
    for path in (*CORE, *PLUGINS):
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ExceptHandler):
                caught = {"BaseException"} if node.type is None else set(re.findall(r"\w+", ast.unparse(node.type)))
                found += [where(path, node.lineno)] if caught & {"Exception", "BaseException"} else []
    homes = ("ganzoo/registry.py:", "ganzoo/benchmark/work.py:")
    places = [place for place in found if not place.startswith(homes)]
    assert not places, f"name the errors that are expected: {places}"
    assert len(found) == 2, f"where anybody's code is imported, and where a sweep runs it: one place each, not {found}"


@pytest.mark.parametrize(
    "path",
    [path for path in CORE if module_of(path) in ("trainer", "game")] + PLUGINS,
    ids=name_of,
)
def test_nothing_in_a_turn_waits_for_the_device(path):
    wrong = [
        where(path, node.lineno)
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "item"
    ]
    assert not wrong, f".item() waits for the device; keep a tensor and read it every so many rounds: {wrong}"


@each
def test_nothing_unpickles(path):
    wrong = [where(path, line) for line, name in imports(path) if re.match(r"(pickle|shelve|dill|joblib|marshal)\b", name)]
    for node in ast.walk(TREES[path]):
        tensors_only = isinstance(node, ast.Call) and "weights_only=True" in map(ast.unparse, node.keywords)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load" and not tensors_only:
            wrong.append(f"{where(path, node.lineno)}: torch.load")
        if isinstance(node, ast.keyword) and ast.unparse(node) in ("weights_only=False", "allow_pickle=True"):
            wrong.append(f"{where(path, node.value.lineno)}: {ast.unparse(node)}")
    assert not wrong, f"a pickle can run code; read safetensors: {wrong}"
