"""Folders and archives of pictures, made here with every oddity that real ones have."""

import io
import json
import os
import sys
import zipfile

import numpy as np
import pytest
import torch
from ganzoo_plugins.datasets import _decoded, _sources
from ganzoo_plugins.datasets.images import ImageDataset, image_folder, image_zip
from PIL import Image

from ganzoo.api import DataError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ganzoo" / "decoded"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    return path


def plain(path, colour=RED, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def decoded(folder, image, name="a.png", *, save=None, **options):
    """Save one picture twice (a GAN needs two) and return what it becomes, [C, H, W] as int."""
    for stem in ("one-", "two-"):
        image.save(folder / (stem + name), **(save or {}))
    data = image_folder(path=str(folder), **{"size": image.height, **options})
    assert data.skipped == []
    assert torch.equal(data.samples[0], data.samples[1])
    return data.samples[0].numpy().astype(int)


def array(values, dtype):
    return Image.fromarray(np.array(values, dtype))


# -- modes ----------------------------------------------------------------------------------------------------------


def test_colour_is_kept_exactly(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(folder, Image.fromarray(pixels)), pixels.transpose(2, 0, 1))


def test_grey_fills_three_channels_or_one(folder):
    image = array([[0, 100], [200, 255]], np.uint8)
    assert decoded(folder, image).tolist() == [[[0, 100], [200, 255]]] * 3
    assert decoded(folder, image, channels=1).tolist() == [[[0, 100], [200, 255]]]


def test_16_bit_grey_is_scaled_not_clipped(folder):
    image = array([[0, 257], [257 * 100, 65535]], np.uint16)
    assert decoded(folder, image, channels=1).tolist() == [[[0, 1], [100, 255]]]


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 25700, 65535, 0], [0, 100, 255, 0]), ([-50, 0, 50, 50], [0, 128, 255, 255])]
)
def test_32_bit_grey(values, expected, folder):
    image = array(np.reshape(values, (2, 2)), np.int32)
    assert decoded(folder, image, "a.tif", channels=1).ravel().tolist() == expected


def test_floating_point_spans_its_own_range(folder):
    image = array([[-1.0, 0.0], [np.nan, 1.0]], np.float32)
    assert decoded(folder, image, "a.tif", channels=1).tolist() == [[[0, 128], [0, 255]]]


def test_constant_floating_point_is_black(folder):
    assert decoded(folder, array([[7.0, 7.0], [7.0, 7.0]], np.float32), "a.tif").max() == 0


def test_cmyk_jpeg(folder):
    cyan = decoded(folder, Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "a.jpg", save={"quality": 95})
    assert cyan[0].max() <= 3
    assert cyan[1:].min() >= 252


def test_ycbcr_and_bilevel(folder):
    image = Image.new("YCbCr", (8, 8), (255, 128, 128))
    assert decoded(folder, image, "a.tif").min() >= 254
    (folder / "one-a.tif").unlink()
    (folder / "two-a.tif").unlink()
    assert decoded(folder, Image.new("1", (8, 8), 1)).min() == 255


@pytest.mark.parametrize(("background", "expected"), [("white", [255, 127, 127]), ("#000000", [128, 0, 0])])
def test_alpha_is_composited_on_the_background(background, expected, folder):
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    assert decoded(folder, image, background=background)[:, 0, 0].tolist() == expected


def test_grey_with_alpha(folder):
    assert decoded(folder, Image.new("LA", (2, 2), (0, 0)), channels=1).min() == 255


def test_transparent_palette(folder):
    image = Image.new("P", (2, 2), 0)
    image.putpalette([*GREEN, *BLUE])
    image.putpixel((1, 1), 1)
    pixels = decoded(folder, image, save={"transparency": 0}, background="red")
    assert pixels[:, 0, 0].tolist() == list(RED)
    assert pixels[:, 1, 1].tolist() == list(BLUE)


