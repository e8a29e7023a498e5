"""Keeps what a discriminator has learned before of pictures' details, for fine-tuning on few samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import nn
from torch.nn.utils import parametrize

from ganzoo.api import PluginError, Regularizer

INNER = "parametrizations"  # the part of a name below which a reparametrised weight lies


class FreezeD(Regularizer):
    """Leaves the first `layers` layers of D, from the image side, as they are (Mo et al. 2020, arXiv:2002.10964).

    It goes with `train.init`: without weights of another training the layers keep their random ones. A layer is a module
    with parameters of its own, in the order in which D registers them, which is that of its forward pass; tables that are
    looked up by label are not counted and are trained. Deviation: the authors count a projection discriminator's residual
    blocks, here each convolution counts, in a block's shortcut too. Batch norm's running statistics still follow the data.
    """

    strength: ClassVar[str] = "layers"

    def __init__(self, *, layers: int = 2) -> None:
        super().__init__()
        self.layers = layers
        if layers < 1:
            raise PluginError(f"regularizer 'freeze-d' needs 'layers' of at least 1, not {layers}")

    def prepare(self, net: nn.Module) -> None:
        """Take the first layers out of the training."""
        found = list(_layers(net))
        if self.layers >= len(found):
            raise PluginError(
                f"regularizer 'freeze-d' would freeze {self.layers} of the {len(found)} layers of {type(net).__name__} and "
                f"leave none to train; set 'layers' below {len(found)}"
            )
        for layer in found[: self.layers]:
            for parameter in layer:
                parameter.requires_grad_(False)


def _layers(net: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Yield the own parameters of each module that has some; a reparametrised weight is its layer's."""
    for name, module in net.named_modules():
        if INNER not in name.split(".") and not isinstance(module, nn.Embedding):
            own = list(module.parameters(recurse=False))
            if parametrize.is_parametrized(module):
                own += module.get_submodule(INNER).parameters()
            if own:
                yield own
