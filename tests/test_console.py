"""What a person sees: words for times and sizes, no control characters, plain lines and the live view."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from ganzoo_plugins.losses.non_saturating import NonSaturating
from rich.console import Console

from ganzoo import console
from ganzoo.console import Live, Plain, duration, plain, print_json, print_table, reporter, size, terms_text
from ganzoo.testing.tiny import tiny_recipe

UNKNOWN = float("nan")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45.4, "45 s"),
        (59.6, "1 min 00 s"),
        (60, "1 min 00 s"),
        (750, "12 min 30 s"),
        (3599.7, "1 h 00 min"),
        (11_100, "3 h 05 min"),
        (360_000, "100 h 00 min"),
        (float("inf"), "unknown"),
        (UNKNOWN, "unknown"),
    ],
)
def test_times_are_said_as_people_do(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (2_500_000, "2.5 MB"),
        (3.2e9, "3.2 GB"),
        (4e12, "4.0 TB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_sizes_come_in_the_unit_that_suits_them(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text: é 漢 🦊", "plain text: é 漢 🦊"),
        ("two\nlines", "two\nlines"),
        ("\x1b[31mred\x1b[0m", "?[31mred?[0m"),
        ("bell\a tab\t return\r nul\0", "bell? tab? return? nul?"),
        ("\u202egnp.exe", "?gnp.exe"),
        ("lone \udcff surrogate", "lone ? surrogate"),
    ],
)
def test_control_characters_are_not_passed_on(text, shown):
    assert plain(text) == shown


def test_tables_show_texts_as_they_are(capsys):
    print_table(("name", "value"), [("[bold]x[/bold]", ":smile: \x1b[31m"), ("b", "c " * 70)], title="it")
    shown = capsys.readouterr()
    assert "[bold]x[/bold]" in shown.out
    assert ":smile: ?[31m" in shown.out
    assert "c " * 60 in shown.out
    assert shown.err == ""


def test_json_is_ascii_and_one_document(capsys):
    print_json({"name": "漢", "value": [1, None]})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": "漢", "value": [1, None]}


def test_results_go_out_and_notes_go_to_errors(capsys):
    console.out().print("result")
    console.err().print("note")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("result\n", "note\n")


@pytest.fixture
def watched(make):
    """A trainer with its recipe, and the reports of all its rounds."""
    trainer = make(loss=NonSaturating)
    reports = []
    while trainer.samples < trainer.plan.total:
        trainer.round()
        reports.append(trainer.report())
    return tiny_recipe({}), trainer, reports


def show(view, watched):
    recipe, trainer, reports = watched
    view.start(recipe, trainer, Path("runs") / "it")
    for number, report in enumerate(reports):
        view.report(report, 100.0, 10.0 * (len(reports) - number - 1))
    view.note("a \x1b note")
    view.stop()
    return view.console.file.getvalue()


def test_plain_lines_for_logs(watched):
    view = Plain(Console(file=io.StringIO(), width=300))
    text = show(view, watched)
    lines = text.splitlines()
    assert lines[0].startswith("tiny: D ")
    assert "parameters, cpu fp32, into runs/it" in lines[0].replace("\\", "/")
    assert lines[-2].startswith("64/64 samples (100%)  100 images/s  0 s left  D/loss")
    assert lines[-1] == "a ? note"
    assert len(lines) <= 5, "one line every few seconds, and one at the end"


def test_a_live_view_on_a_terminal(watched):
    view = Live(Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None))
    text = show(view, watched)
    assert "tiny: D " in text
    assert "100%" in text
    assert "100 images/s, 0 s left" in text
    assert terms_text(watched[2][-1].terms) in text
    assert "a ? note" in text
    view.stop()  # once more does no harm


def test_a_view_that_never_started_can_be_stopped_and_told(watched):
    view = Live(Console(file=io.StringIO(), force_terminal=True))
    view.report(watched[2][0], 1.0, 1.0)
    view.stop()
    assert view.console.file.getvalue() == ""


def test_who_reports_depends_on_the_terminal(monkeypatch):
    assert isinstance(reporter(), Plain)
    monkeypatch.setattr(console, "err", lambda: Console(force_terminal=True, file=io.StringIO()))
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(reporter(), Live)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(reporter(), Plain)
