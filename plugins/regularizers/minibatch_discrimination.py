"""Lets D see how alike the samples of a batch are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import DiscriminatorOutput, PluginError, Regularizer
from ganzoo.layers.features import feature_width
from ganzoo.layers.minibatch import MinibatchDiscrimination as Closeness

HEAD = "minibatch"  # the name of the layers in the discriminator


class MinibatchDiscrimination(Regularizer):
    """Shows D's last layer how close a sample is to the others of its batch (Salimans et al. 2016, arXiv:1606.03498).

    The logit gets the term v . o beside the network's own last layer, o being `kernels` sums over the other samples of
    exp(-|M f_i - M f_j|_1) with `dims` numbers M f each: as if that layer saw o appended to the features f. M and v belong
    to the discriminator and start from N(0, 1 / F) and N(0, 0.02). Deviations: the authors scale M by their first batch,
    here each sample's features are brought to mean 0 and variance 1 before M; and `features`, which other regularizers see,
    stay without o. D mixes samples then, so no penalty on the gradient of each sample fits.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "samples are compared within each piece of a batch"
    }

    def __init__(self, *, kernels: int = 100, dims: int = 5) -> None:
        super().__init__()
        self.kernels = kernels
        self.dims = dims
        if kernels < 1 or dims < 1:
            raise PluginError(
                f"regularizer 'minibatch-discrimination' needs 'kernels' and 'dims' of at least 1, not {kernels} and {dims}"
            )

    def prepare(self, net: nn.Module) -> None:
        """Give a discriminator the layers, and the term."""
        if hasattr(net, HEAD):
            raise PluginError(
                f"regularizer 'minibatch-discrimination' finds a {HEAD!r} in {type(net).__name__} already; name it once"
            )
        width = feature_width(net, "regularizer 'minibatch-discrimination'")
        net.add_module(HEAD, Head(width, self.kernels, self.dims))
        net.register_forward_hook(with_term)


class Head(nn.Module):
    """Features [N, F] to one term of the logit, [N]."""

    def __init__(self, features: int, kernels: int, dims: int) -> None:
        super().__init__()
        self.closeness = Closeness(features, kernels, dims)
        self.linear = nn.Linear(kernels, 1, bias=False)
        nn.init.normal_(self.linear.weight, 0.0, 0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Return the term."""
        term: Tensor = self.linear(self.closeness(F.layer_norm(features, features.shape[1:]))).squeeze(1)
        return term


def with_term(net: nn.Module, given: Any, output: DiscriminatorOutput) -> DiscriminatorOutput:
    """Return a discriminator's output with the term in each of its logits."""
    if output.features is None:
        raise PluginError(f"{type(net).__name__} says its 'feature_width', and gives no features; mend the architecture")
    term = net.get_submodule(HEAD)(output.features)
    return output._replace(logits=output.logits + term.view(-1, *[1] * (output.logits.dim() - 1)))
