"""Latents and labels by position: what the rule `philox/1` promises."""

import math

import numpy as np
import pytest
import torch

from ganzoo.benchmark.latents import latents, stratified


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_a_row_depends_on_the_seed_and_its_position_alone(prior: str) -> None:
    whole = latents(0, 100, 7, prior, 3)
    assert torch.equal(whole[40:60], latents(40, 60, 7, prior, 3))
    assert not torch.equal(whole, latents(0, 100, 7, prior, 4))


def test_the_rule_is_frozen() -> None:
    """These numbers must never change: scores that were published depend on them."""
    words = np.random.Philox(key=0, counter=[0, 0, 0, 0]).random_raw(4)
    uniform = [(int(word) >> 11) * 2.0**-53 + 2.0**-54 for word in words]
    by_hand = [
        math.sqrt(-2 * math.log(uniform[0])) * math.cos(2 * math.pi * uniform[2]),
        math.sqrt(-2 * math.log(uniform[1])) * math.cos(2 * math.pi * uniform[3]),
        math.sqrt(-2 * math.log(uniform[0])) * math.sin(2 * math.pi * uniform[2]),
    ]
    assert latents(0, 1, 3, "normal", 0)[0].tolist() == pytest.approx(by_hand, abs=1e-6)
    assert latents(5, 6, 4, "normal", 1)[0].tolist() == pytest.approx(FROZEN, abs=1e-6)


FROZEN = [-0.8180795311927795, 0.3922712504863739, 1.4688420295715332, 0.46205413341522217]


def test_normal_latents_are_normal() -> None:
    z = latents(0, 4000, 16, "normal", 0).double().flatten()
    assert abs(float(z.mean())) < 4 / math.sqrt(len(z))
    assert float(z.var()) == pytest.approx(1, abs=0.02)
    assert float((z.abs() < 1).double().mean()) == pytest.approx(0.6827, abs=0.006)
    assert float((z**4).mean()) == pytest.approx(3, abs=0.15)


def test_uniform_latents_fill_their_interval() -> None:
    z = latents(0, 2000, 16, "uniform", 0).double().flatten()
    assert -1 < float(z.min()) < -0.999
    assert 0.999 < float(z.max()) < 1
    assert float(z.var()) == pytest.approx(1 / 3, abs=0.01)


def test_truncation_redraws_what_is_outside() -> None:
    plain, cut = latents(0, 500, 8, "normal", 0), latents(0, 500, 8, "normal", 0, bound=0.7)
    inside = (plain.abs() <= 0.7).all(1)
    assert torch.equal(plain[inside], cut[inside])
    assert float(cut.abs().max()) <= 0.7
    assert float(cut.std()) == pytest.approx(0.39, abs=0.02)  # a redrawn one, not one that is clipped: 0.53


@pytest.mark.parametrize("classes", [[5, 5, 5], [100, 1, 50], [7], [0, 3, 1]])
def test_labels_keep_the_proportions_of_the_data(classes: list[int]) -> None:
    labels = stratified(40, classes)
    counts = torch.bincount(labels, minlength=len(classes))
    expected = torch.tensor(classes) * 40 / sum(classes)
    assert len(labels) == 40
    assert float((counts - expected).abs().max()) < 1
    half = torch.bincount(labels[:20], minlength=len(classes))
    assert float((half - expected / 2).abs().max()) <= 1