def test_exif_orientation_is_applied(folder):
    image = Image.new("RGB", (16, 16), RED)
    image.paste(BLUE, (0, 0, 16, 8))  # blue above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    pixels = decoded(folder, image, save={"exif": exif})
    assert pixels[:, 8, 15].tolist() == list(BLUE)
    assert pixels[:, 8, 0].tolist() == list(RED)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_several_frames_the_first_counts(name, folder):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, BLUE)]
    options = {"lossless": True} if name == "a.webp" else {}
    pixels = decoded(folder, frames[0], name, save={"save_all": True, "append_images": frames[1:], **options})
    assert pixels[:, 0, 0].tolist() == list(GREEN)


# -- geometry -------------------------------------------------------------------------------------------------------


def stripes():
    """Blue, red, blue: a red square of 4 pixels between two blue ones."""
    image = Image.new("RGB", (12, 4), BLUE)
    image.paste(RED, (4, 0, 8, 4))
    return image


def test_crop_takes_the_centre(folder):
    pixels = decoded(folder, stripes())
    assert (pixels == np.reshape(RED, (3, 1, 1))).all()


def test_pad_shows_all(folder):
    pixels = decoded(folder, stripes(), size=12, fit="pad", background="lime")
    assert pixels[:, 0, 0].tolist() == list(GREEN)
    np.testing.assert_array_equal(pixels[:, 4:8], np.asarray(stripes()).transpose(2, 0, 1))
    assert pixels[:, 11, 11].tolist() == list(GREEN)


def test_stretch_ignores_proportions(folder):
    pixels = decoded(folder, stripes(), size=12, fit="stretch")
    assert pixels[:, 11, 6].tolist() == list(RED)
    assert pixels[:, 0, 0].tolist() == list(BLUE)


def test_shrinking_is_antialiased(folder):
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    pixels = decoded(folder, array(checks, np.uint8), size=8)
    assert 120 <= pixels.min() <= pixels.max() <= 135


# -- what is skipped, what is refused -------------------------------------------------------------------------------


def good(folder, count=6):
    for number in range(count):
        plain(folder / f"good-{number}.png", (number, 0, 0))


def test_damaged_files_are_listed_and_skipped(folder):
    good(folder)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(folder / "cut.jpg")
    content = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html><body>404 Not Found</body></html>")
    data = image_folder(path=str(folder), size=8)
    assert len(data) == 6
    assert [name for name, _ in data.skipped] == ["cut.jpg", "empty.png", "page.jpg"]
    reasons = dict(data.skipped)
    assert "cut short" in reasons["cut.jpg"]
    assert reasons["empty.png"] == "empty file"
    assert "not a picture" in reasons["page.jpg"]
    assert "3 of 9 files" in data.notes[-1]
    assert data.samples[:, 0, 0, 0].tolist() == list(range(6))


def test_too_large_pictures_are_refused_before_decoding(folder):
    good(folder)
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")
    Image.new("1", (14000, 14000)).save(folder / "bomb2.png")
    data = image_folder(path=str(folder), size=8)
    assert [name for name, _ in data.skipped] == ["bomb.png", "bomb2.png"]
    assert all("64 megapixels" in reason for _, reason in data.skipped)
    assert len(image_folder(path=str(folder), size=8, megapixels=90)) == 7


