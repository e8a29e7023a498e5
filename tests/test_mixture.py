"""EM-GAN: k-means against brute force, labels that keep their meaning, weights that learn, and every E-step."""

from __future__ import annotations

import itertools

import pytest
import torch
from ganzoo_plugins.games import _clustering as clustering
from ganzoo_plugins.games.mixture import Mixture

from ganzoo import checkpoint, jobs
from ganzoo.api import PluginError, Spec, TensorDataset
from ganzoo.errors import RecipeError
from ganzoo.registry import registry
from ganzoo.sampling import load
from ganzoo.testing.tiny import tiny_data, tiny_trainer
from ganzoo.watch import Silent
from ganzoo.zoo import Request, resolve


def blobs(counts, spread=0.05, seed=0):
    """Points around the corners of a square, so many around each."""
    source = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    label = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return corners[label] + spread * torch.randn(len(label), 2, generator=source), label


def cost(points, labels, count):
    means, _ = clustering.means_of(points, labels, count)
    return float((points - means[labels]).square().sum())


def test_k_means_finds_the_best_partition():
    """Against all partitions of eight points into three."""
    torch.manual_seed(0)
    points = torch.randn(8, 2)
    best = min(
        cost(points, torch.tensor(labels), 3) for labels in itertools.product(range(3), repeat=8) if len(set(labels)) == 3
    )
    found = min(cost(points, clustering.k_means(points, clustering.spread_points(points, 3))[1], 3) for _ in range(20))
    assert found == pytest.approx(best, rel=1e-5)


def test_a_starved_centre_gets_the_farthest_point():
    points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [5.0, 5.0]])
    centres, labels = clustering.k_means(points, torch.tensor([[0.0, 0.0], [90.0, 90.0]]))
    assert labels.tolist() == [0, 0, 0, 1]
    torch.testing.assert_close(centres[1], points[3])


def test_start_spreads_over_far_groups():
    points, label = blobs([30, 30, 30, 30], spread=0.001)
    torch.manual_seed(0)
    for _ in range(10):
        chosen = clustering.spread_points(points, 4)
        near = torch.cdist(chosen, points).argmin(1)
        assert sorted(label[near].tolist()) == [0, 1, 2, 3]


def test_new_labels_keep_the_old_names():
    """Whatever the order of the new labels, the old name goes to the cluster that shares most points with it."""
    _, before = blobs([5, 6, 7, 8])
    for order in itertools.permutations(range(4)):
        labels = torch.tensor(order)[before]
        names = clustering.relabelled(labels, before, 4)
        assert torch.equal(torch.argsort(names)[labels], before)


def test_principal_components_are_those_of_the_decomposition():
    torch.manual_seed(0)
    features = torch.randn(200, 6) * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.1, 0.1])
    mean, basis = clustering.principal(features, 2)
    torch.testing.assert_close(mean, features.mean(0))
    values = torch.linalg.eigvalsh((features - mean).T @ (features - mean))
    kept = ((features - mean) @ basis).square().sum()
    assert kept == pytest.approx(float(values[-2:].sum()), rel=1e-3)
    assert clustering.principal(features[:1], 4)[1].shape == (6, 4)  # fewer points than dimensions: the rest is zero


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_components_are_chosen_in_proportion_to_the_weights(prior):
    game = Mixture(components=4, points=8)
    game.spec(Spec(shape=(2,), latent=3, prior=prior))
    game.register_buffer("weights", torch.tensor([0.1, 0.2, 0.3, 0.4]))
    z = torch.randn(20_000, 3) if prior == "normal" else torch.rand(20_000, 3) * 2 - 1
    share = game.component(z).bincount(minlength=4) / len(z)
    torch.testing.assert_close(share, game.weights, atol=0.015, rtol=0)


def test_weights_keep_a_floor_and_a_sum():
    game = Mixture(components=4, floor=0.2, momentum=0.5)
    game.register_buffer("weights", torch.full((4,), 0.25))
    for _ in range(50):
        game._learn(torch.tensor([[1.0, 0, 0, 0]]).expand(8, 4))
    assert float(game.weights.sum()) == pytest.approx(1)
    assert float(game.weights.min()) == pytest.approx(0.05 / 1.15, rel=0.2)  # 0.2 / 4, before all are made to sum to 1
    assert game.weights.argmax() == 0


