"""Feeding: which samples come is a function of seed and position, and nothing is left out or doubled."""

from __future__ import annotations

import pytest
import torch

from ganzoo.api import TensorDataset
from ganzoo.data import Feed
from ganzoo.device import Device

COUNT = 23


def feed(seed=0, *, count=COUNT, size=4, classes=0):
    source = torch.Generator().manual_seed(7)
    samples = torch.randint(0, 256, (count, 1, size, size), generator=source, dtype=torch.uint8)
    labels = torch.arange(count) % classes if classes else None
    return Feed(TensorDataset(samples, labels, classes=classes), Device.choose("cpu", "fp32"), seed)


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_epoch_is_a_permutation(epoch):
    assert sorted(feed().order(epoch).tolist()) == list(range(COUNT))


def test_the_order_follows_from_seed_and_epoch_alone():
    assert torch.equal(feed(3).order(4), feed(3).order(4))
    walked = feed(3)
    for epoch in range(4):
        walked.order(epoch)
    assert torch.equal(walked.order(4), feed(3).order(4))
    assert not torch.equal(feed(3).order(4), feed(3).order(5))
    assert not torch.equal(feed(3).order(4), feed(4).order(4))


@pytest.mark.parametrize("position", [0, 1, COUNT - 3, COUNT - 1, COUNT, 2 * COUNT - 1, 1000])
@pytest.mark.parametrize("count", [1, 8, COUNT, 2 * COUNT + 5])
def test_a_batch_is_a_stretch_of_the_endless_stream(position, count):
    one = feed(2)
    stream = torch.cat([feed(2).order(epoch) for epoch in range((position + count) // COUNT + 1)])
    assert torch.equal(one.index(position, count), stream[position : position + count])


def test_small_steps_and_large_ones_see_the_same_samples():
    one, two = feed(1), feed(1)
    small = torch.cat([one.batch(position, 4).real for position in range(0, 60, 4)])
    large = torch.cat([two.batch(position, 20).real for position in range(0, 60, 20)])
    assert torch.equal(small, large)


def test_going_back_gives_the_same_batch_again():
    one = feed(1, classes=3)
    before = one.batch(COUNT - 2, 8)
    one.batch(500, 8)
    again = one.batch(COUNT - 2, 8)
    assert torch.equal(before.real, again.real)
    assert torch.equal(before.cond["label"], again.cond["label"])


def test_labels_stay_with_their_samples():
    one = feed(classes=3)
    batch = one.batch(5, 9)
    index = one.index(5, 9)
    assert torch.equal(batch.cond["label"], index % 3)
    assert batch.cond["label"].dtype == torch.int64
    assert torch.equal(batch.real, one.dataset.samples[index].float() / 127.5 - 1)


def test_bytes_become_numbers_from_minus_one_to_one():
    samples = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(3, 1, 1, 1)
    one = Feed(TensorDataset(samples), Device.choose("cpu", "fp32"), 0)
    values = sorted(one.batch(0, 3).real.flatten().tolist())
    assert values == [-1.0, pytest.approx(51 / 127.5 - 1), 1.0]


@pytest.mark.parametrize("size", [2, 4])
def test_smaller_stages_see_area_means(size):
    one = feed(size=8)
    whole = one.batch(3, 6).real
    factor = 8 // size
    expected = whole.reshape(6, 1, size, factor, size, factor).mean((3, 5))
    torch.testing.assert_close(one.batch(3, 6, size).real, expected)


def test_the_full_size_is_not_resampled():
    one = feed(size=8)
    assert torch.equal(one.batch(0, 4, 8).real, one.batch(0, 4).real)
