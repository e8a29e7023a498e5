"""The embedded sets against their sums and sources, and the sets that are read from folders or downloaded."""

import gzip
import hashlib
import importlib
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ganzoo_plugins.datasets import _prepare
from ganzoo_plugins.datasets import cifar10 as cifar10_module
from ganzoo_plugins.datasets import fashion_mnist as fashion_module
from ganzoo_plugins.datasets.cifar10 import cifar10
from ganzoo_plugins.datasets.emoji32 import class_names, emoji32
from ganzoo_plugins.datasets.fashion_mnist import fashion_mnist
from ganzoo_plugins.datasets.fashion_mnist_10k import fashion_mnist_10k
from ganzoo_plugins.datasets.mnist import mnist

from ganzoo.api import DataError, TensorDataset

EMBEDDED = Path(_prepare.__file__).parent / "embedded"
TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def build(monkeypatch):
    """The build script as a module."""
    monkeypatch.syspath_prepend(str(TOOLS))
    module = importlib.import_module("build_embedded_data")
    yield module
    for name in ("build_embedded_data", "emoji_table"):
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_idx(folder, prefix, images, labels):
    folder.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">4I", 0x803, *images.shape)
    (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, len(labels)) + labels.tobytes())


def test_embedded_files_match_their_sums():
    lines = (EMBEDDED / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    for name, digest in listed.items():
        assert hashlib.sha256((EMBEDDED / name).read_bytes()).hexdigest() == digest, name
    others = {path.name for path in EMBEDDED.iterdir()} - set(listed)
    assert others == {"SHA256SUMS", "README.md", "LICENSE-fashion-mnist.txt", "LICENSE-noto-emoji.txt"}


def test_embedded_files_stay_small():
    assert sum(path.stat().st_size for path in EMBEDDED.glob("fashion*")) < 5_000_000
    assert sum(path.stat().st_size for path in EMBEDDED.glob("emoji*")) < 2_000_000


def test_fashion_rebuilt_from_debian_is_the_shipped_one(build):
    if not build.FASHION.is_dir():
        pytest.skip(f"Debian's dataset-fashion-mnist is not installed ({build.FASHION})")
    for split, (prefix, count) in build.FASHION_PARTS.items():
        images, labels = build.fashion_part(build.FASHION, prefix, count)
        shipped = _prepare.embedded_idx(f"fashion-mnist-10k-{split}-images.idx.xz")
        np.testing.assert_array_equal(_prepare.parse_idx(images, "rebuilt"), shipped)
        shipped = _prepare.embedded_idx(f"fashion-mnist-10k-{split}-labels.idx.xz")
        np.testing.assert_array_equal(_prepare.parse_idx(labels, "rebuilt"), shipped)


def test_emoji_rebuilt_from_debian_are_the_shipped_ones(build):
    if not build.FONT.is_file():
        pytest.skip(f"Debian's fonts-noto-color-emoji is not installed ({build.FONT})")
    if not build.features.check("raqm"):
        pytest.skip("this Pillow has no raqm, which shapes flags")
    pictures, sequences = build.render_emoji(build.FONT)
    train, test = emoji32(split="train").samples, emoji32(split="test").samples
    rebuilt = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    chosen = torch.arange(len(rebuilt)) % 8 == 7
    assert torch.equal(rebuilt[~chosen], train)
    assert torch.equal(rebuilt[chosen], test)
    index = json.loads((EMBEDDED / "emoji32.json").read_text())
    assert [index["classes"][label] for label in index["labels"]] == [build.emoji_table.class_of(s) for s in sequences]
    assert index["names"] == ["-".join(f"{ord(point):x}" for point in sequence) for sequence in sequences]


def test_no_emoji_of_the_table_of_people_is_shipped(build):
    import emoji_table

    people = emoji_table.points(emoji_table.PEOPLE) | set(range(0x1F3FB, 0x1F400)) | {0x2640, 0x2642}
    names = json.loads((EMBEDDED / "emoji32.json").read_text())["names"]
    sequences = [{int(point, 16) for point in name.split("-")} for name in names]
    assert not [points for points in sequences if points & people and len(points) > 1]
    assert not [points for points in sequences if points & (people - {0x2640, 0x2642})]


def test_ranges_of_the_emoji_table_do_not_overlap(build):
    import emoji_table

    tables = [emoji_table.points(ranges) for ranges in (*emoji_table.RANGES.values(), emoji_table.PEOPLE)]
    assert len(frozenset().union(*tables)) == sum(map(len, tables))
    assert set(emoji_table.RANGES) == set(emoji_table.CLASSES) - {emoji_table.DEFAULT_CLASS}


@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("test", 2_000)])
def test_fashion_10k(split, count):
    data = fashion_mnist_10k(split=split, labels=True)
    assert isinstance(data, TensorDataset)
    assert len(data) == count
    assert data.spec.shape == (1, 32, 32)
    assert data.spec.classes == 10
    assert data.samples.dtype == torch.uint8
    raw = _prepare.embedded_idx(f"fashion-mnist-10k-{split}-images.idx.xz")
    batch = data.batch(torch.tensor([3, 0]))
    np.testing.assert_array_equal(batch.real[0, 0, 2:30, 2:30], raw[3])
    border = data.samples.clone()
    border[:, :, 2:30, 2:30] = 0
    assert border.sum() == 0
    assert batch.cond["label"].dtype == torch.int64
    assert data.labels.unique().tolist() == list(range(10))


