"""The validation cases: they hold, they say when they were skipped, and they notice what is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ganzoo.benchmark import selftest, selftest_paths  # noqa: F401 (the second adds its cases)
from ganzoo.benchmark.selftest import CASES, Case, Sheet, run
from ganzoo.errors import DataError, RecipeError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
OF_PICTURES = ("pixel-hashes", "pooled-pixels", "principal-components", "raw-pixels", "copycat")
needs_pictures = pytest.mark.skipif(not DEBIAN.is_dir(), reason="no Fashion-MNIST on this machine")


def images(name):
    data = gzip.decompress((DEBIAN / f"{name}-images-idx3-ubyte.gz").read_bytes())
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8, offset=16).copy()).view(-1, 1, 28, 28)


def anchors():
    return images("train"), images("t10k")


@pytest.mark.parametrize("name", [name for name in CASES if name not in OF_PICTURES])
def test_a_case_holds(name):
    (found,) = run([name])
    assert found.ok is True, found
    assert (found.name, found.expected != "") == (name, True)
    assert found.seconds >= 0


@needs_pictures
def test_small_anchors_hold_on_padded_originals():
    padded = tuple(F.pad(part, (2, 2, 2, 2)) for part in anchors())
    found = list(run(["pixel-hashes", "principal-components"], lambda: padded))
    assert [one.ok for one in found] == [True, True], found


@pytest.mark.slow
@needs_pictures
def test_everything_holds_within_a_minute():
    found = list(run(anchors=anchors))
    assert [one.name for one in found if not one.ok] == [], found
    assert sum(one.seconds for one in found) < 60


@pytest.mark.parametrize("name", OF_PICTURES)
def test_without_pictures_a_case_is_skipped_with_the_reason(name):
    (found,) = run([name])
    assert found.ok is None
    assert "pictures" in found.found


def test_pictures_that_cannot_be_read_are_the_reason():
    def missing():
        raise DataError("the folder is empty; fill it")

    (found,) = run(["raw-pixels"], missing)
    assert (found.ok, found.found) == (None, "the folder is empty; fill it")


def test_other_pictures_are_noticed():
    other = torch.zeros(20, 1, 28, 28, dtype=torch.uint8)
    (found,) = run(["pixel-hashes"], lambda: (other, other))
    assert found.ok is False
    (found,) = run(["pixel-hashes"], lambda: (other.float(), other))
    assert found.ok is False
    assert "uint8" in found.found


def test_a_wrong_metric_is_noticed(monkeypatch):
    monkeypatch.setattr(selftest, "distance", lambda first, second: 38.3915)
    (found,) = run(["closed-form"])
    assert found.ok is False


def test_a_number_where_an_error_is_due_is_noticed(monkeypatch):
    monkeypatch.setattr(selftest, "copying", lambda fake, test, train: float("nan"))
    (found,) = run(["errors"])
    assert found.ok is False
    assert "C_T of NaN: the number nan" in found.found


def test_nan_is_near_nothing():
    sheet = Sheet()
    sheet.near("x", float("nan"), 1.0, 1.0)
    assert not sheet.ok


def test_an_unknown_case_is_named_at_once():
    with pytest.raises(RecipeError, match="did you mean 'closed-form'"):
        run(["closed-from"])


def test_cases_come_one_by_one():
    cases = run(["closed-form", "errors"])
    first = next(cases)
    assert isinstance(first, Case)
    assert first.name == "closed-form"
