"""Entries, boards, renderings: what is wrong is found, what is uncertain is not ranked, what is hostile is inert."""

import copy
import csv
import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ganzoo.benchmark.board import boards_of
from ganzoo.benchmark.columns import chosen, sort
from ganzoo.benchmark.compare import changes
from ganzoo.benchmark.config_hash import config_sha256
from ganzoo.benchmark.entry import canonical_sha256, lint, place, read, seal, text
from ganzoo.benchmark.html import to_html
from ganzoo.benchmark.plots import Point, front, name_beside
from ganzoo.benchmark.publish import add
from ganzoo.benchmark.render import caption, to_csv, to_json, to_markdown
from ganzoo.cli.leaderboard import command
from ganzoo.errors import DataError, RecipeError

HOSTILE = '<script>alert(1)</script>"onmouseover=alert(2)|`x`=1+1'
Entry = dict[str, Any]
MAKERS: list[Callable[..., Entry]] = []  # the one of conftest.py, which cannot be imported


@pytest.fixture(autouse=True)
def _maker(board_entries: Callable[..., Entry]) -> None:
    MAKERS[:] = [board_entries]


def entry(*asked: Any, **more: Any) -> Entry:
    """Return a whole entry, as `ganzoo benchmark` would write it."""
    return MAKERS[0](*asked, **more)


def failed(name: str) -> Entry:
    return entry(name, status="failed", reason="it broke | <b>", scores={}, checkpoint=None, training=None)


def test_a_whole_entry_has_no_problems() -> None:
    assert lint(entry(), "e") == []
    assert lint(entry(kind="baseline"), "e") == []
    assert lint(failed("x"), "e") == []


def change(path: str, value: Any) -> Entry:
    """Return a whole entry in which one value was changed, and which was sealed again."""
    found = copy.deepcopy(entry())
    table = found
    *parts, last = path.split(">")
    for part in parts:
        table = table[int(part)] if isinstance(table, list) else table[part]
    if value is ...:
        del table[last]
    else:
        table[last] = value
    return seal(found)


FD = f"scores>FD/rconv@{'a' * 8}"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model>params_g", ..., "field 'model.params_g' is missing"),
        ("model>extra", 1, "unknown field 'model.extra'"),
        ("model>params_g", "many", "'model.params_g' must be int, not str"),
        ("model>params_g", True, "'model.params_g' must be int, not bool"),
        ("env>tf32", 1, "'env.tf32' must be bool, not int"),
        ("training", [], "'training' must be an object"),
        ("checkpoint>sha256", "abc", "checkpoint.sha256 is no SHA-256"),
        ("checkpoint>format", "pickle", "not safetensors"),
        ("model>recipe", "x = 1", "config_sha256 is not that of model.recipe"),
        ("model>recipe", "x = ", "model.recipe is no TOML"),
        ("kind", "other", "kind 'other' is none of"),
        ("status", "failed", "status is 'failed' and there are 5 scores"),
        (f"{FD}>mean", 4.9, "but the mean over its seeds is 5.0"),  # the least of the seeds, not their mean
        (f"{FD}>mean", None, "no value and no note"),
        (f"{FD}>per_seed", [5.0], "has 1 seeds, the protocol 2"),
        (f"{FD}>per_seed", [5.0, None], "has a mean but not all of its seeds"),
        (f"{FD}>se", -1.0, "a negative error"),
        (f"{FD}>floor_theory", "low", "a number that is not finite"),
        (f"scores>FID/rconv@{'a' * 8}", {"mean": 1.0, "se": None, "per_seed": [1.0, 1.0], "per_seed_se": [], "note": ""},
         "called FID, which is reserved"),
        ("scores>FD/other@12345678", {"mean": 1.0, "se": None, "per_seed": [1.0, 1.0], "per_seed_se": [], "note": ""},
         "of an extractor that is not listed"),
        ("schema", "ganzoo.entry/2", "the schema is 'ganzoo.entry/2'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(path: str, value: Any, message: str) -> None:
    problems = lint(change(path, value), "e")
    assert any(message in problem for problem in problems), problems


def test_an_edit_without_a_new_seal_shows() -> None:
    edited = entry()
    edited["scores"][f"FD/rconv@{'a' * 8}"]["floor_theory"] = 2.0
    assert lint(edited, "e") == ["e: entry_sha256 does not match the content: the entry was edited"]
    others = {**entry(), "verified": [{"badge": "bit-exact"}], "timing": {"sample_ms_per_img": 9.0, "benchmark_s": None}}
    assert canonical_sha256(others) == others["entry_sha256"]  # what others add is not sealed


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "x"}', "[" * 100_000, "\xff"])
def test_a_malformed_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.entry.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=str(path)):
        read(path)


def names(rows: Any) -> list[str]:
    return [row.name for row in rows]


