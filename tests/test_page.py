"""The page in a browser: no request, no error, sorted by a click, readable on a phone."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from ganzoo.benchmark.board import boards_of
from ganzoo.benchmark.html import to_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
HOSTILE = '<img src=x onerror="document.title=1">'

# What a copy of the page does after it has loaded; it reports in an element that --dump-dom shows.
PROBE = """
const told = {errors: [], violations: []};
addEventListener("error", (event) => told.errors.push(String(event.message)), true);
addEventListener("securitypolicyviolation", (event) => told.violations.push(event.violatedDirective));
addEventListener("load", () => {
  const table = document.querySelector("table");
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex((head) => head.textContent.trim() === "FD");
  const order = () => [...table.tBodies].map((body) => [...body.rows].map((row) => row.cells[1].textContent.trim()));
  told.before = order();
  heads[column].querySelector("button").click();
  told.up = order(); told.sortUp = heads[column].getAttribute("aria-sort");
  heads[column].querySelector("button").click();
  told.down = order(); told.sortDown = heads[column].getAttribute("aria-sort");
  heads.find((head) => head.textContent.trim() === "model").querySelector("button").click();
  told.names = order();
  told.requests = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:"));
  told.width = innerWidth; told.scroll = document.documentElement.scrollWidth;
  told.images = [...document.images].filter((image) => !image.complete || !image.naturalWidth).length;
  told.title = document.title;
  const place = document.createElement("pre");
  place.id = "told"; place.textContent = JSON.stringify(told);
  document.body.append(place);
});
"""


def chromium(*arguments: str) -> "subprocess.CompletedProcess[str]":
    assert CHROMIUM is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000"]
    flags += ["--enable-logging=stderr", "--disable-background-networking", "--no-first-run"]
    return subprocess.run([CHROMIUM, *flags, *arguments], capture_output=True, text=True, timeout=120, check=True)


def told(page: Path, width: int) -> dict:
    """Return what the probe reports of a copy of the page; in a frame, for windows have a least width."""
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("<style>", f"<script>{PROBE}</script><style>", 1))
    frame = page.with_name("frame.html")
    frame.write_text(
        f'<iframe id="f" src="probed.html" width="{width}" height="3000"></iframe><script>'
        'addEventListener("load", () => setTimeout(() => { const found = document.getElementById("f")'
        '.contentDocument.getElementById("told"); const out = document.createElement("pre"); out.id = "out";'
        "out.textContent = found.textContent; document.body.append(out); }, 300));</script>"
    )
    done = chromium("--allow-file-access-from-files", "--window-size=1400,3200", "--dump-dom", f"file://{frame}")
    match = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, done.stderr
    found: dict = json.loads(unescape(match[1]))
    return found


@pytest.fixture
def page(tmp_path: Path, board_entries) -> Path:
    picture = tmp_path / "grid.png"
    from PIL import Image

    Image.new("L", (64, 64)).save(picture)
    models = [board_entries(f"model-{number}", 5.0 + 3 * (number % 4) + number / 10) for number in range(6)]
    odd = [board_entries(HOSTILE, 4.0), board_entries("a-name-that-is-rather-long-and-has-no-end-" * 3, 20.0)]
    rows = [board_entries("noise", 300.0, kind="baseline"), board_entries("real-test", 1.0, kind="baseline")]
    pictures = {one["entry_sha256"]: {"grid": picture, "neighbours": picture} for one in models}
    path = tmp_path / "leaderboard.html"
    path.write_text(to_html(boards_of([*models, *odd, *rows]), pictures))
    return path


def test_it_asks_for_nothing_sorts_by_a_click_and_runs_nobody_elses_code(page: Path) -> None:
    found = told(page, 1280)
    assert found["errors"] == []
    assert found["violations"] == []
    assert found["requests"] == []
    assert found["images"] == 0
    assert found["title"] != "1"
    models, baselines = found["up"]
    assert (found["sortUp"], found["sortDown"]) == ("ascending", "descending")
    assert models == found["before"][0]  # it comes sorted by FD
    assert models[0] == HOSTILE  # as a text
    assert found["down"] == [models[::-1], baselines[::-1]]  # baselines keep to themselves
    assert baselines == ["real-test", "noise"]
    assert found["names"][0] == sorted(models, key=str.casefold)


@pytest.mark.parametrize("width", [360, 768])
def test_it_fits_a_phone(page: Path, width: int) -> None:
    found = told(page, width)
    assert found["width"] == width
    assert found["scroll"] <= width, "only the tables scroll sideways"


def test_the_page_as_it_is_opens_without_a_word_on_the_console(page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    done = chromium("--window-size=1280,1600", f"--screenshot={shot}", f"file://{page}")
    assert "CONSOLE" not in done.stderr
    assert shot.stat().st_size > 20_000
