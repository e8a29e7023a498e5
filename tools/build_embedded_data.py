"""Rebuild the data embedded in ganzoo from two Debian packages and a file of scikit-learn: same sources, same pixels.

    python tools/build_embedded_data.py            # writes into plugins/datasets/embedded

Sources: `dataset-fashion-mnist` (idx files), `fonts-noto-color-emoji` (a CBDT font with 136x128 bitmaps) and the
digits.csv.gz that scikit-learn's wheel holds under datasets/data (--digits; without it those files stay as they are). Needs
Pillow with raqm, which shapes flags and joined emoji. Compressed bytes may differ between versions of liblzma and
libwebp; SHA256SUMS is written anew, and the tests compare decoded pixels.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import struct
import sys
from pathlib import Path

import emoji_table
import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

FASHION = Path("/usr/share/datasets/fashion-mnist")
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMBEDDED = Path(__file__).resolve().parent.parent / "plugins" / "datasets" / "embedded"

FASHION_PARTS = {"train": ("train", 10_000), "test": ("t10k", 2_000)}  # split: (prefix of the idx files, samples kept)
STRIKE = 109  # pixels per em of the font's only bitmap strike
GLYPH = (136, 128)  # width and height of its bitmaps
SIZE = 32
COLUMNS = 40  # emoji in a row of the sheet


def fashion_part(folder: Path, prefix: str, count: int) -> tuple[bytes, bytes]:
    """Return the first images and labels of one part as idx bytes."""
    images = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    _, _, height, width = struct.unpack(">4I", images[:16])
    return (
        struct.pack(">4I", 0x803, count, height, width) + images[16 : 16 + count * height * width],
        struct.pack(">2I", 0x801, count) + labels[8 : 8 + count],
    )


def build_fashion(folder: Path) -> dict[str, bytes]:
    """Return file name -> content of fashion-mnist-10k."""
    files = {}
    for split, (prefix, count) in FASHION_PARTS.items():
        for kind, content in zip(("images", "labels"), fashion_part(folder, prefix, count), strict=True):
            files[f"fashion-mnist-10k-{split}-{kind}.idx.xz"] = lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)
    return files


def build_digits(file: Path) -> dict[str, bytes]:
    """Return file name -> content of digits8: 8x8 images of integers from 0 to 16, and which digit each is."""
    table = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",").astype(np.uint8)
    images, labels = table[:, :-1], table[:, -1]
    parts = {
        "images": struct.pack(">4I", 0x803, len(images), 8, 8) + images.tobytes(),
        "labels": struct.pack(">2I", 0x801, len(labels)) + labels.tobytes(),
    }
    return {f"digits8-{kind}.idx.xz": lzma.compress(part, preset=9 | lzma.PRESET_EXTREME) for kind, part in parts.items()}


def mapped_points(font: bytes) -> list[int]:
    """Return the code points that a TrueType font maps, from the format-12 table of its cmap."""
    tables = struct.unpack(">H", font[4:6])[0]
    records = (struct.unpack(">4s3I", font[12 + 16 * i : 28 + 16 * i]) for i in range(tables))
    cmap = next(offset for tag, _, offset, _ in records if tag == b"cmap")
    for i in range(struct.unpack(">H", font[cmap + 2 : cmap + 4])[0]):
        start = cmap + struct.unpack(">I", font[cmap + 8 + 8 * i : cmap + 12 + 8 * i])[0]
        if struct.unpack(">H", font[start : start + 2])[0] == 12:
            groups = struct.unpack(">I", font[start + 12 : start + 16])[0]
            found = (struct.unpack(">2I", font[start + 16 + 12 * k : start + 24 + 12 * k]) for k in range(groups))
            return sorted(point for first, last in found for point in range(first, last + 1))
    sys.exit("the font has no format-12 cmap; give NotoColorEmoji.ttf of fonts-noto-color-emoji")


def draw(font: ImageFont.FreeTypeFont, sequence: str) -> Image.Image:
    """Return one emoji centred on a white square, at the size of the strike."""
    side = max(GLYPH)
    square = Image.new("RGB", (side, side), "white")
    offset = ((side - GLYPH[0]) // 2, (side - GLYPH[1]) // 2)
    ImageDraw.Draw(square).text(offset, sequence, font=font, embedded_color=True)
    return square


def render_emoji(path: Path) -> tuple[np.ndarray, list[str]]:
    """Return uint8 [N, 32, 32, 3] and the sequences, sorted by code points; doubles (flags of dependencies) once."""
    if not features.check("raqm"):
        sys.exit("this Pillow has no raqm, which shapes flags; install a Pillow wheel that has")
    font = ImageFont.truetype(str(path), STRIKE, layout_engine=ImageFont.Layout.RAQM)
    singles = [chr(point) for point in mapped_points(path.read_bytes()) if emoji_table.wanted(point)]
    joined = (*emoji_table.JOINED, *emoji_table.KEYCAPS, *emoji_table.COUNTRY_FLAGS, *emoji_table.REGION_FLAGS)
    seen = {draw(font, "\U0001f1e6\U0001f1e6").tobytes()}  # AA is no country: the font's picture of an unknown flag
    pictures, sequences = [], []
    for sequence in sorted((*singles, *emoji_table.LETTERS, *joined)):
        if font.getlength(sequence) > 1.5 * GLYPH[0]:
            sys.exit(f"the font draws {sequence!a} as more than one picture; give the NotoColorEmoji.ttf of Debian 12")
        picture = draw(font, sequence)
        if picture.tobytes() in seen:
            continue
        seen.add(picture.tobytes())
        pictures.append(np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)))
        sequences.append(sequence)
    return np.stack(pictures), sequences


def sheet_of(pictures: np.ndarray) -> Image.Image:
    """Return tiles [N, 32, 32, 3] row by row on one sheet; the last row is filled with white."""
    rows = -(-len(pictures) // COLUMNS)
    tiles = np.full((rows * COLUMNS, SIZE, SIZE, 3), 255, np.uint8)
    tiles[: len(pictures)] = pictures
    grid = tiles.reshape(rows, COLUMNS, SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(grid.reshape(rows * SIZE, COLUMNS * SIZE, 3))


def build_emoji(path: Path, folder: Path) -> dict[str, bytes]:
    """Return file name -> content of emoji32."""
    pictures, sequences = render_emoji(path)
    sheet = folder / "emoji32.webp"
    sheet_of(pictures).save(sheet, "WEBP", lossless=True, quality=100, method=6)
    labels = [emoji_table.CLASSES.index(emoji_table.class_of(sequence)) for sequence in sequences]
    names = ["-".join(f"{ord(point):x}" for point in sequence) for sequence in sequences]
    index = {"classes": emoji_table.CLASSES, "names": names, "labels": labels}
    return {"emoji32.webp": sheet.read_bytes(), "emoji32.json": json.dumps(index, separators=(",", ":")).encode() + b"\n"}


def main() -> None:
    """Write all embedded files and their SHA256SUMS."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion-mnist", type=Path, default=FASHION, help="folder with the idx .gz files")
    parser.add_argument("--font", type=Path, default=FONT, help="NotoColorEmoji.ttf with CBDT bitmaps")
    parser.add_argument("--digits", type=Path, help="digits.csv.gz of scikit-learn")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="folder to write into")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    files = build_fashion(options.fashion_mnist) | build_emoji(options.font, options.out)
    digits = build_digits(options.digits) if options.digits else {}
    files |= {path.name: path.read_bytes() for path in options.out.glob("digits8-*")} | digits
    for name, content in files.items():
        (options.out / name).write_bytes(content)
        print(f"{len(content):>9,}  {name}")
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    (options.out / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


if __name__ == "__main__":
    main()
