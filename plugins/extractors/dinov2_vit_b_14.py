"""DINOv2's features, through torch-fidelity and the cache of torch.hub."""

from __future__ import annotations

from ganzoo.pretrained import FidelityExtractor


class DINOv2ViTB14(FidelityExtractor):
    """768 numbers of DINOv2 ViT-B/14 (Oquab et al. 2023, arXiv:2304.07193), which agree with people best.

    So found Stein et al. 2023 (arXiv:2306.04675). The network's code and weights (346 MB) are taken from torch.hub's cache,
    where they must be already; the code there runs as it is. No hash of the weights is published: the id carries theirs.
    """

    def __init__(self) -> None:
        super().__init__(
            "dinov2-vit-b-14",
            "dinov2-vit-b-14",
            "dinov2",
            file="dinov2_vitb14_pretrain.pth",
            sha256="",
            source="torch.hub's facebookresearch/dinov2 (dinov2_vitb14)",
            hub="facebookresearch_dinov2_main",
        )
