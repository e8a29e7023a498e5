"""Divides D by its own slope."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganzoo.api import DiscriminatorOutput, PluginError, Regularizer
from ganzoo.game import input_gradient

from .gradient_penalty import gradient_norm

MIXING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class GradientNormalisation(Regularizer):
    """Makes D 1-Lipschitz as a whole, not layer by layer (Wu et al. 2021, arXiv:2109.02235).

    D(x) becomes f(x) / (|df/dx| + |f(x)|), between -1 and 1, where f is the network. It is that D which losses and other
    regularizers see, so their gradients need the network's second derivatives. f must give one logit a sample and judge
    each sample on its own: no batch norm.
    """

    def prepare(self, net: nn.Module) -> None:
        """Put the division behind the network's forward pass."""
        if any(isinstance(layer, MIXING) for layer in net.modules()):
            raise PluginError(
                "regularizer 'gradient-normalisation' needs the slope at each sample alone, and "
                f"{type(net).__name__} has batch norm; switch that off, or choose another discriminator"
            )
        kind = type(net)
        if not issubclass(kind, Normalised):  # a second one finds it done
            net.__class__ = type(f"Normalised{kind.__name__}", (Normalised, kind), {})


class Normalised(nn.Module):
    """What becomes of a discriminator's class: its forward pass, and the division by its slope."""

    def forward(self, x: Tensor, **cond: Any) -> DiscriminatorOutput:
        """Return the network's output with other logits [N]."""
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            output = super().forward(x, **cond)
            if not isinstance(output, DiscriminatorOutput):
                output = DiscriminatorOutput(output)
            f = output.logits.float()
            if f.numel() != len(x):
                raise PluginError(
                    f"regularizer 'gradient-normalisation' needs one logit a sample, not {list(f.shape)}; choose another "
                    "discriminator"
                )
            f = f.flatten()
            logits = f / (gradient_norm(input_gradient(f, x)) + f.abs())
        return output._replace(logits=logits if learning else logits.detach())
