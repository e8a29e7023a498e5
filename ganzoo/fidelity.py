"""The only module that knows torch-fidelity: its feature path, its metrics and its networks, without their traps.

What is guarded against is listed in docs/decisions/0011-scoring-through-torch-fidelity.md: its cache is never used (it is
keyed by names and opens pickles), no unknown setting reaches it (it would be ignored in silence), it draws no latents, no
labels and nothing of the caller's generators, and no file of weights is opened before its SHA-256 is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch_fidelity
from torch import Tensor, nn
from torch_fidelity import defaults, metric_fid, metric_isc, metric_kid, metric_prc, registry, utils
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.generative_model_base import GenerativeModelBase

from .api import DataError, Extractor, PluginError

VERSION: str = torch_fidelity.__version__
Images = Callable[[int, int], Tensor]  # samples start to stop, uint8 [stop - start, C, H, W]


@dataclass(frozen=True)
class Features:
    """What an extractor says of N images: features [N, F] and, where it classifies, logits [N, K]; float32 on the CPU."""

    values: Tensor
    logits: Tensor | None = None


def settings(**asked: Any) -> dict[str, Any]:
    """Return settings for torch-fidelity; PluginError for a name that it does not know and would ignore."""
    for name in asked:
        if name not in defaults.DEFAULTS:
            raise PluginError(f"torch-fidelity {VERSION} has no setting {name!r}; ganzoo needs torch-fidelity>=0.4,<0.6")
    return {"cuda": False, "verbose": False, "cache": False, **asked}


class _Indexed(GenerativeModelBase):  # type: ignore[misc]
    """Samples by position instead of by torch-fidelity's latents, which depend on the batch where there are labels."""

    z_size, z_type, num_classes = 1, "normal", 0

    def __init__(self, images: Images) -> None:
        super().__init__()
        self.images, self.position = images, 0

    def forward(self, z: Tensor) -> Tensor:
        """Return the next images, as many as there are rows in z."""
        start, self.position = self.position, self.position + len(z)
        return self.images(start, self.position)