def test_fashion_10k_opens_with_the_labels_known_from_the_paper():
    assert fashion_mnist_10k(labels=True).labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]


def test_emoji32():
    train, test = emoji32(labels=True), emoji32(labels=True, split="test")
    assert (len(train), len(test)) == (1387, 198)
    assert train.spec.shape == (3, 32, 32)
    assert train.spec.classes == len(class_names()) == 11
    for data in (train, test):
        assert data.labels.unique().tolist() == list(range(11))
    spread = train.samples.float().flatten(1).std(1)
    assert spread.min() > 5  # none is blank
    assert len(train.samples.flatten(1).unique(dim=0)) == len(train)


def test_without_labels_no_condition_is_passed():
    data = emoji32(split="test")
    assert data.spec.classes == 0
    assert data.batch(torch.tensor([0])).cond == {}


def test_size_and_channels():
    small = fashion_mnist_10k(size=16, channels=3, split="test")
    assert small.spec.shape == (3, 16, 16)
    assert torch.equal(small.samples[:, 0], small.samples[:, 2])
    assert emoji32(size=40, channels=1, split="test").spec.shape == (1, 40, 40)
    assert small.fingerprint != fashion_mnist_10k(size=16, split="test").fingerprint
    assert small.fingerprint == fashion_mnist_10k(size=16, channels=3, split="test").fingerprint


def test_grey_is_pillows_luma():
    from PIL import Image

    colours = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    grey = _prepare.with_channels(colours, 1)
    for picture, expected in zip(grey, colours, strict=True):
        np.testing.assert_array_equal(picture[0], np.asarray(Image.fromarray(expected).convert("L")))


@pytest.mark.parametrize("options", [{"size": 0}, {"channels": 2}])
def test_senseless_options(options):
    with pytest.raises(DataError, match=next(iter(options))):
        fashion_mnist_10k(**options)


@pytest.mark.parametrize("make", [mnist, fashion_mnist])
def test_local_idx_folder(make, tmp_path):
    images = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)
    write_idx(tmp_path / "set", "t10k", images, np.array([7, 2, 1], np.uint8))
    data = make(path=str(tmp_path / "set"), split="test", labels=True)
    np.testing.assert_array_equal(data.samples[:, 0, 2:30, 2:30], images)
    assert data.labels.tolist() == [7, 2, 1]
    with pytest.raises(DataError, match="lacks the idx files of the 'train' split"):
        make(path=str(tmp_path / "set"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>", "cannot be read"),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "cut short"),
        (gzip.compress(b"no"), "not an idx"),
    ],
    ids=["html", "short", "other"],  # the bytes hold the time of compression, and workers must agree on a test's name
)
def test_damaged_idx(content, words, tmp_path):
    write_idx(tmp_path, "train", np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.uint8))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=words):
        mnist(path=str(tmp_path))


def test_downloaded_mnist_is_not_downloaded_again(tmp_path, monkeypatch):
    write_idx(tmp_path / "MNIST" / "raw", "train", np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.uint8))
    monkeypatch.setattr("ganzoo_plugins.datasets._torchvision._open", None)
    assert len(mnist(root=str(tmp_path))) == 2


def no_network(*args, **kwargs):
    raise OSError("no route to host")


@pytest.mark.parametrize(("make", "files"), [(mnist, "idx"), (fashion_mnist, "idx"), (cifar10, "cifar-10-python.tar.gz")])
def test_without_network_one_sentence_says_what_to_put_where(make, files, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr(fashion_module, "DEBIAN", tmp_path / "nothing")
    with pytest.raises(DataError) as error:
        make()
    message = str(error.value)
    assert files in message
    assert str(tmp_path / "cache" / "ganzoo") in message
    assert "\n" not in message


def test_cifar10_as_torchvision_gives_it(monkeypatch, tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    found = type("Found", (), {"data": pictures, "targets": [3, 1, 0, 9]})()
    monkeypatch.setattr("ganzoo_plugins.datasets._torchvision._open", lambda kind, root, split: found)
    data = cifar10_module.cifar10(labels=True, root=str(tmp_path))
    np.testing.assert_array_equal(data.samples.permute(0, 2, 3, 1), pictures)
    assert data.labels.tolist() == [3, 1, 0, 9]
    assert data.spec.classes == 10


def test_whole_fashion_begins_with_the_embedded_part():
    if not fashion_module.DEBIAN.is_dir():
        pytest.skip(f"Debian's dataset-fashion-mnist is not installed ({fashion_module.DEBIAN})")
    whole, part = fashion_mnist(split="test"), fashion_mnist_10k(split="test")
    assert len(whole) == 10_000
    assert torch.equal(whole.samples[:2000], part.samples)
