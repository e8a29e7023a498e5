"""CLIP's image tower, through torch-fidelity."""

from __future__ import annotations

from ganzoo.pretrained import FidelityExtractor


class CLIPViTB32(FidelityExtractor):
    """512 numbers of CLIP ViT-B/32 (Radford et al. 2021, arXiv:2103.00020), which saw no ImageNet labels.

    Distances in these features are CLIP-FID's (Kynkäänniemi et al. 2023, arXiv:2203.06026). The weights (354 MB) are
    OpenAI's TorchScript file.
    """

    def __init__(self, *, weights: str = "", unverified: bool = False) -> None:
        digest = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
        super().__init__(
            "clip-vit-b-32",
            "clip-vit-b-32",
            "clip",
            file=f"clip-vit-b-32-{digest}.pt",
            sha256=digest,
            source="OpenAI's repository CLIP (ViT-B-32.pt)",
            weights=weights,
            unverified=unverified,
        )
