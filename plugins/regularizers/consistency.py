"""D says the same of a real image before and after a small change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ganzoo.api import PluginError, Regularizer
from ganzoo.game import Duel

from .diffaugment import along


class Consistency(Regularizer):
    """Makes D blind to flips and small shifts of real images: CR (Zhang et al. 2020, arXiv:1910.12027).

    mean (D(T(x)) - D(x))^2 over logits at real x; gradients flow through both. T mirrors each image with probability 1/2
    (`flip`) and moves it by up to `shift` pixels each way, the borders reflected as in PyTorch-StudioGAN. The paper weighs
    it 10. Deviation: other outputs of D than its logits are not compared.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "each piece of a batch draws changes of its own"
    }

    def __init__(self, *, flip: bool = True, shift: int = 4) -> None:
        super().__init__()
        self.flip = flip
        self.shift = shift
        if shift < 0:
            raise PluginError(f"regularizer 'consistency' needs a 'shift' of 0 pixels or more, not {shift}")

    def penalty(self, duel: Duel) -> Tensor:
        """Return the mean squared difference; one of its two forward passes is the loss's."""
        return consistency(duel, "real", flip=self.flip, shift=self.shift)


def consistency(duel: Duel, side: Literal["real", "fake"], *, flip: bool, shift: int) -> Tensor:
    """Return the mean squared difference between D's logits of a side's images before and after a change."""
    x, cond = (duel.real, duel.real_cond) if side == "real" else (duel.fake, duel.fake_cond)
    return (duel.judge(changed(x, flip=flip, shift=shift), cond).logits - duel.output(side).logits).square().mean()


def changed(x: Tensor, *, flip: bool, shift: int) -> Tensor:
    """Return images [N, C, H, W] mirrored and moved, each by draws of its own."""
    if x.dim() != 4 or shift >= min(x.shape[2:]):
        raise PluginError(
            f"consistency regularizers move images [N, C, H, W] by {shift} pixels, not {list(x.shape)}; set a smaller "
            "'shift', or remove them"
        )
    if flip:
        mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
        x = torch.where(mirrored, x.flip(3), x)
    for dim in (2, 3) if shift else ():
        last = x.shape[dim] - 1
        moves = torch.randint(-shift, shift + 1, (len(x), 1), device=x.device)
        source = (torch.arange(last + 1, device=x.device) - moves).abs()  # [N, size]: where each pixel comes from
        x = x.gather(dim, along(last - (last - source).abs(), dim).expand_as(x))
    return x
