"""Networks with published weights: found on this machine, never downloaded, and verified before they are opened."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from .api import DataError, Extractor


def weights_cache() -> Path:
    """Return the folder in which torch-fidelity looks for weights: $TORCH_HOME/hub/checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(file: str) -> Path | None:
    """Return a file of weights from $GANZOO_WEIGHTS (itself or its folder) or torch-fidelity's cache, or None."""
    own = os.environ.get("GANZOO_WEIGHTS", "")
    places = [Path(own), Path(own) / file] if own else []
    return next((place for place in [*places, weights_cache() / file] if place.is_file()), None)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from None


class FidelityExtractor(Extractor):
    """One of torch-fidelity's own networks, with weights from a file whose SHA-256 is known before it is opened.

    `network` is torch-fidelity's name, `layer` and `logits` its layers, `file` the name of the weights in its cache.
    Without the right file there is no extractor: nothing is downloaded, and another hash is refused unless `unverified`.
    Where no hash is published (`sha256` empty) the id carries that of the file that is there. A network whose code
    torch.hub keeps (`hub`, its folder) finds the file itself.
    """

    def __init__(
        self,
        name: str,
        network: str,
        layer: str,
        *,
        logits: str = "",
        file: str,
        sha256: str,
        source: str,
        weights: str = "",
        unverified: bool = False,
        hub: str = "",
    ) -> None:
        super().__init__()
        if hub and not (Path(torch.hub.get_dir()) / hub).is_dir():
            raise DataError(
                f"extractor {name!r} runs code from {Path(torch.hub.get_dir()) / hub}, which is not there; fill "
                f"torch.hub's cache with {source} on a machine with network, and read that code before you trust it"
            )
        path = Path(weights).expanduser() if weights else find_weights(file)
        if path is None:
            known = f" (SHA-256 {sha256})" if sha256 else ""
            raise DataError(
                f"extractor {name!r} needs the file {file}{known}; fetch it from {source}, then give --weights FILE or put "
                f"it into {weights_cache()}"
            )
        found = sha256_of(path)
        self.weights, self.unverified, self.verified = weights, unverified, found == sha256
        if sha256 and not self.verified and not unverified:
            raise DataError(
                f"{path} is not the file of extractor {name!r}: its SHA-256 is {found}, not {sha256}; fetch it again from "
                f"{source}"
            )
        self.id, self.layer = f"{name}@{found[:8]}", layer
        layers = [layer, *filter(None, [logits])]
        from .fidelity import network as build  # torch-fidelity changes settings of the process when it is imported

        self.network = build(network, layers, "" if hub else str(path))
        self.eval()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return features of images uint8 [N, C, H, W]; grey ones are repeated in three channels."""
        found = self.network(images if images.shape[1] == 3 else images.repeat(1, 3, 1, 1))
        return (found[0].float(), found[1].float()) if len(found) > 1 else found[0].float()
