"""Counting modes: by hand, on perfect and on collapsed samples; and a suite from its file to its table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ganzoo.api import Counted
from ganzoo.benchmark import suite_report
from ganzoo.benchmark.diversity import SuiteOrder, count, entrants, noise_floor
from ganzoo.benchmark.suite import find_suite
from ganzoo.cli.commands import cli
from ganzoo.clusters import agreement
from ganzoo.errors import RecipeError
from ganzoo.registry import registry

SETS = ("ring-8", "grid-25", "grid-25-imbalanced", "stacked-digits")


def opened(name, **options):
    return registry().build("dataset", name, options)


def real(data, number):
    x = data.batch(torch.arange(number)).real
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


@pytest.mark.parametrize("name", SETS)
def test_real_samples_reach_every_mode_at_the_noise_floor(name):
    data = opened(name)
    assert isinstance(data, Counted)
    assert float(data.shares.sum()) == pytest.approx(1)
    number = 26_000
    found = count(data, real(data, number), 0.1)
    assert found.reached == len(data.shares)
    floor = noise_floor(len(data.shares), number)
    assert found.kl == pytest.approx(floor, rel=1.0 if len(data.shares) < 100 else 0.1)
    if name != "stacked-digits":
        assert found.good == pytest.approx(1 - math.exp(-4.5), abs=0.003)  # a plane normal within 3 deviations


def test_counting_by_hand():
    """Four samples on the ring: two on one mode, one on another but far off, one on a third."""
    data = opened("ring-8", samples=10)
    far = data.means[3] * 1.2
    found = count(data, torch.stack([data.means[0], data.means[0], far, data.means[5]]), 0.1)
    assert found.reached == 3
    assert found.modes == 2
    assert found.well == 2
    assert found.good == 0.75
    expected = 0.5 * math.log(0.5 * 8) + 2 * 0.25 * math.log(0.25 * 8)
    assert found.kl == pytest.approx(expected)


def test_a_mode_is_well_covered_from_its_share_on():
    data = opened("grid-25-imbalanced", samples=10)
    often, seldom = float(data.shares[0]), float(data.shares[1])
    assert often == pytest.approx(10 * seldom)
    assert 13 * often + 12 * seldom == pytest.approx(1)
    samples = data.means[0].repeat(1000, 1)
    samples[0] = data.means[2]  # one in a thousand, of a mode that should have 70
    found = count(data, samples, 0.1)
    assert (found.modes, found.well) == (2, 1)


def test_the_noise_floor_is_the_expectation():
    torch.manual_seed(0)
    p = torch.full((50,), 0.02, dtype=torch.float64)
    draws = torch.stack([torch.multinomial(p, 2000, True).bincount(minlength=50) / 2000 for _ in range(300)]).double()
    mean = torch.special.xlogy(draws, draws / p).sum(1).mean()
    assert float(mean) == pytest.approx(noise_floor(50, 2000), rel=0.05)


def test_stacked_digits_are_three_digits():
    data = opened("stacked-digits", samples=500)
    found = data.recognise(real(data, 500))
    truth = data.labels[data.triples]
    right = torch.stack([found.mode // 100, found.mode // 10 % 10, found.mode % 10], 1) == truth
    assert right.float().mean() > 0.97
    assert found.good.float().mean() > 0.85
    noise = data.recognise(torch.rand(500, 3, 8, 8) * 2 - 1)
    assert noise.good.float().mean() < 0.2


def test_the_suite_that_comes_with_ganzoo_is_whole():
    suite = find_suite("diversity", registry())
    assert {arena.name for arena in suite.arenas} == set(SETS)
    assert len(suite.seeds) >= 5
    everybody = entrants(SuiteOrder(suite=suite, out=Path("x")))
    assert len({one.place for one in everybody}) == len(everybody)
    for one in everybody:
        bare = suite.recipe(one.arena, next(iter(suite.contestants[one.arena.backbone])), one.seed)
        assert one.recipe.architecture == bare.architecture  # the same backbone without the method
        assert one.recipe.train == bare.train


def test_unknown_names_are_named():
    with pytest.raises(RecipeError, match="there is no suite 'diverse'; did you mean 'diversity'"):
        find_suite("diverse", registry())
    suite = find_suite("diversity", registry())
    with pytest.raises(RecipeError, match="has no 'grid'"):
        list(suite.matches(["grid"]))
    result = CliRunner().invoke(cli, ["benchmark", "--suite", "diversity", "--samples", "9"])
    assert result.exit_code == 2
    assert "--samples is about scores of images" in result.output


def test_a_suite_from_the_command_line(tmp_path):
    asked = [
        "benchmark",
        "--suite",
        "diversity",
        "ring-8/gan",
        "ring-8/em-gan-10",
        "--budget",
        "1k",
        "--train-seeds",
        "0,1",
    ]
    asked += ["--workers", "1", "--out", str(tmp_path), "--quiet"]
    result = CliRunner().invoke(cli, [*asked, "--json-stdout"], catch_exceptions=False)
    rows = json.loads(result.stdout)
    assert [(row["set"], row["contestant"], row["seeds"]) for row in rows] == [
        ("ring-8", "gan", [0, 1]),
        ("ring-8", "em-gan-10", [0, 1]),
    ]
    assert all(len(row["each"]) == 2 and 0 <= row["good"]["mean"] <= 1 for row in rows)
    text = (tmp_path / "diversity" / "diversity.md").read_text()
    assert "| ring-8 | em-gan-10 | 2 |" in text
    with Image.open(tmp_path / "diversity" / "pictures" / "ring-8-gan.png") as picture:
        assert picture.size == (suite_report.SIDE,) * 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = CliRunner().invoke(cli, [*asked, "--json-stdout"], catch_exceptions=False)
    assert json.loads(again.stdout) == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before  # nothing trained again


def test_points_are_drawn_where_they_are():
    picture = suite_report.scatter(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), reach=1.0)
    last = suite_report.SIDE - 1
    assert picture.getpixel((last, 0)) < 50  # up and to the right
    assert picture.getpixel((0, last)) < 50
    assert picture.getpixel((0, 0)) == 255


def test_agreement_by_hand():
    """The example of Hubert & Arabie's index: a table [[2, 1], [0, 3]]."""
    clusters, classes = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 1])
    found = agreement(clusters, classes)
    assert found.accuracy == pytest.approx(5 / 6)
    pairs, rows, columns, whole = 1 + 3, 3 + 3, 1 + 6, 15
    assert found.ari == pytest.approx((pairs - rows * columns / whole) / ((rows + columns) / 2 - rows * columns / whole))
    h = lambda *p: -sum(q * math.log(q) for q in p)  # noqa: E731
    shared = h(1 / 2, 1 / 2) + h(1 / 3, 2 / 3) - h(1 / 3, 1 / 6, 1 / 2)
    assert found.nmi == pytest.approx(shared / ((h(1 / 2, 1 / 2) + h(1 / 3, 2 / 3)) / 2))
    same = agreement(classes, 1 - classes)
    assert (same.accuracy, same.nmi, same.ari) == pytest.approx((1, 1, 1))
