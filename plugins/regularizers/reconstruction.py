"""A discriminator that must not forget what it saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import PluginError, Regularizer, Spec
from ganzoo.game import Duel
from ganzoo.layers.features import feature_width, map_shapes
from ganzoo.layers.resampling import DoubleConvolve

CHANNELS = {8: 8, 16: 4, 32: 2, 64: 2, 128: 1}  # of a decoder's resolution, in widths
LARGEST = 128  # pixels of a reconstruction
WHOLE = 8  # pixels up to which a map is decoded as a whole; of a larger one, a quarter


class Reconstruction(Regularizer):
    """Makes D's maps hold enough to make real images again, as FastGAN's D does (Liu et al. 2021, arXiv:2101.04775).

    A decoder of its own for each map that D gives learns E |decoder(map) - T(x)|^2 of real x as D saw them, augmented if
    they were; T shrinks to half the size or 128 pixels, whichever is less. Of a map larger than 8x8 the decoder gets a
    random quarter, the same for the whole batch, and T keeps that quarter of x. Decoders double with 3x3 convolutions,
    batch norm and gated linear units; `width` counts channels at 128 pixels, published: 32. They learn with D's optimizer.
    A D that gives no maps is asked for its features, which a linear layer makes a 4x4 map of.
    Deviation: the authors compare through a perceptual distance (LPIPS) and norm the decoders' weights spectrally.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "the decoders' batch norm takes its statistics over each piece of a batch"
    }

    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.decoders: nn.ModuleList | None = None
        self._spec = Spec(())
        if width < 1:
            raise PluginError(f"regularizer 'reconstruction' needs a 'width' of at least 1, not {width}")

    def shown(self, spec: Spec) -> Spec:
        """Note what D is shown; PluginError where these are no square images."""
        if len(spec.shape) != 3 or spec.shape[1] != spec.shape[2]:
            raise PluginError(f"regularizer 'reconstruction' makes square images again, not {tuple(spec.shape)}; remove it")
        self._spec = spec
        return spec

    def prepare(self, net: nn.Module) -> None:
        """Build the decoders."""
        channels, size = self._spec.shape[0], self._spec.shape[1]
        target = min(size // 2, LARGEST)
        shapes = map_shapes(net)
        self.decoders = nn.ModuleList(
            Decoder(width, each if each <= WHOLE else each // 2, target, channels, self.width) for width, each in shapes
        )
        if not shapes:
            width = feature_width(net, "regularizer 'reconstruction'")
            start = CHANNELS[WHOLE] * self.width
            spread = nn.Sequential(nn.Linear(width, start * 16), nn.Unflatten(1, (start, 4, 4)))
            self.decoders.append(nn.Sequential(spread, Decoder(start, 4, target, channels, self.width)))

    def penalty(self, duel: Duel) -> Tensor:
        """Return the squared errors of all decoders."""
        assert self.decoders is not None
        seen, maps = self._looked_at(duel)
        errors = []
        for decoder, one in zip(self.decoders, maps, strict=True):
            whole = seen
            if one.dim() == 4 and one.shape[-1] > WHOLE:
                chosen = F.one_hot(torch.randint(4, (1,), device=one.device), 4)[0]
                one, whole = quarter(one, chosen), quarter(seen, chosen)
            made = decoder(one)
            errors.append((made.float() - F.interpolate(whole, size=made.shape[2:], mode="area")).square().mean())
        return torch.stack(errors).sum()

    def _looked_at(self, duel: Duel) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the real samples as D saw them, and what it kept of them."""
        output = duel.output("real")
        if output.maps:
            return output.maps[0].detach().float(), output.maps[1:]
        if not duel.views and output.features is not None:
            return duel.real, (output.features,)
        x = duel.real  # what views have made of it, nobody can tell afterwards
        for view in duel.views:
            x = view(x)
        return x.detach(), (duel.discriminator(x, **duel.real_cond).features,)


class Decoder(nn.Sequential):
    """Maps [N, width, size, size] to images [N, channels, target, target] in [-1, 1]."""

    def __init__(self, width: int, size: int, target: int, channels: int, unit: int) -> None:
        layers: list[nn.Module] = []
        while size < target:
            size *= 2
            out = CHANNELS[size] * unit
            layers += [DoubleConvolve(width, 2 * out, bias=False), nn.BatchNorm2d(2 * out), nn.GLU(1)]
            width = out
        super().__init__(*layers, nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.Tanh())


def quarter(x: Tensor, chosen: Tensor) -> Tensor:
    """Return the quarter [N, C, H/2, W/2] of maps that a one-hot vector [4] chooses; no device waits for the choice."""
    size = x.shape[-1] // 2
    quarters = (x[..., :size, :size], x[..., :size, size:], x[..., size:, :size], x[..., size:, size:])
    return torch.stack([weight * part for weight, part in zip(chosen.to(x.dtype), quarters, strict=True)]).sum(0)
