"""One picture file to one square of uint8: every mode, orientation and kind that Pillow reads, none of them clipped."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from ganzoo.api import DataError

from ._prepare import RESAMPLE

# what a file may be whatever its name: no format that runs another program (EPS) or needs one (WMF)
FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "GIF",
    "AVIF",
    "BMP",
    "DIB",
    "TIFF",
    "PPM",
    "TGA",
    "ICO",
    "ICNS",
    "JPEG2000",
    "DDS",
    "PCX",
    "SGI",
    "QOI",
    "PSD",
    "XBM",
    "XPM",
)

Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a picture becomes a sample: all that decides its pixels besides the file itself."""

    size: int  # pixels, width and height
    channels: int  # 1 or 3
    fit: Fit
    background: tuple[int, int, int]  # red, green, blue behind transparent pixels and beside padded pictures
    megapixels: int  # larger pictures are refused before they are decoded

    @property
    def mode(self) -> str:
        """Pillow's mode with that many channels."""
        return "L" if self.channels == 1 else "RGB"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one sample."""
        return (self.channels, self.size, self.size)


class UnreadableError(Exception):
    """A picture that is skipped; the message is the reason."""


@functools.cache
def formats() -> tuple[str, ...]:
    """Return those of FORMATS that this Pillow can open."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def suffixes() -> frozenset[str]:
    """Return the lower-case file suffixes of these formats, with their dots."""
    known = formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


def colour(name: str) -> tuple[int, int, int]:
    """Return red, green and blue of a colour name or #rrggbb."""
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise DataError(f"background {name!r} is no colour; give a name such as 'white' or '#rrggbb'") from error


def decode(content: bytes, how: Preparation) -> np.ndarray:
    """Return a picture as uint8 [C, size, size]; UnreadableError where it cannot be read."""
    if not content:
        raise UnreadableError("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=formats()) as image:
            width, height = image.size
            if width * height > how.megapixels * 1_000_000:
                raise UnreadableError(f"{width}x{height} pixels, more than {how.megapixels} megapixels")
            flat = _flatten(ImageOps.exif_transpose(image), how.background)
            fitted = _FITS[how.fit](flat.convert(how.mode), how)
    except UnidentifiedImageError as error:
        raise UnreadableError("not a picture that Pillow knows, whatever its name says") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"more than {how.megapixels} megapixels") from error
    # Pillow's decoders let these through for files that are cut short or damaged
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, EOFError) as error:
        raise UnreadableError(f"damaged or cut short ({error})") from error
    except (struct.error, zlib.error, MemoryError, AttributeError, AssertionError, RuntimeError) as error:
        raise UnreadableError(f"cannot be decoded ({type(error).__name__}: {error})") from error
    pixels = np.asarray(fitted)
    return pixels[None] if how.channels == 1 else pixels.transpose(2, 0, 1)


def _flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Return the picture in a mode of eight bits without transparency."""
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image), 0, 65535)
    if image.mode == "I":
        values = np.asarray(image)
        wide = values.min() < 0 or values.max() > 65535
        return _grey(values, int(values.min()), int(values.max())) if wide else _grey(values, 0, 65535)
    if image.mode == "F":
        values = np.asarray(image)
        finite = values[np.isfinite(values)]
        if not finite.size:
            raise UnreadableError("no finite value in it")
        low, high = float(finite.min()), float(finite.max())
        return _grey(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (*background, 255)), layer).convert("RGB")
    return image


def _grey(values: np.ndarray, low: float, high: float) -> Image.Image:
    """Return values as a grey picture: `low` is black, `high` is white, a constant picture black."""
    extent = (high - low) or 1.0
    return Image.fromarray(((values.astype(np.float64) - low) * 255 / extent + 0.5).astype(np.uint8))


def _crop(image: Image.Image, how: Preparation) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize((how.size, how.size), RESAMPLE, box=(left, top, left + side, top + side))


def _pad(image: Image.Image, how: Preparation) -> Image.Image:
    side = max(image.size)
    width, height = (max(1, round(extent * how.size / side)) for extent in image.size)
    square = Image.new("RGB", (how.size, how.size), how.background).convert(how.mode)
    square.paste(image.resize((width, height), RESAMPLE), ((how.size - width) // 2, (how.size - height) // 2))
    return square


def _stretch(image: Image.Image, how: Preparation) -> Image.Image:
    return image.resize((how.size, how.size), RESAMPLE)


_FITS = {"crop": _crop, "pad": _pad, "stretch": _stretch}
