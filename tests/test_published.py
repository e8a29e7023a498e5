"""The published leaderboard: every entry is whole, and the pages say what the entries say."""

import importlib.util
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from ganzoo.benchmark import publish
from ganzoo.benchmark.board import Board, Row, boards_of
from ganzoo.benchmark.entry import lint, place
from ganzoo.benchmark.render import to_markdown
from ganzoo.registry import registry
from ganzoo.zoo import Request, entries, resolve

FOLDER = Path(__file__).parents[1] / "docs" / "leaderboard"
FOUND = publish.collect([FOLDER])
BOARDS = boards_of(entry for _, entry in FOUND)


@pytest.mark.parametrize(("path", "entry"), FOUND, ids=[path.name for path, _ in FOUND])
def test_every_entry_is_whole_and_in_its_place(path: Path, entry: dict) -> None:
    assert lint(entry, path.name) == []
    assert path == FOLDER / place(entry)


OWN = "fashion-mnist-10k"  # the board where each recipe has its own budget
# what the first boards were made of; later recipes join when they are trained under the same budget
FIRST = {"gan", "dcgan", "lsgan", "wgan", "dcgan-wgangp", "wgan-gp", "sngan", "gan-r1"}


def test_every_board_has_the_first_recipes_beside_what_their_scores_mean() -> None:
    recipes = {entry.name for entry in entries(registry()) if entry.record.distribution == "ganzoo-toolkit"}
    assert {board.dataset["name"] for board in BOARDS} == {"fashion-mnist-10k", "fashion-mnist", "emoji32"}
    for board in BOARDS:
        assert {row.name.split("+")[0] for row in board.models} <= recipes
        assert {row.name.split("+")[0] for row in board.models} >= FIRST
        assert {"real-test", "train-copies", "noise"} <= {row.name for row in board.baselines}
        assert len(board.protocol["seeds"]) == 3
        assert not board.custom


@pytest.mark.parametrize("board", [one for one in BOARDS if one.dataset["name"] != OWN], ids=lambda board: board.title)
def test_a_board_of_equal_budgets_has_equal_budgets(board: Board) -> None:
    budgets = {row.first["training"]["images_seen"] for row in board.models}
    assert max(budgets) <= 1.02 * min(budgets)


@pytest.mark.parametrize("row", next(one for one in BOARDS if one.dataset["name"] == OWN).models, ids=lambda row: row.name)
def test_the_board_of_own_budgets_has_recipes_as_they_ship(row: Row) -> None:
    """Each to the end of its own default budget; a changed default takes its entry off the board."""
    shipped = resolve(row.name, Request(), registry()).raw
    trained = tomllib.loads(row.first["model"]["recipe"])
    told = ("name", "summary", "tier", "provenance", "expected_failures")
    assert {key: value for key, value in trained.items() if key not in told} == {
        key: value for key, value in shipped.items() if key not in told
    }
    budget = sum(stage["samples"] for stage in shipped["stages"]) if "stages" in shipped else shipped["train"]["samples"]
    assert budget <= row.first["training"]["images_seen"] <= 1.02 * budget


def test_every_recipe_beats_the_first_gan_and_noise() -> None:
    board = next(one for one in BOARDS if one.dataset["name"] == OWN)
    found = {row.name: row.score(board.headline).mean for row in (*board.models, *board.baselines)}
    first, noise = found.pop("gan"), found["noise"]
    assert first is not None
    assert noise is not None
    assert first < noise
    beaten = {row.name: found[row.name] for row in board.models if row.name != "gan"}
    assert {name: value for name, value in beaten.items() if value is None or value >= first} == {}
    assert len(beaten) >= 47


def test_the_page_names_the_recipes_that_no_board_has() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    recipes = {entry.name for entry in entries(registry()) if entry.record.distribution == "ganzoo-toolkit"}
    known = {row.name for board in BOARDS if board.dataset["name"] == OWN for row in board.models}
    absent = re.search(r"Without an entry so far: (.*?)\.\n", page, re.DOTALL)
    named = set(re.findall(r"`([\w-]+)`", absent[1])) if absent else set()
    assert named == recipes - known


def test_the_pages_are_fresh() -> None:
    pictures = publish.pictures_beside(FOUND)
    assert (FOLDER / "leaderboard.html").read_text(encoding="utf-8") == publish.made("html", BOARDS, pictures)
    assert (FOLDER / "leaderboard.csv").read_text(encoding="utf-8") == publish.made("csv", BOARDS, pictures)
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for board in BOARDS:
        assert to_markdown(board) in page
    readme = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = next(board for board in BOARDS if board.dataset["name"] == OWN)
    rows = [line for line in to_markdown(shown).splitlines() if line.startswith("|")]
    told = [line for line in readme.splitlines() if line.startswith("|")]
    baselines = [row for row in rows[2:] if row.startswith("|  |")]
    assert len(told) == 14 + len(baselines)  # the head and the first twelve
    assert told == [*rows[:14], *baselines]
    assert f"first 12 of its {len(shown.models)} models" in " ".join(readme.split())


def test_a_new_entry_replaces_those_of_its_model_and_no_other(tmp_path: Path, board_entries: Callable[..., dict]) -> None:
    spec = importlib.util.spec_from_file_location("publish_leaderboard", FOLDER.parents[1] / "tools/publish_leaderboard.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    picture = tmp_path / "grid.png"
    picture.write_bytes(b"png")
    old, another, new = board_entries("a", 5.0, 0.1), board_entries("a+seed1", 6.0, 0.1), board_entries("a", 4.0, 0.1)
    new["checkpoint"]["sha256"] = "9" * 64
    paths = [publish.add(one, tmp_path, {"grid": picture}) for one in (old, another, new)]
    tool.replace_others(paths[2], new)
    assert not paths[0].exists()
    assert sorted(path.name for path in paths[2].parent.glob("*.entry.json")) == sorted(path.name for path in paths[1:])
    assert len(list(paths[2].parent.glob("*-grid.png"))) == 2