def trainer(**options):
    data = tiny_data(count=60)
    settings = {"game": {"components": 3, "refit": 2, "points": 60, "dimensions": 4, **options}}
    return tiny_trainer(game=Mixture, data=data, raw=settings)


@pytest.mark.parametrize("e_step", ["features", "soft", "e-net"])
@pytest.mark.parametrize("start", ["k-means", "uniform"])
def test_every_e_step_trains_and_resumes_bit_exactly(e_step, start):
    whole, first, second = (trainer(e_step=e_step, start=start) for _ in range(3))
    for _ in range(7):
        whole.round()
    for _ in range(4):
        first.round()
    checkpoint.restore(second, *checkpoint.state_of(first))
    for _ in range(3):
        second.round()
    one, two = (checkpoint.state_of(t)[0] for t in (whole, second))
    assert [key for key in one if not torch.equal(one[key], two[key])] == []
    assert all(torch.isfinite(torch.tensor(value)) for value in whole.report().terms.values())
    assert int(whole.game.refits) == 4
    r = whole.game.responsibilities(whole.nets, whole.feed.batch(0, 20).real)
    torch.testing.assert_close(r.sum(1), torch.ones(20))
    assert float(whole.game.weights.sum()) == pytest.approx(1, abs=1e-5)


def test_before_the_first_refit_a_uniform_start_knows_nothing():
    made = trainer(start="uniform")
    made.announce()
    r = made.game.responsibilities(made.nets, made.feed.batch(0, 5).real)
    torch.testing.assert_close(r, torch.full((5, 3), 1 / 3))


def test_soft_responsibilities_are_bayes_rule():
    """Against the normal densities written out."""
    made = trainer(e_step="soft", temperature=2.0)
    game = made.game
    made.announce()
    x = made.feed.batch(0, 6).real
    r = game.responsibilities(made.nets, x)
    places = (x.flatten(1) - game.pixel_mean) @ game.pixel_basis
    variance = game.variance.item() * 2
    for row, place in zip(r, places, strict=True):
        density = [
            w.item() * torch.exp(-(place - c).square().sum() / (2 * variance)).item()
            for w, c in zip(game.weights, game.centres, strict=True)
        ]
        torch.testing.assert_close(row, torch.tensor(density) / sum(density), rtol=1e-4, atol=1e-6)


def test_the_first_clusters_are_the_groups_of_the_data():
    """Bright left and bright right halves are two clusters before anything is learned."""
    data = tiny_data(count=60)
    made = tiny_trainer(game=Mixture, data=data, raw={"game": {"components": 2, "points": 60}})
    made.announce()
    found = made.game.clusters(made.nets, data.samples.float() / 127.5 - 1).argmax(1)
    left = torch.arange(60) % 2
    assert torch.equal(found, left) or torch.equal(found, 1 - left)


def test_labels_are_refused_and_so_is_nonsense():
    labelled = TensorDataset(torch.zeros(8, 1, 16, 16, dtype=torch.uint8), torch.arange(8) % 2, classes=2)
    with pytest.raises(PluginError, match="finds classes by itself"):
        tiny_trainer(game=Mixture, data=labelled)
    with pytest.raises(PluginError, match="cannot find 20 components in 10 points"):
        Mixture(components=20, points=10)
    with pytest.raises(PluginError, match="2 latents or more"):
        tiny_trainer(game=Mixture, raw={"latent": {"size": 1}})
    with pytest.raises(PluginError, match="'refit' of at least 1"):
        Mixture(refit=0)


def test_samples_of_one_component_are_asked_for_by_its_number(tmp_path):
    sets = ("data.size=16", "architecture.width=2", "train.batch=8", "train.samples=16", "train.precision=fp32")
    recipe = resolve("em-gan", Request(sets=(*sets, "game.components=3", "game.points=64")), registry())
    jobs.run_recipe(recipe, registry(), tmp_path / "run", "cpu", reporter=Silent())
    model = load(tmp_path / "run", "cpu")
    z = model.latents(4)
    assert model.labels(4) == {}  # all of the mixture, by its weights
    drawn = model.game.component(z)
    torch.testing.assert_close(model.decode(z, {}), model.decode(z, {"label": drawn}))
    torch.testing.assert_close(model.sample(4, label=2), model.decode(z, {"label": torch.full((4,), 2)}))
    with pytest.raises(RecipeError, match="class 3 does not exist; 'em-gan' has classes 0 to 2"):
        model.sample(1, label=3)
