"""A generator whose steps are as long wherever one walks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ganzoo.api import PluginError, Regularizer, Side
from ganzoo.game import Cond, Duel, Generate, input_gradient

from .gradient_penalty import gradient_norm


class PathLength(Regularizer):
    """Keeps equal steps of G's latents equally long in images (Karras et al. 2020, arXiv:1912.04958).

    mean (|J^T y| - a)^2 with J the Jacobian of G's sample, y normal noise of variance 1 / (H W) and `a` the moving average
    of |J^T y|, which takes `decay` of each batch. J is that of synthesis(w) for w = mapping(z) where G has these two, else
    that of G for z; over several w of a sample |J^T y|^2 is the mean. The first N / `shrink` latents of a batch do. The
    paper weighs it 2 and plays it in every fourth turn of G.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "each piece of a batch draws noise of its own and moves the average"
    }

    side: Side = "generator"
    average: Tensor

    def __init__(self, *, decay: float = 0.01, shrink: int = 2) -> None:
        super().__init__()
        self.decay = decay
        self.shrink = shrink
        if not 0 < decay <= 1:
            raise PluginError(f"regularizer 'path-length' needs a 'decay' in (0, 1], not {decay}")
        if shrink < 1:
            raise PluginError(f"regularizer 'path-length' needs a 'shrink' of at least 1, not {shrink}")
        self.nets: tuple[nn.Module, ...] = ()  # a tuple, so that they are no modules of this one
        self.register_buffer("average", torch.zeros(()))

    def prepare(self, net: nn.Module) -> None:
        """Note a generator that has a mapping."""
        if hasattr(net, "mapping") and hasattr(net, "synthesis"):
            self.nets = (*self.nets, net)

    def penalty(self, duel: Duel) -> Tensor:
        """Return the mean squared distance of the lengths to their average, which moves."""
        if duel.generate is None or duel.z is None:
            raise PluginError("regularizer 'path-length' needs a game whose fakes are made of latents; remove it")
        count = max(len(duel.z) // self.shrink, 1)
        cond = {key: value[:count] for key, value in duel.fake_cond.items()}
        w, x = self._sampled(duel.z[:count].detach(), cond, duel.generate)
        noise = torch.randn_like(x) / x.shape[2:].numel() ** 0.5
        several = w.shape[1] if w.dim() == 3 else 1  # [N, w] or [N, several, w]
        length = gradient_norm(input_gradient(x * noise, w)) / several**0.5
        average = torch.lerp(self.average, length.mean(), self.decay)
        self.average.copy_(average.detach())
        return (length - average).square().mean()

    def _sampled(self, z: Tensor, cond: Cond, generate: Generate) -> tuple[Tensor, Tensor]:
        """Return the latents whose steps count, and the samples that are made of them."""
        if len(self.nets) == 1:
            (net,) = self.nets
            w = net.mapping(z, **cond)
            return w, net.synthesis(w).float()
        z.requires_grad_()
        return z, generate(z, cond).float()
