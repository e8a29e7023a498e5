"""Make docs/leaderboard from the entries in it: the page, the CSV, the README, and the table in the repository's README.

python tools/publish_leaderboard.py [BOARD ...]     also takes the entries of these folders first, for those they replace
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganzoo.benchmark import publish
from ganzoo.benchmark.board import boards_of
from ganzoo.benchmark.render import to_markdown

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "leaderboard"
SHOWN = "fashion-mnist-10k"  # the board in the repository's README
FIRST = 12  # models of that board which the README shows; the page has all
BEGIN, END = "<!-- leaderboard -->", "<!-- /leaderboard -->"


def main() -> None:
    """Take entries in, then write everything that depends on them."""
    for place in map(Path, sys.argv[1:]):
        found = publish.collect([place])
        pictures = publish.pictures_beside(found)
        for _, entry in found:
            replace_others(publish.add(entry, FOLDER, pictures[entry["entry_sha256"]]), entry)
    found = publish.collect([FOLDER])
    boards = boards_of(entry for _, entry in found)
    publish.pages(boards, publish.pictures_beside(found), FOLDER, ["csv", "html"])
    tables = "\n".join(to_markdown(board) for board in boards)
    page = FOLDER / "README.md"
    page.write_text(between(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    readme = ROOT / "README.md"
    shown = next(board for board in boards if board.dataset["name"] == SHOWN)
    head, models, baselines = parts(to_markdown(shown))
    rows = "\n".join([*head, *models[:FIRST], *baselines])
    text = between(readme.read_text(encoding="utf-8"), f"{rows}\n")
    told = f"The first {FIRST} of its {len(models)} models"
    readme.write_text(re.sub(r"The first \d+ of its \d+ models", told, text), encoding="utf-8")


def replace_others(path: Path, entry: Mapping[str, Any]) -> None:
    """Remove earlier entries of the same model, trained with the same seed, from its board, with their pictures."""
    for old, other in publish.collect([path.parent]):
        if old != path and other["model"]["name"] == entry["model"]["name"]:
            for picture in publish.pictures_beside([(old, other)])[other["entry_sha256"]].values():
                picture.unlink()
            old.unlink()
            print(f"replaced: {old.name}")


def parts(table: str) -> tuple[list[str], list[str], list[str]]:
    """Return the two lines of the head of a board's Markdown, the lines of its models, and those of its baselines."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    models = [line for line in lines[2:] if not line.startswith("|  |")]
    return lines[:2], models, [line for line in lines[2:] if line.startswith("|  |")]


def between(page: str, text: str) -> str:
    """Return a page with another text between its marks."""
    return re.sub(f"{BEGIN}\n.*{END}", lambda _: f"{BEGIN}\n{text}{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    main()