def test_programs_in_disguise_are_not_run(folder):
    good(folder)
    (folder / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    assert [name for name, _ in image_folder(path=str(folder), size=8).skipped] == ["script.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_fifos_are_not_opened(folder):
    good(folder)
    os.mkfifo(folder / "pipe.png")
    assert image_folder(path=str(folder), size=8).skipped == [("pipe.png", "not a regular file")]


def test_links_that_loop_or_lead_out_are_not_followed(folder, tmp_path):
    good(folder, 3)
    plain(tmp_path / "elsewhere" / "secret.png", GREEN)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / "out.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (folder / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "inside.png").symlink_to(folder / "good-2.png")
    data = image_folder(path=str(folder), size=8)
    assert data.samples[:, 0, 0, 0].tolist() == [0, 1, 2, 2]
    assert [name for name, _ in data.skipped] == ["self.png"]
    assert "3 links" in data.notes[0]


def test_hidden_and_other_files_are_left_out(folder):
    good(folder, 2)
    plain(folder / ".hidden.png")
    plain(folder / ".thumbs" / "a.png")
    plain(folder / "__MACOSX" / "a.png")
    (folder / "notes.txt").write_text("no picture")
    data = image_folder(path=str(folder), size=8)
    assert (len(data), data.skipped, data.notes) == (2, [], [])


def test_suffixes_in_capitals_and_deep_folders_count(folder):
    plain(folder / "B.PNG", GREEN)
    plain(folder / "a" / "b" / "c.JPeG", RED)
    assert image_folder(path=str(folder), size=8).samples[:, 0, 0, 0].tolist() == [0, 254]


def test_vanished_pictures_are_skipped_and_not_remembered(folder, monkeypatch):
    good(folder)
    list_folder = _sources.list_folder

    def and_remove(path):
        listing = list_folder(path)
        (folder / "good-3.png").unlink()
        return listing

    monkeypatch.setattr("ganzoo_plugins.datasets.images.list_folder", and_remove)
    data = image_folder(path=str(folder), size=8)
    assert [name for name, _ in data.skipped] == ["good-3.png"]
    assert data.samples[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5]
    monkeypatch.undo()
    assert image_folder(path=str(folder), size=8, cache=False).skipped == []


def refused(reader, path, *words, **options):
    with pytest.raises(DataError) as error:
        reader(path=str(path), **options)
    message = str(error.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_refused_folders(folder, tmp_path):
    refused(image_folder, tmp_path / "nowhere", "does not exist")
    refused(image_folder, folder, "holds no pictures")
    plain(folder / "only.png")
    refused(image_folder, folder, "at least 2 pictures; found 1")
    refused(image_folder, folder / "only.png", "is a file")
    refused(image_folder, folder, "no class folders", labels=True)


def test_mostly_unreadable(folder):
    good(folder, 2)
    for number in range(3):
        (folder / f"bad-{number}.png").write_bytes(b"")
    refused(image_folder, folder, "3 of 5 files", "'bad-0.png' (empty file)")


def test_nothing_readable(folder):
    (folder / "bad.png").write_bytes(b"")
    refused(image_folder, folder, "1 of 1 files")


@pytest.mark.parametrize("options", [{"background": "no-colour"}, {"channels": 4}, {"size": 0}])
def test_senseless_options(options, folder):
    with pytest.raises(DataError, match=next(iter(options))):
        image_folder(path=str(folder), **options)


# -- classes --------------------------------------------------------------------------------------------------------


def classes(folder):
    for number in range(3):
        plain(folder / "dogs" / f"{number}.png", (100 + number, 0, 0))
        plain(folder / "cats" / "deep" / f"{number}.png", (number, 0, 0))


def test_top_level_folders_are_the_classes(folder):
    classes(folder)
    plain(folder / "beside.png")
    (folder / "dogs" / "0.png").write_bytes(b"")
    data = image_folder(path=str(folder), size=8, labels=True)
    assert isinstance(data, ImageDataset)
    assert data.class_names == ("cats", "dogs")
    assert data.spec.classes == 2
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.samples[:, 0, 0, 0].tolist() == [0, 1, 2, 101, 102]
    assert data.batch(torch.tensor([4])).cond["label"].tolist() == [1]
    assert "1 pictures beside" in data.notes[0]


def test_without_labels_all_pictures_count(folder):
    classes(folder)
    data = image_folder(path=str(folder), size=8)
    assert (len(data), data.spec.classes, data.class_names) == (6, 0, ())
    assert data.fingerprint != image_folder(path=str(folder), size=8, labels=True).fingerprint


# -- archives -------------------------------------------------------------------------------------------------------


def png(colour=RED):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def pack(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("wrapper", ["", "pictures/"])
def test_zip_equals_folder(wrapper, folder, tmp_path):
    classes(folder)
    members = {f"{wrapper}{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*.png")}
    members |= {"__MACOSX/dogs/._0.png": b"", ".DS_Store": b""}
    archive = pack(tmp_path / "pictures.zip", members)
    for labels in (False, True):
        one, other = (
            image_folder(path=str(folder), size=8, labels=labels),
            image_zip(path=str(archive), size=8, labels=labels),
        )
        assert torch.equal(one.samples, other.samples)
        assert one.fingerprint == other.fingerprint
        assert one.class_names == other.class_names


def test_members_that_point_out_are_only_read(tmp_path):
    archive = pack(tmp_path / "a.zip", {"../../evil.png": png(), "/etc/evil.png": png(GREEN), "b.png": png(BLUE)})
    before = sorted(tmp_path.parent.iterdir())
    assert len(image_zip(path=str(archive), size=8)) == 3
    assert sorted(tmp_path.parent.iterdir()) == before


def test_refused_archives(tmp_path, folder):
    refused(image_zip, tmp_path / "nowhere.zip", "does not exist")
    refused(image_zip, folder, "is no file")
    (tmp_path / "text.zip").write_bytes(b"no archive at all")
    refused(image_zip, tmp_path / "text.zip", "no readable zip archive")
    whole = pack(tmp_path / "cut.zip", {"a.png": png(), "b.png": png()}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    refused(image_zip, tmp_path / "cut.zip", "no readable zip archive")
    refused(image_zip, pack(tmp_path / "none.zip", {"a.txt": b""}), "holds no pictures")


def test_encrypted_archive(tmp_path):
    path = pack(tmp_path / "secret.zip", {"a.png": png(), "b.png": png()})
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag stands in both headers of a member
        start = content.find(mark)
        while start >= 0:
            content[start + offset] |= 1
            start = content.find(mark, start + 1)
    path.write_bytes(content)
    refused(image_zip, path, "is encrypted")


def test_damaged_member_is_skipped(tmp_path):
    path = pack(tmp_path / "a.zip", {name: png() for name in ("a.png", "b.png", "c.png")})
    content = path.read_bytes()
    start = content.find(b"\x89PNG")
    path.write_bytes(content[: start + 40] + b"\xff" + content[start + 41 :])
    data = image_zip(path=str(path), size=8)
    assert [name for name, _ in data.skipped] == ["a.png"]
    assert "damaged in the archive" in data.skipped[0][1]


def test_zip_bombs(tmp_path, monkeypatch):
    members = {"a.png": png(), "b.png": png(), "c.png": bytes(1_000_000)}
    path = pack(tmp_path / "bomb.zip", members, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(_sources, "MEMBER_BYTES", 500_000)
    assert [name for name, _ in image_zip(path=str(path), size=8).skipped] == ["c.png"]
    monkeypatch.setattr(_sources, "TOTAL_BYTES", 900_000)
    refused(image_zip, path, "zip bombs")


# -- cache ----------------------------------------------------------------------------------------------------------


def no_decoding(monkeypatch):
    def fail(content, how):
        raise AssertionError("a picture was decoded that the cache should have held")

    monkeypatch.setattr(_decoded, "decode", fail)


def same(one, other):
    return torch.equal(one.samples, other.samples) and one.fingerprint == other.fingerprint and one.skipped == other.skipped


def test_second_start_decodes_nothing(folder, monkeypatch, cache):
    classes(folder)
    (folder / "dogs" / "1.png").write_bytes(b"")
    first = image_folder(path=str(folder), size=8, labels=True)
    assert sorted(path.name for path in next(cache.iterdir()).iterdir()) == ["index.json", "samples.npy"]
    no_decoding(monkeypatch)
    second = image_folder(path=str(folder), size=8, labels=True)
    assert same(first, second)
    assert first.labels.tolist() == second.labels.tolist() == [0, 0, 0, 1, 1]
    assert second.batch(torch.tensor([0, 4])).real.dtype == torch.uint8


def test_cached_or_not_is_the_same(folder):
    good(folder)
    (folder / "bad.png").write_bytes(b"")
    assert same(image_folder(path=str(folder), size=8), image_folder(path=str(folder), size=8, cache=False))


def test_without_cache_nothing_is_written(folder, cache):
    good(folder)
    image_folder(path=str(folder), size=8, cache=False)
    assert not cache.exists()


def test_a_changed_folder_or_option_is_decoded_anew(folder, cache):
    good(folder)
    first = image_folder(path=str(folder), size=8)
    image_folder(path=str(folder), size=4)
    plain(folder / "good-0.png", GREEN)
    os.utime(folder / "good-0.png", ns=(1, 1))
    changed = image_folder(path=str(folder), size=8)
    assert changed.samples[0, :, 0, 0].tolist() == list(GREEN)
    assert changed.fingerprint != first.fingerprint
    assert len(list(cache.iterdir())) == 3


def cut_array(entry):
    content = (entry / "samples.npy").read_bytes()
    (entry / "samples.npy").write_bytes(content[:-1])


def wrong_count(entry):
    index = json.loads((entry / "index.json").read_text())
    (entry / "index.json").write_text(json.dumps(index | {"skipped": [["x", "y"]]}))


@pytest.mark.parametrize(
    "damage",
    [
        cut_array,
        wrong_count,
        lambda entry: (entry / "samples.npy").unlink(),
        lambda entry: (entry / "samples.npy").write_bytes(b""),
        lambda entry: (entry / "samples.npy").write_bytes(b"nonsense"),
        lambda entry: (entry / "index.json").unlink(),
        lambda entry: (entry / "index.json").write_text("{"),
        lambda entry: (entry / "index.json").write_text("[]"),
    ],
)
def test_damaged_cache_is_rebuilt(damage, folder, cache, monkeypatch):
    good(folder)
    first = image_folder(path=str(folder), size=8)
    expected = first.samples.clone()
    del first
    damage(next(cache.iterdir()))
    again = image_folder(path=str(folder), size=8)
    assert torch.equal(again.samples, expected)
    no_decoding(monkeypatch)
    assert torch.equal(image_folder(path=str(folder), size=8).samples, expected)


def test_unwritable_cache_only_costs_time(folder, tmp_path, monkeypatch):
    good(folder)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    data = image_folder(path=str(folder), size=8)
    assert len(data) == 6
    assert "cannot be written" in data.notes[0]


def test_full_disk_leaves_no_temporary_file(folder, cache, monkeypatch):
    good(folder)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_decoded.os, "fsync", full)
    data = image_folder(path=str(folder), size=8)
    assert len(data) == 6
    assert "No space left" in data.notes[0]
    assert not list(next(cache.iterdir()).iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 need a file system of bytes")
def test_names_that_are_not_utf8(folder):
    good(folder, 3)
    (folder / os.fsdecode(b"bad-\xff.png")).write_bytes(b"")
    one, other = (image_folder(path=str(folder), size=8) for _ in range(2))
    assert one.skipped == other.skipped == [(os.fsdecode(b"bad-\xff.png"), "empty file")]


def test_order_and_fingerprint_do_not_depend_on_the_place(folder, tmp_path):
    classes(folder)
    folder.rename(tmp_path / "moved")
    one = image_folder(path=str(tmp_path / "moved"), size=8)
    (tmp_path / "moved").rename(folder)
    assert same(one, image_folder(path=str(folder), size=8))
