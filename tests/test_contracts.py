"""Every registered plugin keeps its promises; a new plugin is tested by existing."""

from __future__ import annotations

import pytest

from ganzoo.errors import DataError
from ganzoo.registry import registry
from ganzoo.testing import checks, parametrize_with_checks


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
    try:
        data = registry().build("dataset", name, {"split": split, "labels": labels})
    except DataError as error:
        pytest.skip(f"not to be had on this machine: {error}")
    for check in checks("dataset", data):
        check.run()
