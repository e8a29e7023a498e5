"""The published leaderboard: every entry is whole, and the pages say what the entries say."""

from pathlib import Path

import pytest

from ganzoo.benchmark import publish
from ganzoo.benchmark.board import boards_of
from ganzoo.benchmark.entry import lint, place
from ganzoo.benchmark.render import to_markdown
from ganzoo.registry import registry
from ganzoo.zoo import entries

FOLDER = Path(__file__).parents[1] / "docs" / "leaderboard"
FOUND = publish.collect([FOLDER])
BOARDS = boards_of(entry for _, entry in FOUND)


@pytest.mark.parametrize(("path", "entry"), FOUND, ids=[path.name for path, _ in FOUND])
def test_every_entry_is_whole_and_in_its_place(path: Path, entry: dict) -> None:
    assert lint(entry, path.name) == []
    assert path == FOLDER / place(entry)


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
        budgets = {row.first["training"]["images_seen"] for row in board.models}
        assert max(budgets) <= 1.02 * min(budgets)


def test_the_pages_are_fresh() -> None:
    pictures = publish.pictures_beside(FOUND)
    assert (FOLDER / "leaderboard.html").read_text(encoding="utf-8") == publish.made("html", BOARDS, pictures)
    assert (FOLDER / "leaderboard.csv").read_text(encoding="utf-8") == publish.made("csv", BOARDS, pictures)
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for board in BOARDS:
        assert to_markdown(board) in page
    readme = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = next(board for board in BOARDS if board.dataset["name"] == "fashion-mnist-10k")
    rows = [line for line in to_markdown(shown).splitlines() if line.startswith("|")]
    assert all(row in readme for row in rows)