def _joint(extractors: Sequence[Extractor], chunk: int, device: torch.device) -> type[FeatureExtractorBase]:
    """Return torch-fidelity's view of extractors: all of them in one pass, in chunks of one size."""
    names = tuple(f"{extractor.id}/{part}" for extractor in extractors for part in ("features", "logits"))

    class Joint(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name: str, features_list: Sequence[str], **_: Any) -> None:
            super().__init__(name, list(features_list))

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            parts = [_outputs(extractors, piece.to(device), chunk) for piece in torch.split(images, chunk)]
            columns = dict(zip(names, (torch.cat(column) for column in zip(*parts, strict=True)), strict=True))
            return tuple(columns[name] for name in self.features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return names

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return names[1] if metric == "isc" else names[0]

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

    return Joint


def _outputs(extractors: Sequence[Extractor], images: Tensor, chunk: int) -> list[Tensor]:
    """Return features and logits of each extractor; a short chunk is filled up, so that every one is computed alike."""
    count = len(images)
    if count < chunk:
        images = torch.cat([images, images.new_zeros((chunk - count, *images.shape[1:]))])
    columns: list[Tensor] = []
    for extractor in extractors:
        output = extractor(images)
        features, logits = output if isinstance(output, tuple) else (output, output.new_zeros(len(output), 0))
        columns += [features[:count].float().cpu(), logits[:count].float().cpu()]
    return columns


def register(extractor: Extractor, chunk: int = 64, device: torch.device | str = "cpu") -> str:
    """Make one extractor known to torch-fidelity's own functions in this process and return the name it has there.

    The name is content-addressed, since torch-fidelity uses it as a cache key: id and chunk.
    """
    return _register([extractor], chunk, torch.device(device))


def _register(extractors: Sequence[Extractor], chunk: int, device: torch.device) -> str:
    joint = _joint(extractors, chunk, device)
    text = "\n".join([*joint.get_provided_features_list(), str(chunk), str(device)])
    name = "ganzoo-" + hashlib.sha256(text.encode()).hexdigest()[:16]
    registry.FEATURE_EXTRACTORS_REGISTRY.pop(name, None)  # the same content: an extractor that was built anew
    registry.register_feature_extractor(name, joint)
    return name


def extract(
    images: Images,
    count: int,
    extractors: Sequence[Extractor],
    *,
    chunk: int = 64,
    batch: int = 64,
    device: torch.device | str = "cpu",
) -> list[Features]:
    """Return the features of samples 0 to `count`, for each extractor, in one pass over the samples.

    Networks see `chunk` samples at a time; `batch`, what is held at once, is rounded up to whole chunks. So no score
    depends on it, and none of the caller's generators, modes or devices is touched.
    """
    if count < 1:
        raise DataError(f"{count} samples cannot be scored; ask for at least 2")
    for extractor in extractors:
        extractor.to(device).eval().requires_grad_(False)
    name = _register(extractors, chunk, torch.device(device))
    layers = list(registry.FEATURE_EXTRACTORS_REGISTRY[name].get_provided_features_list())
    held = max(1, -(-batch // chunk)) * chunk
    try:
        with exact(), quiet():
            network = utils.create_feature_extractor(name, layers, **settings())
            found = utils.extract_featuresdict_from_input_id_cached(
                1, network, **settings(input1=_Indexed(images), input1_model_num_samples=count, batch_size=held)
            )
    finally:
        del registry.FEATURE_EXTRACTORS_REGISTRY[name]  # which would keep the networks in memory
    columns = [found[layer] for layer in layers]
    pairs = zip(columns[::2], columns[1::2], strict=True)
    return [Features(values, logits if logits.shape[1] else None) for values, logits in pairs]


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Compute in plain float32 with deterministic kernels, and put the process's own settings back afterwards."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark)
    cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = False, False, True, False
    try:
        yield
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what a library prints off standard output, which belongs to results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def frechet(fake: Tensor, real: Tensor) -> float:
    """Return torch-fidelity's own Fréchet distance between features [N, F] and [M, F]: the check of ganzoo's faster one."""
    statistics = [metric_fid.fid_features_to_statistics(_checked(part)) for part in (fake, real)]
    return float(metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID])


def kernel_distance(
    fake: Tensor, real: Tensor, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Return mean and deviation over subsets of the kernel distance (KID's; Bińkowski et al. 2018, arXiv:1801.01401)."""
    if min(len(fake), len(real)) < size:
        raise DataError(
            f"the kernel distance takes subsets of {size:,} samples and there are {len(fake):,} generated and "
            f"{len(real):,} real ones; ask for more samples or smaller subsets"
        )
    asked = settings(kid_subsets=subsets, kid_subset_size=size, rng_seed=seed)
    with quiet():
        found = metric_kid.kid_featuresdict_to_metric({"f": _checked(fake)}, {"f": _checked(real)}, "f", **asked)
    return float(found[metric_kid.KEY_METRIC_KID_MEAN]), float(found[metric_kid.KEY_METRIC_KID_STD])


def precision_recall(fake: Tensor, real: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Return precision and recall, 0 to 1, by balls of nearest neighbours (Kynkäänniemi et al., arXiv:1904.06991)."""
    if min(len(fake), len(real)) <= neighbours:
        raise DataError(
            f"precision and recall need more than {neighbours} samples of each side; there are {len(fake)} and {len(real)}"
        )
    asked = settings(prc_neighborhood=neighbours)
    found = metric_prc.prc_featuresdict_to_metric({"f": _checked(fake)}, {"f": _checked(real)}, "f", **asked)
    return float(found[metric_prc.KEY_METRIC_PRECISION]), float(found[metric_prc.KEY_METRIC_RECALL])


def inception_score(logits: Tensor, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """Return mean and standard deviation over splits of the Inception Score's form (Salimans et al., arXiv:1606.03498)."""
    if len(logits) < splits:
        raise DataError(f"{len(logits)} samples cannot be cut into {splits} parts; ask for more samples")
    asked = settings(isc_splits=splits, rng_seed=seed)
    found = metric_isc.isc_featuresdict_to_metric({"l": _checked(logits)}, "l", **asked)
    return float(found[metric_isc.KEY_METRIC_ISC_MEAN]), float(found[metric_isc.KEY_METRIC_ISC_STD])


def _checked(features: Tensor) -> Tensor:
    if len(features) < 2:
        raise DataError(f"{len(features)} sample has no distribution; ask for at least 2")
    if not bool(torch.isfinite(features).all()):
        raise DataError("features are not finite, so no score can be had from them; look at the samples (NaN images?)")
    return features


def path_lengths(pairs: Iterator[tuple[Tensor, Tensor]], epsilon: float, similarity: str = "lpips-vgg16") -> Tensor:
    """Return perceptual path lengths [N] from pairs of images uint8 [B, 3, H, W] whose latents are `epsilon` apart.

    Perceptual path length of Karras et al. (arXiv:1812.04948); the mean is taken by the caller, between percentiles.
    PluginError where torch-fidelity's weights for the similarity are not in its cache: nothing is downloaded.
    """
    wanted, cache = SIMILARITY_FILES.get(similarity, ()), Path(torch.hub.get_dir()) / "checkpoints"
    for file in wanted:
        if not (cache / file).is_file():
            raise PluginError(f"path lengths need {file} in {cache}; fetch it from torch-fidelity's release v0.2.0")
    with torch.no_grad(), exact(), quiet():
        network = utils.create_sample_similarity(
            similarity, **settings(ppl_sample_similarity_resize=64, ppl_sample_similarity_dtype="uint8")
        )
        lengths = [network(first, second).float().cpu() / epsilon**2 for first, second in pairs]
    return torch.cat(lengths)


SIMILARITY_FILES = {"lpips-vgg16": ("weights-vgg16-lpips.pth", "vgg16-397923af.pth")}


def network(name: str, layers: Sequence[str], weights: str = "") -> nn.Module:
    """Return one of torch-fidelity's own networks, which gives a tuple of these layers; `weights` is a verified file."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own notes about files of old versions
        found: nn.Module = utils.create_feature_extractor(
            name, list(layers), **settings(feature_extractor_weights_path=weights or None)
        )
    return found
