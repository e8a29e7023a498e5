"""EM-GAN: a mixture of generators with one set of weights, trained by expectation-maximisation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import Batch, Game, Look, PluginError, Progress, Spec
from ganzoo.game import Duel, Scene
from ganzoo.layers.features import feature_width

from ._clustering import k_means, means_of, principal, relabelled, spread_points, squared_distances
from ._quantiles import quantile

CHUNK = 1000  # samples whose features are taken at a time


class Mixture(Game):
    """Expectation-maximisation over a mixture of generators, which finds clusters on the way (arXiv:1812.00335).

    p(x) = sum over k of pi_k p_G(x | k): G and D are told the component as conditional networks are told a class. E-step:
    every `refit` rounds, k-means on D's features of `points` real samples, warm-started and matched to the old
    components, gives the responsibilities r_k(x) until the next one; the first is on principal components of the samples
    themselves, from a k-means++ start. M-step: any loss and regularizers, D facing x as a sample of component y ~ r(x)
    and G(z, c) as one of c ~ pi. The weights pi follow the mean responsibilities by `momentum` a scene, none below
    `floor` / components.

    `e_step`: `features` takes y as the nearest centre (self-conditioned GAN: Liu et al. 2020, arXiv:2006.10728); `soft`
    draws it from a mixture of equal spherical Gaussians around the centres, of temperature `temperature`; `e-net` from a
    classifier E that learns from generated samples alone which component made them (GAN-EM: Zhao et al. 2018,
    arXiv:1812.00335): with c ~ pi the best E is the posterior of the current mixture. `start = "uniform"` begins as
    GAN-EM does, with all components alike, until the first refit.
    Deviations from GAN-EM: components by condition and not by K + 1 logits, y drawn instead of a sum over k (the same in
    the mean), learned weights, one continuous training instead of rounds with fresh optimizers. The data's own classes
    are not used. Give D a zero-centred penalty: EM alone does not keep a component that holds many modes from collapsing.
    """

    roles: Mapping[str, str] = {"G": "generator", "D": "discriminator"}  # and E: classifier, for its own E-step
    teams: Mapping[str, tuple[str, ...]] = {"D": ("D",), "G": ("G",)}
    discriminators = frozenset({"D"})
    shared = True
    weights: Tensor
    centres: Tensor
    pixel_mean: Tensor
    pixel_basis: Tensor
    feature_mean: Tensor
    feature_basis: Tensor
    variance: Tensor
    labels: Tensor
    refits: Tensor

    def __init__(
        self,
        *,
        components: int = 10,
        e_step: Literal["features", "soft", "e-net"] = "features",
        start: Literal["k-means", "uniform"] = "k-means",
        refit: int = 1000,
        points: int = 10_000,
        dimensions: int = 50,
        temperature: float = 1.0,
        momentum: float = 0.005,
        floor: float = 0.1,
    ) -> None:
        super().__init__()
        self.components, self.e_step, self.start, self.refit = components, e_step, start, refit
        self.points, self.dimensions, self.temperature = points, dimensions, temperature
        self.momentum, self.floor = momentum, floor
        for option, value, least in (("components", components, 1), ("refit", refit, 1), ("dimensions", dimensions, 1)):
            if value < least:
                raise PluginError(f"game 'mixture' needs {option!r} of at least {least}, not {value}")
        if points < components:
            raise PluginError(f"game 'mixture' cannot find {components} components in {points} points; set more 'points'")
        if not (0 <= momentum <= 1 and 0 <= floor < 1 and temperature > 0):
            raise PluginError("game 'mixture' needs momentum in [0, 1], floor in [0, 1) and a temperature above 0")
        learns = e_step == "e-net"
        self.roles = {"G": "generator", "D": "discriminator"} | ({"E": "classifier"} if learns else {})
        self.teams = {"D": ("D",), "G": ("G",)} | ({"E": ("E",)} if learns else {})
        self._data: tuple[Look, ...] = ()
        self._begun = False  # have D's features taken over? A number of Python's, as a turn must not wait for the device

    def spec(self, spec: Spec) -> Spec:
        """Return a spec with the components for classes; one latent is kept to choose among them."""
        if spec.classes:
            raise PluginError("game 'mixture' finds classes by itself; take the data without labels (data.labels = false)")
        if spec.latent < 2:
            raise PluginError(f"game 'mixture' needs 2 latents or more, one of them for the component, not {spec.latent}")
        self._prior = spec.prior
        self._width = torch.Size(spec.shape).numel()
        return replace(spec, classes=self.components, latent=spec.latent - 1)

    def prepare(self, nets: Mapping[str, nn.Module], look: Look | None) -> None:
        """Keep a still copy of D, whose features the E-step is made of."""
        width = feature_width(nets["D"], "game 'mixture'")
        self.phi = copy.deepcopy(nets["D"]).eval().requires_grad_(False)
        sizes = {"pixel_mean": (self._width,), "pixel_basis": (self._width, self.dimensions), "feature_mean": (width,)}
        sizes |= {"feature_basis": (width, self.dimensions), "centres": (self.components, self.dimensions), "variance": ()}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size))
        self.register_buffer("weights", torch.full((self.components,), 1 / self.components))
        self.register_buffer("labels", torch.zeros(self.points, dtype=torch.int64))
        self.register_buffer("refits", torch.zeros((), dtype=torch.int64))
        self._data = (look,) if look is not None else ()
        self._nets = (nets,)  # in a tuple: the players own them, not the game

    def turns(self) -> tuple[str, ...]:
        """Return one turn of each, E last."""
        return ("D", "G", "E") if self.e_step == "e-net" else ("D", "G")

    def on_progress(self, progress: Progress) -> None:
        """Refit the components where a round begins at which it is due, once."""
        due = 1 + progress.rounds // self.refit
        if self._data and self.refits < due:
            real = self._data[0](self.points).real
            with torch.random.fork_rng([real.device] if real.is_cuda else []):
                torch.manual_seed(
                    0
                )  # the same in all processes of a launch; what differs with the run's seed is the samples
                self._refit(real, first=progress.rounds == 0)
            self.refits.fill_(due)
        self._begun = bool(self.refits > 1)

    @torch.no_grad()
    def _refit(self, real: Tensor, *, first: bool) -> None:
        """Find the components anew in the features that D has learned, or at first in the samples themselves."""
        if first:
            mean, basis = principal(real.float().flatten(1), self.dimensions)
            self.pixel_mean.copy_(mean), self.pixel_basis.copy_(basis)
        else:
            self.phi.load_state_dict(self._nets[0]["D"].state_dict())
            mean, basis = principal(self._features(real), self.dimensions)
            self.feature_mean.copy_(mean), self.feature_basis.copy_(basis)
        places = self._pixels(real) if first else (self._features(real) - self.feature_mean) @ self.feature_basis
        start = spread_points(places, self.components) if first else means_of(places, self.labels, self.components)[0]
        centres, labels = k_means(places, start)
        if not first:
            order = relabelled(labels, self.labels, self.components)
            centres, labels = centres[order], torch.argsort(order)[labels]
        self.centres.copy_(centres), self.labels.copy_(labels)
        self.variance.copy_((places - centres[labels]).square().mean().clamp(min=1e-12))
        if first and self.start == "k-means":
            self.weights.copy_(self._kept(torch.bincount(labels, minlength=self.components) / len(labels)))

    def _pixels(self, x: Tensor) -> Tensor:
        return (x.float().flatten(1) - self.pixel_mean) @ self.pixel_basis

    def _features(self, x: Tensor) -> Tensor:
        """Return the still copy's features [N, F], all under one label, so that they tell of the samples alone."""
        label = torch.zeros(CHUNK, dtype=torch.int64, device=x.device)
        pieces = [self.phi(part, label=label[: len(part)]).features for part in x.split(CHUNK)]
        return torch.cat(pieces).float().flatten(1)

    @torch.no_grad()
    def responsibilities(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """Return r_k(x), how far each component accounts for samples [N, *shape]: [N, components], rows sum to 1."""
        begun = self._begun
        if not begun and self.start == "uniform":
            return torch.full((len(x), self.components), 1 / self.components, device=x.device)
        if self.e_step == "e-net" and begun:
            logits: Tensor = nets["E"](x)
            return logits.float().softmax(1)
        places = (self._features(x) - self.feature_mean) @ self.feature_basis if begun else self._pixels(x)
        squared = squared_distances(places, self.centres)
        if self.e_step == "features":
            return F.one_hot(squared.argmin(1), self.components).float()
        return (self.weights.log() - squared / (2 * self.variance * self.temperature)).softmax(1)

    def component(self, z: Tensor) -> Tensor:
        """Return which component each latent [N, latent] chooses by its first entry: k with probability pi_k."""
        share = quantile(z[:, 0].double(), self._prior)
        return torch.searchsorted(self.weights.double().cumsum(0), share).clamp(max=self.components - 1)

    def play(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor, acting: str) -> Scene:
        """M-step: D judges x as a sample of y ~ r(x), and G(z, c) as one of c ~ pi; E learns which c made a sample."""
        c = self.component(z)

        def generate(latents: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
            made: Tensor = nets["G"](latents[:, 1:], **cond)
            return made

        fake = generate(z, {"label": c})
        if acting == "E":
            guess = nets["E"](fake.detach().to(batch.real.dtype))
            return Scene(extra_losses={"component": F.cross_entropy(guess.float(), c)})
        r = self.responsibilities(nets, batch.real)
        self._learn(r)
        y = torch.multinomial(r, 1)[:, 0]
        duel = Duel(
            nets["D"], batch.real, fake, real_cond={"label": y}, fake_cond={"label": c}, generate=generate, z=z
        )  # fmt: skip
        return Scene([duel])

    @torch.no_grad()
    def _learn(self, r: Tensor) -> None:
        """Let the weights follow the mean responsibilities."""
        self.weights.copy_(self._kept(self.weights.lerp(r.mean(0), self.momentum)))

    def _kept(self, weights: Tensor) -> Tensor:
        """Return weights that sum to 1 and let no component die."""
        kept = weights.clamp(min=self.floor / self.components)
        return kept / kept.sum()

    def sample(self, nets: Mapping[str, nn.Module], z: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Return samples of the whole mixture, or of the components that `label` names."""
        made: Tensor = nets["G"](z[:, 1:], label=cond.get("label", self.component(z)))
        return made

    def clusters(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """Return how far each cluster accounts for samples [N, *shape]: [N, components], rows sum to 1."""
        return self.responsibilities(nets, x)
