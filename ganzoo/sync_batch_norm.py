"""Batch norm over the batches of all processes of a launch, on any device."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import RecipeError
from .world import World


class _Sum(torch.autograd.Function):
    """The sum over all processes; what each of them makes of it comes back as a sum too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.sum(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # this gradient is to be differentiated once more
            raise RecipeError(
                "train.sync_batch_norm has no double backward, which a penalty on this network's input gradient needs; set "
                "it to false, or choose a discriminator without batch norm"
            )
        return ctx.world.sum(gradient), None


class SyncBatchNorm(_BatchNorm):
    """A batch norm whose mean and variance are those of the global batch (as torch.nn.SyncBatchNorm, which needs a GPU)."""

    world: World

    @classmethod
    def of(cls, norm: _BatchNorm, world: World) -> SyncBatchNorm:
        """Return one with the parameters and buffers of a plain batch norm."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.weight, made.bias, made.world = norm.weight, norm.bias, world
        made.running_mean, made.running_var, made.num_batches_tracked = (
            norm.running_mean, norm.running_var, norm.num_batches_tracked,
        )  # fmt: skip
        made.train(norm.training)
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm takes samples [N, channels, ...], not {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [N, channels, ...] over all processes in training, as ever otherwise."""
        if not self.training:
            normal: Tensor = super().forward(input)
            return normal
        self._check_input_dim(input)
        x = input.float()
        dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        count = x.numel() // x.shape[1] * self.world.size
        mean = cast("Tensor", _Sum.apply(x.sum(dims), self.world)) / count
        centred = x - mean.view(shape)
        variance = cast("Tensor", _Sum.apply(centred.square().sum(dims), self.world)) / count
        self._follow(mean.detach(), variance.detach() * count / max(count - 1, 1))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics as torch does: the unbiased variance, and a plain average where momentum is None."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def synchronise(net: nn.Module, world: World) -> nn.Module:
    """Exchange every batch norm of a network; names and values of parameters and buffers stay."""
    if isinstance(net, _BatchNorm):
        return SyncBatchNorm.of(net, world)
    for name, child in net.named_children():
        setattr(net, name, synchronise(child, world))
    return net
