"""The adapter: the same numbers as torch-fidelity's public function, without its traps."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch_fidelity
from torch import Tensor, nn
from torch.utils.data import Dataset

from ganzoo import fidelity
from ganzoo.api import DataError, Extractor, PluginError
from ganzoo.pretrained import FidelityExtractor

COUNT = 600


class Projection(Extractor):
    """Twelve fixed projections, the first ten also as logits."""

    def __init__(self, number: int = 0) -> None:
        super().__init__()
        weights = np.random.RandomState(number).standard_normal((3 * 8 * 8, 12)).astype(np.float32) / 14
        self.weights = nn.Parameter(torch.from_numpy(weights))
        self.id = f"projection@{hashlib.sha256(weights.tobytes()).hexdigest()[:8]}"
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(len(images))
        features = (images.flatten(1).float() / 255) @ self.weights
        return features, features[:, :10] * 8


def pixels(seed: int, shift: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 200, (COUNT, 3, 8, 8), generator=source, dtype=torch.uint8) + shift


def stream(images: Tensor) -> Callable[[int, int], Tensor]:
    return lambda start, stop: images[start:stop]


class Images(Dataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_the_functional_path_gives_what_the_public_function_gives() -> None:
    fake, real = pixels(0, 20), pixels(1)
    name = fidelity.register(Projection(), chunk=64)
    public = torch_fidelity.calculate_metrics(
        input1=Images(fake), input2=Images(real), feature_extractor=name, isc=True, fid=True, kid=True, prc=True,
        kid_subsets=10, kid_subset_size=200, cuda=False, verbose=False, cache=False, save_cpu_ram=True, batch_size=64,
    )  # fmt: skip
    (of_fake,), (of_real,) = (fidelity.extract(stream(part), COUNT, [Projection()]) for part in (fake, real))
    assert of_fake.logits is not None
    assert fidelity.frechet(of_fake.values, of_real.values) == public["frechet_inception_distance"]
    mean, spread = fidelity.kernel_distance(of_fake.values, of_real.values, subsets=10, size=200)
    assert (mean, spread) == (public["kernel_inception_distance_mean"], public["kernel_inception_distance_std"])
    assert fidelity.precision_recall(of_fake.values, of_real.values) == (public["precision"], public["recall"])
    found = fidelity.inception_score(of_fake.logits)
    assert found == (public["inception_score_mean"], public["inception_score_std"])


@pytest.mark.parametrize("batch", [1, 7, 64, 500, 5000])
def test_features_do_not_depend_on_the_batch(batch: int) -> None:
    first = fidelity.extract(stream(pixels(0)), COUNT, [Projection()])[0]
    extractor = Projection()
    again = fidelity.extract(stream(pixels(0)), COUNT, [extractor], batch=batch)[0]
    assert torch.equal(first.values, again.values)
    assert set(extractor.batches) == {64}  # also the last one, which is filled up


def test_several_extractors_share_one_pass() -> None:
    asked: list[tuple[int, int]] = []

    def images(start: int, stop: int) -> Tensor:
        asked.append((start, stop))
        return pixels(0)[start:stop]

    found = fidelity.extract(images, COUNT, [Projection(0), Projection(1)], batch=200)
    assert [len(one.values) for one in found] == [COUNT, COUNT]
    assert asked == [(0, 256), (256, 512), (512, 600)]
    assert not torch.equal(found[0].values, found[1].values)


def test_nothing_of_the_callers_is_disturbed(capsys: pytest.CaptureFixture[str]) -> None:
    network = nn.Linear(2, 2).train()
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    tf32 = torch.backends.cuda.matmul.allow_tf32
    features = fidelity.extract(stream(pixels(0)), COUNT, [Projection()])[0]
    fidelity.kernel_distance(
        features.values, features.values, subsets=2, size=100
    )  # negative: torch-fidelity prints a note
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])
    assert network.training
    assert torch.backends.cuda.matmul.allow_tf32 == tf32
    assert capsys.readouterr().out == ""


def test_registering_twice_is_harmless_and_extracting_leaves_nothing_behind() -> None:
    from torch_fidelity import registry

    assert fidelity.register(Projection()) == fidelity.register(Projection())
    before = set(registry.FEATURE_EXTRACTORS_REGISTRY)
    fidelity.extract(stream(pixels(0)), 10, [Projection(5)])
    assert set(registry.FEATURE_EXTRACTORS_REGISTRY) == before


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(PluginError, match="has no setting 'kid_subset_sise'"):
        fidelity.settings(kid_subset_sise=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fidelity.extract(stream(pixels(0)), 0, [Projection()]), "0 samples cannot be scored"),
        (lambda: fidelity.kernel_distance(torch.ones(50, 4), torch.ones(500, 4), size=100), "subsets of 100"),
        (lambda: fidelity.frechet(torch.ones(1, 4), torch.ones(5, 4)), "1 sample has no distribution"),
        (lambda: fidelity.frechet(torch.full((5, 4), torch.nan), torch.ones(5, 4)), "not finite"),
        (lambda: fidelity.kernel_distance(torch.full((5, 4), torch.nan), torch.ones(5, 4), size=3), "not finite"),
        (lambda: fidelity.precision_recall(torch.full((5, 4), torch.nan), torch.ones(5, 4)), "not finite"),
        (lambda: fidelity.precision_recall(torch.ones(3, 4), torch.ones(5, 4)), "more than 3 samples"),
        (lambda: fidelity.inception_score(torch.ones(5, 4)), "cannot be cut into 10 parts"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_an_error_and_never_a_number(call: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return a file with the same 566 tensors as the official one, and its hash."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = _skeleton(FeatureExtractorInceptionV3)
    assert len(state) == 566
    path = tmp_path_factory.mktemp("weights") / "twin.pth"
    torch.save(state, path)
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


class TestWeights:
    """The real code path of torch-fidelity's networks, with a small stand-in: Inception itself with weights of chance."""

    def build(self, file: str, sha256: str, unverified: bool = False) -> FidelityExtractor:
        return FidelityExtractor(
            "inception", "inception-v3-compat", "2048", logits="logits_unbiased", file="twin.pth", sha256=sha256,
            source="nowhere", weights=file, unverified=unverified,
        )  # fmt: skip

    def test_a_file_with_the_right_hash_is_used(self, twin: tuple[str, str]) -> None:
        file, sha256 = twin
        extractor = self.build(file, sha256)
        assert extractor.verified
        assert extractor.id == f"inception@{sha256[:8]}"
        grey = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        features, logits = extractor(grey)
        assert features.shape == (2, 2048)
        assert logits.shape == (2, 1008)
        assert torch.equal(features, extractor(grey.repeat(1, 3, 1, 1))[0])

    def test_a_wrong_hash_is_refused_before_the_file_is_opened(self, tmp_path: object) -> None:
        from pathlib import Path

        hostile = Path(str(tmp_path)) / "hostile.pth"
        hostile.write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
        with pytest.raises(DataError, match="is not the file of extractor 'inception'"):
            self.build(str(hostile), "0" * 64)

    def test_an_unverified_file_has_its_own_hash_in_its_name(self, twin: tuple[str, str]) -> None:
        file, sha256 = twin
        extractor = self.build(file, "0" * 64, unverified=True)
        assert not extractor.verified
        assert extractor.id == f"inception@{sha256[:8]}"

    def test_a_missing_file_says_what_to_fetch_and_downloads_nothing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: object
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(DataError, match=r"needs the file twin\.pth \(SHA-256 abc\); fetch it from nowhere"):
            self.build("", "abc")