def test_ranks_are_ranges_where_intervals_meet() -> None:
    """a: 5 ± 0.2, b: 5.3 ± 0.2, c: 5.6 ± 0.2 (meets b alone), d: 9."""
    found = [entry("a", 5.0, 0.1), entry("b", 5.3, 0.1), entry("c", 5.6, 0.1), entry("d", 9.0, 0.1), failed("broken")]
    (board,) = boards_of([*found, entry("real-test", 1.0, kind="baseline")])
    assert [(row.name, row.rank) for row in board.models] == [
        ("a", "1-2"), ("b", "1-3"), ("c", "2-3"), ("d", "4"), ("broken", ""),
    ]  # fmt: skip
    assert names(board.baselines) == ["real-test"]
    assert board.baselines[0].rank == ""
    (again,) = boards_of([entry("real-test", 1.0, kind="baseline"), *reversed(found)])
    assert names(again.models) == names(board.models)


def test_training_seeds_are_one_row_with_their_spread() -> None:
    found = [entry("a+seed1", 5.0, 0.1, seed=1), entry("a+seed2", 7.0, 0.1, seed=2)]
    for one in found:
        one["model"]["config_sha256"] = "7" * 64
    (board,) = boards_of(found)
    (row,) = board.models
    value = row.score(board.headline)
    assert value.mean == 6.0
    assert value.se == pytest.approx((2 / 2 + 2 * 0.1**2 / 4) ** 0.5)
    cells = {column.key: column.cell(board, row) for column in chosen()}
    assert cells["seeds"].text == "2"
    assert row.name == "a"
    assert names(boards_of(found[:1])[0].models) == ["a+seed1"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_row_of_several_seeds_shows_the_first(order: tuple[int, ...]) -> None:
    found = [entry(name, 5.0, 0.1, seed=seed) for seed, name in enumerate(("a", "a+seed1", "a+seed2"))]
    for one in found:
        one["model"]["config_sha256"] = "7" * 64
    ((row,),) = (board.models for board in boards_of(found[number] for number in order))
    assert [one["training"]["seed"] for one in row.entries] == [0, 1, 2]
    assert row.name == "a"


def test_a_changed_protocol_is_a_board_of_its_own_and_not_ranked() -> None:
    custom = entry("b")
    custom["protocol"]["overrides"] = ["samples = 5"]
    boards = boards_of([entry("a"), custom])
    assert [board.custom for board in boards] == [False, True]
    assert boards[1].models[0].rank == ""
    assert any("not ranked" in line for line in caption(boards[1]))


def test_the_board_with_most_models_comes_first_and_changed_protocols_last() -> None:
    def of(data: str, count: int, **protocol: Any) -> list[Entry]:
        found = [entry(name) for name in "abcd"[:count]]
        for one in found:
            one["dataset"]["name"] = data
            one["protocol"].update(protocol)
        return found

    together = [*of("aardvarks", 1), *of("zebras", 3), *of("bees", 1), *of("changed", 4, overrides=["samples = 5"])]
    for order in (together, together[::-1]):
        assert [board.dataset["name"] for board in boards_of(order)] == ["zebras", "aardvarks", "bees", "changed"]


def test_a_score_far_from_certain_is_never_alone_at_the_top() -> None:
    (board,) = boards_of([entry("sure", 5.0, 0.01), entry("lucky", 4.0, 5.0)])
    assert {row.rank for row in board.models} == {"1-2"}


def test_json_csv_and_markdown_say_the_same() -> None:
    (board,) = boards_of([entry("a"), entry("b", 9.0), failed("broken"), entry("noise", 99.0, kind="baseline")])
    plain = json.loads(json.dumps(to_json(board)))
    assert [row["name"] for row in plain["models"]] == ["a", "b", "broken"]
    assert plain["models"][0]["values"]["fd"] == 5.0
    lines = list(csv.DictReader(io.StringIO(to_csv([board]))))
    assert [(line["model"], line["rank"], line["FD"]) for line in lines] == [
        ("a", "1", "5.0"), ("b", "2", "9.0"), ("broken", "", ""), ("noise", "", "99.0"),
    ]  # fmt: skip
    assert lines[0]["KD"] == "-0.001"  # a number, not a text that begins with a minus
    markdown = to_markdown(board)
    assert "| 1 | a | 5 ± 0.1 |" in markdown
    assert "not comparable with a published FID" in markdown
    assert "- broken: it broke \\| &lt;b&gt;" in markdown


def test_columns_sort_and_missing_values_come_last() -> None:
    (board,) = boards_of([entry("a", 5.0), entry("b", 2.0), failed("c")])
    assert names(sort(board, board.models, "fd")) == ["b", "a", "c"]
    assert names(sort(board, board.models, "-fd")) == ["a", "b", "c"]
    assert names(sort(board, board.models, "model")) == ["a", "b", "c"]
    with pytest.raises(RecipeError, match="no column 'fdd'; did you mean 'fd'"):
        sort(board, board.models, "fdd")


def test_hostile_names_are_inert_everywhere() -> None:
    (board,) = boards_of([entry(HOSTILE), entry("=1+1", 6.0), entry(HOSTILE, kind="baseline")])
    page = to_html([board], {})
    assert "<script>alert" not in page
    assert '"onmouseover' not in page
    assert page.count("<script>") == 1
    cells = [line["model"] for line in csv.DictReader(io.StringIO(to_csv([board])))]
    assert "'=1+1" in cells
    table = [line for line in to_markdown(board).splitlines() if "alert" in line]
    assert all("<script" not in line and "\\|" in line for line in table)


def test_the_same_boards_make_the_same_page_which_asks_for_nothing_else() -> None:
    boards = boards_of([entry("a"), entry("b", 9.0)])
    page = to_html(boards, {})
    assert page == to_html(boards_of([entry("b", 9.0), entry("a")]), {})
    assert "default-src &#x27;none&#x27;" in page
    for word in ("http://", "https://", "url(", "@import", 'src="//'):
        assert word not in page


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [Point("cheap", 1, 9), Point("good", 5, 2), Point("beaten", 6, 3), Point("best", 9, 1), Point("bad", 1, 10)]
    assert [point.label for point in front(points)] == ["cheap", "good", "best"]


def test_names_in_a_plot_never_cover_one_another() -> None:
    """The same place again and again: the lines around it fill up, and what finds no room is left to the pointer."""
    taken: list[tuple[float, float, float]] = []
    found = [name_beside("model", 100.0, 150.0, taken) for _ in range(12)]
    lines = [line for _, _, line in taken]
    assert 5 <= len(lines) == sum(map(bool, found)) < 12
    assert min(b - a for a, b in pairwise(sorted(lines))) >= 12


def test_changes_are_judged_by_their_error() -> None:
    old = [entry("a", 5.0, 0.1), entry("b", 5.0, 0.1)]
    new = [entry("a", 5.1, 0.1), entry("b", 8.0, 0.1)]
    found = {(one.model, one.score.split("/")[0]): one.verdict for one in changes(old, new)}
    assert found["a", "FD"] == "within error"
    assert found["b", "FD"] == "changed"
    assert found["a", "KD"] == "same"
    other = entry("a")
    other["dataset"]["pixels_sha256"] = "9" * 64
    with pytest.raises(DataError, match="reference images differ"):
        list(changes([entry("a")], [other]))
    with pytest.raises(DataError, match="no model of one name"):
        list(changes([entry("a"), entry("b")], [entry("c"), entry("d")]))


def put(folder: Path, *found: Entry) -> Path:
    for one in found:
        add(one, folder, {})
    return folder


def test_the_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    board = put(tmp_path / "board", entry("a"), entry("b", 9.0))
    loose = tmp_path / "c.entry.json"
    loose.write_text(text(entry("c", 7.0)))
    added = run(command, ["add", str(loose), "--to", str(board)])
    assert Path(added.output.strip()) == board / place(entry("c", 7.0))
    assert run(command, ["add", str(loose), "--to", str(board)]).exit_code == 0
    assert run(command, ["lint", str(board)], standalone_mode=False).return_value == 0
    shown = run(command, ["render", str(board), "--sort", "model"])
    assert [shown.output.index(f" {name} ") for name in "abc"] == sorted(shown.output.index(f" {name} ") for name in "abc")
    out = tmp_path / "page.html"
    assert run(command, ["render", str(board), "--format", "html", "--out", str(out)]).exit_code == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert json.loads(run(command, ["render", str(board), "--format", "json"]).stdout)[0]["schema"] == "ganzoo.board/1"
    diff = json.loads(run(command, ["diff", str(loose), str(loose), "--json"]).stdout)
    assert {one["verdict"] for one in diff} == {"same"}


def test_add_and_lint_refuse_an_edited_entry(tmp_path: Path) -> None:
    run = CliRunner().invoke
    wrong = entry("a")
    wrong["scores"][f"FD/rconv@{'a' * 8}"]["mean"] = 0.1
    path = tmp_path / "a.entry.json"
    path.write_text(text(wrong))
    result = run(command, ["add", str(path), "--to", str(tmp_path / "board")])
    assert isinstance(result.exception, DataError)
    assert "it cannot be added" in str(result.exception)
    linted = run(command, ["lint", str(path)], standalone_mode=False)
    assert linted.return_value == 3
    assert "the entry was edited" in linted.output


def test_other_scores_of_one_checkpoint_are_not_overwritten(tmp_path: Path) -> None:
    board = put(tmp_path / "board", entry("a", 5.0))
    path = tmp_path / "better.entry.json"
    path.write_text(text(entry("a", 1.0)))
    result = CliRunner().invoke(command, ["add", str(path), "--to", str(board)])
    assert isinstance(result.exception, DataError)
    assert "holds other scores of this checkpoint" in str(result.exception)


def test_how_a_recipe_is_computed_is_no_part_of_what_it_trains():
    raw = {"train": {"batch": 64, "seed": 1}}
    how = {
        "train": {"batch": 64, "seed": 2, "workers": 2, "compile": "on", "micro_batch": 8, "memory_format": "contiguous"}
    }
    assert config_sha256(raw) == config_sha256(how)
    assert config_sha256(raw) != config_sha256({"train": {"batch": 32, "seed": 1}})
