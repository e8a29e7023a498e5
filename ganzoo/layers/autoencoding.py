"""A discriminator that is an auto-encoder: what it reconstructs badly it takes for fake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor, nn

from ganzoo.api import DiscriminatorOutput

from .conditional import LabelledMap

__all__ = ["AutoEncodingDiscriminator", "ErrorKind", "Judgement"]

ErrorKind = Literal["l1", "l2"]
Judgement = Literal["energy", "score"]

ERRORS: Mapping[str, Callable[[Tensor], Tensor]] = {"l1": Tensor.abs, "l2": Tensor.square}
SIGNS: Mapping[str, int] = {"energy": 1, "score": -1}


class AutoEncodingDiscriminator(nn.Module):
    """Images [N, channels, size, size] to the energy of each, [N], and its code, [N, code], as features.

    The energy is the mean over all numbers of an image of the absolute ("l1") or squared ("l2") reconstruction error; the
    gradient to the image runs through both sides of the difference. With `output` "score" logits are the negated energies.
    A label reaches the encoder through `condition`.
    """

    def __init__(
        self, condition: LabelledMap, encoder: nn.Module, decoder: nn.Module, code: int, error: ErrorKind, output: Judgement
    ) -> None:
        super().__init__()
        self.feature_width = code
        self.condition = condition
        self.encoder = encoder
        self.decoder = decoder
        self.error: ErrorKind = error
        self.output: Judgement = output

    def encode(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the codes [N, code]."""
        code: Tensor = self.encoder(self.condition(x, label if self.condition.classes else None))
        return code

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        code = self.encode(x, label)
        difference = self.decoder(code).float() - x.float()  # half precision has too few digits for small errors
        energy = ERRORS[self.error](difference).flatten(1).mean(1)
        return DiscriminatorOutput(SIGNS[self.output] * energy, code)
