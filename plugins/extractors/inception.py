"""The Inception network of the FID, through torch-fidelity."""

from __future__ import annotations

from ganzoo.pretrained import FidelityExtractor


class Inception(FidelityExtractor):
    """Features of TensorFlow's Inception of 2015: with its verified weights, and only then, the distance is FID.

    2048 numbers and 1008 logits for each image, resized to 299 pixels as TensorFlow 1 did (Heusel et al. 2017,
    arXiv:1706.08500). The weights (95.6 MB) are torch-fidelity's file; `unverified` accepts another one under its own hash,
    whose distances are then named FD like all others.
    """

    def __init__(self, *, weights: str = "", unverified: bool = False) -> None:
        super().__init__(
            "inception",
            "inception-v3-compat",
            "2048",
            logits="logits_unbiased",
            file="weights-inception-2015-12-05-6726825d.pth",
            sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            source="the release v0.2.0 of toshas/torch-fidelity",
            weights=weights,
            unverified=unverified,
        )
        self.reserved = "FID" if self.verified else ""
