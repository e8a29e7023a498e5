"""Every registered plugin keeps its promises; a new plugin is tested by existing."""

from __future__ import annotations

import pytest

from ganzoo.errors import DataError
from ganzoo.options import options_of
from ganzoo.registry import registry
from ganzoo.testing import check_recipe, checks, parametrize_with_checks
from ganzoo.testing.checking import function_checks
from ganzoo.testing.imports import imported, listing_imports_nothing
from ganzoo.zoo import entries


def plugins(kind):
    known = registry()
    return {record.qualified: known.load(kind, record.qualified) for record in known.of(kind)}


@parametrize_with_checks("architecture", plugins("architecture"))
def test_architecture(check):
    check.run()


@parametrize_with_checks("loss", plugins("loss"))
def test_loss(check):
    check.run()


@parametrize_with_checks("regularizer", plugins("regularizer"))
def test_regularizer(check):
    check.run()


@parametrize_with_checks("game", plugins("game"))
def test_game(check):
    check.run()


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", sorted(plugins("dataset")))
def test_dataset(name, split, labels, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = registry()
    asked = {"split": split, "labels": labels}
    offered = options_of(known.load("dataset", name))
    if any(asked[key] not in ("train", False) for key in asked.keys() - offered):
        pytest.skip("has no such split, or no labels")
    try:
        data = known.build("dataset", name, {key: value for key, value in asked.items() if key in offered})
    except DataError as error:
        pytest.skip(f"not to be had on this machine: {error}")
    for check in checks("dataset", data):
        check.run()


@pytest.mark.parametrize("name", [entry.qualified for entry in entries(registry())], ids=lambda name: name.split(":")[1])
def test_recipe(name):
    found = list(check_recipe(name))
    results = [one.result for one in found]
    assert results == ["unchecked"] or (len(results) == 3 and {*results} <= {"ok", "excused"}), found


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check.promise}")
        for kind in ("dataset", "reader")
        for name, plugin in plugins(kind).items()
        for check in function_checks(kind, plugin)
    ],
)
def test_function(check):
    check.run()


def test_imports_are_quiet_and_quick():
    problems = imported([record.module for record in registry().records])
    assert not any(problems.values()), problems


def test_listing_imports_nothing():
    listing_imports_nothing({record.module for record in registry().records})
