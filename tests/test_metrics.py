"""The benchmark's mathematics against direct formulas, torch-fidelity and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity import metric_fid

from ganzoo.benchmark.metrics import copying as copies
from ganzoo.benchmark.metrics import neighbours
from ganzoo.benchmark.metrics.copying import copying
from ganzoo.benchmark.metrics.frechet import Moments, distance, floor, infinity, jackknife, measured_floor, moments
from ganzoo.benchmark.metrics.neighbours import authenticity, density_coverage, nearest
from ganzoo.errors import DataError


def normal(count, size, seed, dtype=torch.float64):
    stream = np.random.Generator(np.random.Philox(key=seed))
    return torch.from_numpy(stream.standard_normal((count, size))).to(dtype)


def upstream(fake, real):
    statistics = [metric_fid.fid_features_to_statistics(part) for part in (fake, real)]
    return metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID]


def fd(fake, real):
    return distance(moments(fake), moments(real))


def all_distances(first, second):
    return (first.double()[:, None] - second.double()[None]).square().sum(2).sqrt()


# Fréchet distance


def test_moments_are_numpys():
    features = normal(5001, 7, 1) * 3 + 100
    found = moments(features)
    assert found.count == 5001
    np.testing.assert_allclose(found.mean, features.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(features.numpy(), rowvar=False), rtol=1e-11, atol=1e-12)


def test_a_large_mean_costs_no_digits_of_the_covariance():
    features = normal(3000, 4, 2)
    moved = moments(features + 1e6).covariance
    np.testing.assert_allclose(moved, moments(features).covariance, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size", [2, 17, 96])
def test_distance_is_torch_fidelitys(size):
    scale = torch.linspace(0.1, 2, size, dtype=torch.float64)
    fake, real = normal(400, size, 3) * scale + 0.3, normal(700, size, 4)
    assert fd(fake, real) == pytest.approx(upstream(fake, real), rel=1e-9)


def test_distance_of_commuting_covariances_has_a_closed_form():
    first = Moments(100, np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    second = Moments(100, np.array([0.0, 4.0]), np.diag([1.0, 1.0]))
    assert distance(first, second) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 1) ** 2, rel=1e-14)


@pytest.mark.parametrize(("of_fake", "of_real"), [(20, 500), (500, 20), (20, 30), (30, 20)])
def test_singular_covariances_need_no_epsilon(of_fake, of_real):
    """The trace of the root equals the nuclear norm of the product of the centred samples, which is exact."""
    fake, real = normal(of_fake, 64, 5) * 100, normal(of_real, 64, 6) * 50 + 1
    x, y = ((part - part.mean(0)) / (len(part) - 1) ** 0.5 for part in (fake, real))
    root = torch.linalg.svdvals(x @ y.T).sum()
    expected = (fake.mean(0) - real.mean(0)).square().sum() + x.square().sum() + y.square().sum() - 2 * root
    assert fd(fake, real) == pytest.approx(float(expected), rel=1e-12)
    assert abs(fd(fake, fake)) < 1e-12 * float(x.square().sum())


def test_dead_and_doubled_features():
    fake, real = normal(300, 8, 7), normal(300, 8, 8) * 2
    dead = torch.zeros(300, 3, dtype=torch.float64)
    assert fd(torch.cat([fake, dead], 1), torch.cat([real, dead], 1)) == pytest.approx(fd(fake, real), rel=1e-12)
    doubled = fd(torch.cat([fake, fake], 1), torch.cat([real, real], 1))
    assert doubled == pytest.approx(2 * fd(fake, real), rel=1e-10)
    assert fd(dead, dead + 2) == pytest.approx(12, rel=1e-14)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 12), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_invariances(seed, size, scale, shift):
    fake, real = normal(60, size, seed) * 1.5 + 0.2, normal(80, size, seed + 1)
    turn = torch.linalg.qr(normal(size, size, seed + 2)).Q
    plain = fd(fake, real)
    assert plain >= 0
    assert fd(real, fake) == pytest.approx(plain, rel=1e-9)
    assert fd(fake.flip(0), real) == pytest.approx(plain, rel=1e-9)
    assert fd(fake @ turn + shift, real @ turn + shift) == pytest.approx(plain, rel=1e-7, abs=1e-10)
    assert fd(fake * scale, real * scale) / scale**2 == pytest.approx(plain, rel=1e-7)
    assert fd(fake, fake + shift) == pytest.approx(size * shift**2, rel=1e-9, abs=1e-10)


def test_jackknife_is_that_of_recomputed_distances():
    features, reference = normal(203, 5, 9), moments(normal(500, 5, 10))
    groups = torch.arange(203) % 20
    without = np.array([distance(moments(features[groups != group]), reference) for group in range(20)])
    expected = np.sqrt(19 / 20 * ((without - without.mean()) ** 2).sum())
    assert jackknife(features, reference) == pytest.approx(expected, rel=1e-8)


def test_jackknife_is_the_spread_over_draws():
    reference = moments(normal(4000, 4, 11))
    draws = [normal(400, 4, 100 + number) * 1.3 for number in range(40)]
    spread = np.std([distance(moments(draw), reference) for draw in draws])
    assert np.mean([jackknife(draw, reference) for draw in draws]) == pytest.approx(spread, rel=0.35)


@pytest.mark.parametrize(("count", "expected"), [(1000, 2.2080), (5000, 0.4416), (20_000, 0.1104)])
def test_floor_of_the_identity(count, expected):
    assert floor(np.eye(64), count, count) == pytest.approx(expected, abs=5e-5)
    assert floor(np.diag([1.0] * 64 + [0.0] * 9), count, count) == pytest.approx(expected, abs=5e-5)


def test_floor_is_what_perfect_samples_score():
    scale = torch.linspace(0.2, 2, 16, dtype=torch.float64)
    measured = [fd(normal(500, 16, 200 + n) * scale, normal(1500, 16, 300 + n) * scale) for n in range(30)]
    theory = floor(np.diag(scale.numpy() ** 2), 500, 1500)
    assert np.mean(measured) == pytest.approx(theory, rel=0.06)
    halves = [measured_floor(normal(2000, 16, 400 + n) * scale, 500, 1500, seed=n) for n in range(30)]
    assert np.mean(halves) == pytest.approx(theory, rel=0.06)


def test_measured_floor_follows_from_its_seed():
    features = normal(101, 3, 12)
    assert measured_floor(features, 50, 50, 1) == measured_floor(features, 50, 50, 1)
    assert measured_floor(features, 50, 50, 1) != measured_floor(features, 50, 50, 2)
    assert measured_floor(features, 25, 25, 1) == pytest.approx(2 * measured_floor(features, 50, 50, 1))


def test_infinity_takes_the_bias_away():
    reference = Moments(10**9, np.zeros(16), np.eye(16))
    features = normal(12_000, 16, 13) * 1.2
    exact = 16 * 0.2**2
    plain = distance(moments(features[:1000]), reference)
    found = infinity(features, reference, least=500)
    assert abs(found - exact) < 0.03 < abs(plain - exact)
    assert found == infinity(features, reference, least=500)


# neighbours


@pytest.mark.parametrize(("size", "shift"), [(1, 0), (3, 1000), (64, 5), (300, 0)])
def test_nearest_is_exact(size, shift):
    queries, keys = normal(130, size, 14, torch.float32) + shift, normal(170, size, 15, torch.float32) + shift
    queries[:20] = keys[100:120]
    expected = all_distances(queries, keys)
    found, position = nearest(queries, keys)
    torch.testing.assert_close(found, expected.min(1).values, rtol=1e-12, atol=0)
    assert torch.equal(expected.gather(1, position[:, None])[:, 0], expected.min(1).values)
    assert (found[:20] == 0).all()
    assert position[:20].tolist() == list(range(100, 120))


def test_nearest_works_in_blocks(monkeypatch):
    queries, keys = normal(50, 4, 16), normal(60, 4, 17)
    expected = nearest(queries, keys)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    monkeypatch.setattr(neighbours, "PIECE", 9)
    for found, value in zip(nearest(queries, keys), expected, strict=True):
        assert torch.equal(found, value)


def test_a_copy_is_found_among_others_that_rounding_cannot_tell_apart():
    keys = torch.cat([normal(30, 8, 18) * 1e-5, normal(30, 8, 19) * 100]).float()
    found, position = nearest(keys, keys)
    assert (found == 0).all()
    assert position.tolist() == list(range(60))


def test_features_that_are_all_the_same_cost_little():
    same = torch.ones(3000, 16)
    assert density_coverage(same, same) == (0.0, 0.0)
    assert authenticity(same, same) == 0.0


@pytest.mark.parametrize("size", [2, 40])
def test_density_coverage_and_authenticity_are_their_definitions(size):
    fake, real = normal(150, size, 20, torch.float32), normal(200, size, 21, torch.float32)
    fake[:30] = real[50:80]
    between, own = all_distances(fake, real), all_distances(real, real).fill_diagonal_(torch.inf)
    reach = own.kthvalue(5, dim=1).values
    inside = between < reach
    density, coverage = density_coverage(fake, real)
    assert density == pytest.approx(float(inside.sum()) / 5 / 150, rel=1e-12)
    assert coverage == pytest.approx(float(inside.any(0).double().mean()), rel=1e-12)
    authentic = between.min(1).values > own.min(1).values[between.argmin(1)]
    assert authenticity(fake, real) == pytest.approx(100 * float(authentic.double().mean()), rel=1e-12)


def test_copies_of_everything():
    train = normal(700, 32, 22, torch.float32) + 3
    assert density_coverage(train.flip(0), train) == (1.0, 1.0)
    assert authenticity(train.flip(0), train) == 0.0


def test_coverage_of_one_distribution_has_a_closed_form():
    """1 - (M-1)...(M-k) / ((M+N-1)...(M+N-k)), the expectation in Naeem et al. 2020, about 1 - 2^-k for M = N."""
    found = [density_coverage(normal(1000, 8, 500 + n), normal(1000, 8, 600 + n)) for n in range(8)]
    steps = np.arange(1, 6)
    expected = 1 - np.prod((1000 - steps) / (2000 - steps))
    assert np.mean(found, axis=0) == pytest.approx([1.0, expected], abs=0.02)
    assert expected == pytest.approx(0.96880, abs=3e-4)


# C_T


def u_test(first, second):
    """Mann and Whitney's U by its definition: pairs that are in order, ties as halves."""
    pairs = (first[:, None] > second[None]).double() + 0.5 * (first[:, None] == second[None]).double()
    n, m = len(first), len(second)
    return (float(pairs.sum()) - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5


def test_c_t_is_the_u_test():
    fake, test, train = normal(80, 3, 23) * 1.2, normal(70, 3, 24), normal(90, 3, 25)
    fake[:30] = train[:30]
    expected = u_test(all_distances(fake, train).min(1).values, all_distances(test, train).min(1).values)
    assert copying(fake.float(), test.float(), train.float()) == pytest.approx(expected, abs=1e-9)


def test_c_t_of_copies_saturates():
    train, test = normal(2500, 8, 26), normal(2500, 8, 27)
    assert copying(train, test, train) == pytest.approx(-61.2, abs=0.05)
    assert copying(train[:200], test[:300], train, cells=3) < -10


def test_c_t_has_its_sign_from_the_fake_side():
    train, test, unseen = normal(1000, 4, 28), normal(600, 4, 29), normal(600, 4, 30)
    assert abs(copying(unseen, test, train)) < 3
    assert copying(3 * unseen, test, train) > 10
    assert copying(train[:600] + 0.01 * unseen, test, train) < -10


def test_cells_weigh_what_they_hold_of_the_test_samples():
    """Two far clusters: copies in one, underfitting in the other; the held-out samples are 3 to 1."""
    left, right = normal(600, 2, 31), normal(600, 2, 32) + 1000
    train = torch.cat([left[:300], right[:300]])
    test = torch.cat([left[300:600], right[300:400]])
    fake = torch.cat([left[:100], 4 * normal(100, 2, 33) + 1000])
    z = [
        u_test(*(all_distances(part, train).min(1).values for part in (mine, theirs)))
        for mine, theirs in ((fake[:100], test[:300]), (fake[100:], test[300:]))
    ]
    found = copying(fake.float(), test.float(), train.float(), cells=2)
    assert found == pytest.approx((300 * z[0] + 100 * z[1]) / 400, abs=0.05)
    assert found == copying(fake.float(), test.float(), train.float(), cells=2)


def test_cells_find_clusters_and_survive_equal_samples():
    clusters = torch.cat([normal(50, 2, 34 + n) * 0.1 + 10 * n for n in range(4)]).float()
    centres = copies._centres(clusters, 4, 0)
    assert sorted(float(c) for c in centres.mean(1).round()) == [0, 10, 20, 30]
    assert len(copies._centres(torch.ones(9, 2), 4, 0)) == 1


# refusals

GOOD = normal(60, 4, 40, torch.float32)
SCORES = {
    "moments": lambda x: moments(x),
    "jackknife": lambda x: jackknife(x, moments(GOOD)),
    "halves": lambda x: measured_floor(x, 10, 10),
    "infinity": lambda x: infinity(x, moments(GOOD), least=20),
    "density": lambda x: density_coverage(x, GOOD),
    "real": lambda x: density_coverage(GOOD, x),
    "authenticity": lambda x: authenticity(x, GOOD),
    "train": lambda x: authenticity(GOOD, x),
    "copying": lambda x: copying(x, GOOD, GOOD),
    "held out": lambda x: copying(GOOD, x, GOOD),
    "copied": lambda x: copying(GOOD, GOOD, x),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(name, value):
    broken = GOOD.clone()
    broken[3, 2] = value
    with pytest.raises(DataError, match="not finite"):
        SCORES[name](broken)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("count", [0, 1])
def test_one_sample_is_refused(name, count):
    with pytest.raises(DataError, match=r"ask for|give|need"):
        SCORES[name](GOOD[:count])


@pytest.mark.parametrize("name", sorted(SCORES.keys() - {"moments", "halves"}))
def test_two_extractors_are_refused(name):
    with pytest.raises(DataError, match="use one extractor"):
        SCORES[name](GOOD[:, :3])


@pytest.mark.parametrize(
    "score",
    [
        lambda: jackknife(GOOD[:39], moments(GOOD)),
        lambda: jackknife(GOOD, moments(GOOD), groups=1),
        lambda: measured_floor(GOOD[:3], 10, 10),
        lambda: measured_floor(GOOD, 1, 10),
        lambda: floor(np.eye(3), 1, 10),
        lambda: floor(np.full((2, 2), np.nan), 10, 10),
        lambda: infinity(GOOD, moments(GOOD)),
        lambda: infinity(GOOD, moments(GOOD), least=1),
        lambda: distance(Moments(9, np.zeros(2), np.full((2, 2), np.inf)), Moments(9, np.zeros(2), np.eye(2))),
        lambda: moments(GOOD.flatten()),
        lambda: moments(GOOD[:, :0]),
        lambda: density_coverage(GOOD, GOOD[:5]),
        lambda: density_coverage(GOOD, GOOD, k=0),
        lambda: nearest(GOOD, GOOD * 1e30),
        lambda: copying(GOOD, GOOD, GOOD, cells=0),
        lambda: copying(GOOD, GOOD, GOOD, cells=40),
    ],
)
def test_what_a_metric_cannot_do_is_an_error(score):
    with pytest.raises(DataError):
        score()