def _skeleton(kind: type) -> dict[str, Tensor]:
    """Return weights of chance for torch-fidelity's Inception, whose constructor insists on a file."""
    import unittest.mock

    captured: dict[str, Tensor] = {}

    def take(self: nn.Module, state: object, *args: object, **kwargs: object) -> object:
        if not captured and isinstance(self, kind):
            captured.update({key: value.clone() for key, value in nn.Module.state_dict(self).items()})
        return None

    with (
        unittest.mock.patch.object(torch, "load", return_value={}),
        unittest.mock.patch.object(kind, "load_state_dict", take),
    ):
        kind("inception-v3-compat", ["2048"], feature_extractor_weights_path="unused")
    return captured


def test_path_lengths_need_weights_and_download_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(PluginError, match=r"path lengths need weights-vgg16-lpips\.pth"):
        fidelity.path_lengths(iter([]), 1e-4)


def test_path_lengths_are_distances_over_the_squared_step() -> None:
    from torch_fidelity.registry import SAMPLE_SIMILARITY_REGISTRY, register_sample_similarity
    from torch_fidelity.sample_similarity_base import SampleSimilarityBase

    class Squares(SampleSimilarityBase):  # type: ignore[misc]
        def __init__(self, name: str, **kwargs: object) -> None:
            super().__init__(name)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return (first.float() - second.float()).square().flatten(1).mean(1)

    if "test-squares" not in SAMPLE_SIMILARITY_REGISTRY:
        register_sample_similarity("test-squares", Squares)
    pair = (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.full((4, 3, 8, 8), 2, dtype=torch.uint8))
    found = fidelity.path_lengths(iter([pair, pair]), 0.5, "test-squares")
    assert torch.equal(found, torch.full((8,), 4 / 0.25))
