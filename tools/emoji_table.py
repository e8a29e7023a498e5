"""Which emoji emoji32 holds and which class each belongs to: tables of code points, read by build_embedded_data.py.

Rule: the first code point of a sequence decides. Code points in PEOPLE and NOT_PICTURES are left out; the rest gets the
class whose ranges hold it (they do not overlap), and `objects` where none does. Whole human figures, portraits, couples,
families, trolls and dolls are PEOPLE; hands and single organs without a skin tone are the class `body`; smileys, monsters
and robots are `faces`. Skin-tone and gender variants are never asked of the font.
"""

from __future__ import annotations

CLASSES = (
    "faces",
    "body",
    "animals",
    "nature",
    "food",
    "travel",
    "activities",
    "clothing",
    "objects",
    "symbols",
    "flags",
)
DEFAULT_CLASS = "objects"

PEOPLE = """
    1F385 1F38E 1F3C2-1F3C4 1F3C7 1F3CA-1F3CC 1F464-1F478 1F47C 1F481-1F483 1F486-1F487 1F48F 1F491 1F574-1F575 1F57A
    1F5E3 1F645-1F647 1F64B 1F64D-1F64E 1F6A3 1F6B4-1F6B6 1F6C0 1F6CC 1F926 1F930-1F931 1F934-1F93E 1F977 1F9B0-1F9B3
    1F9B8-1F9B9 1F9CC-1F9CF 1F9D1-1F9DF 1FA86 1FAC2-1FAC5 26F7 26F9
"""
# control characters, bare digits, skin-tone swatches, halves of flags, tags, private-use doubles of flags and keycaps
NOT_PICTURES = "0-A8 200D 20E3 FE0F 1F3FB-1F3FF 1F1E6-1F1FF E0020-E007F FE000-FFFFF"

RANGES = {
    "flags": "1F38C 1F3C1 1F3F3-1F3F4 1F6A9",
    "faces": """
        2639-263A 1F479-1F47B 1F47D-1F480 1F4A9 1F600-1F644 1F910-1F917 1F920-1F925 1F927-1F92F 1F970-1F976 1F978-1F97A
        1F9D0 1FAE0-1FAE5 1FAE8
    """,
    "body": """
        261D 270A-270D 1F440-1F450 1F463 1F485 1F4AA 1F590-1F596 1F64C 1F64F 1F90C 1F90F 1F918-1F91F 1F932-1F933
        1F9B4-1F9B7 1F9BB 1F9BE-1F9BF 1F9E0 1FAC0-1FAC1 1FAE6 1FAF0-1FAF8
    """,
    "animals": """
        1F400-1F43F 1F54A 1F577-1F578 1F648-1F64A 1F980-1F99F 1F9A1-1F9A9 1F9AB-1F9AE 1FAB0-1FAB3 1FAB6 1FAB8 1FABC-1FABF
        1FACE-1FACF
    """,
    "nature": """
        2600-2604 2614 2618 26A1 26C4-26C8 2744 2B50 1F300 1F302 1F308 1F30A-1F320 1F324-1F32C 1F330-1F335 1F337-1F33C
        1F33E-1F344 1F384 1F38B 1F38D 1F3F5 1F490 1F4A5-1F4A8 1F4AB 1F525 1F940 1F9A0 1F9CA 1FA90 1FAA8 1FAB4-1FAB5
        1FAB7 1FAB9-1FABB 1FAE7
    """,
    "food": """
        2615 1F32D-1F32F 1F336 1F33D 1F345-1F37F 1F382 1F942-1F944 1F950-1F96F 1F9AA 1F9C0-1F9C9 1F9CB 1FAD0-1FADB
    """,
    "travel": """
        2693 26E9-26EA 26F0-26F2 26F4-26F5 26FA 26FD 2708 1F301 1F303-1F307 1F309 1F3A0-1F3A2 1F3AA 1F3CD-1F3CE
        1F3D4-1F3E6 1F3E8-1F3ED 1F3EF-1F3F0 1F492 1F4BA 1F54B-1F54D 1F5FA-1F5FF 1F680-1F6A2 1F6A4-1F6A8 1F6B2 1F6D1
        1F6D5-1F6D6 1F6DD-1F6DF 1F6E2-1F6FC 1F9BC-1F9BD 1FA82
    """,
    "activities": """
        26BD-26BE 26F3 26F8 1F004 1F0CF 1F380-1F381 1F383 1F386-1F38A 1F38F-1F391 1F396-1F397 1F39F 1F3A3 1F3A8
        1F3AB 1F3AD-1F3BC 1F3BE-1F3C0 1F3C5-1F3C6 1F3C8-1F3C9 1F3CF-1F3D3 1F3F8-1F3F9 1F579 1F93F 1F941 1F945-1F949
        1F94A 1F94C-1F94F 1F9E7-1F9E9 1F9F8 1FA80-1FA81 1FA83-1FA85 1FA87-1FA88 1FA95 1FA97-1FA98 1FAA9
    """,
    "clothing": """
        26D1 1F392-1F393 1F3A9 1F3BD 1F451-1F462 1F48D 1F576 1F94B 1F97B-1F97F 1F9BA 1F9E2-1F9E6 1FA70-1FA74 1FA96
        1FAAD-1FAAE
    """,
    "symbols": """
        A9 AE 203C-2199 21A9-21AA 23CF 23E9-23EF 23F8-24C2 25AA-25FE 2611 2620-2638 2640-2660 2663-267F 2695 269B-26A0
        26A7-26AB 26CE 26D4 2705 2714-271D 2721 2728 2733-2734 2747-27BF 2934-2B1C 2B55-3299 1F170-1F251 1F3A6 1F3E7
        1F493-1F49F 1F4A0 1F4A2 1F4A4 1F4AC-1F4AF 1F4B1-1F4B2 1F4B9 1F4F3-1F4F6 1F500-1F507 1F515 1F518-1F524 1F52F-1F53D
        1F549 1F54E-1F567 1F5A4 1F5E8-1F5EF 1F6AB 1F6AD-1F6B1 1F6B3 1F6B7-1F6BC 1F6BE 1F6C2-1F6C5 1F6D0 1F6D7 1F6DC
        1F7E0-1F7F0 1F90D-1F90E 1F9E1 1FA75-1FA77 1FAAF
    """,
}

ZWJ, VS16 = "\u200d", "\ufe0f"
TAG = 0xE0000
# sequences that the font draws as one picture without people; those of the cat and of the birds are new colours only
JOINED = tuple(
    ZWJ.join(parts)
    for parts in (
        ("\U0001f62e", "\U0001f4a8"),
        ("\U0001f635", "\U0001f4ab"),
        ("\U0001f636", "\U0001f32b" + VS16),
        ("\u2764" + VS16, "\U0001f525"),
        ("\u2764" + VS16, "\U0001fa79"),
        ("\U0001f441" + VS16, "\U0001f5e8" + VS16),
        ("\U0001f415", "\U0001f9ba"),
        ("\U0001f408", "\u2b1b"),
        ("\U0001f43b", "\u2744" + VS16),
        ("\U0001f426", "\u2b1b"),
        ("\U0001f3f3" + VS16, "\U0001f308"),
        ("\U0001f3f3" + VS16, "\u26a7" + VS16),
        ("\U0001f3f4", "\u2620" + VS16),
    )
)
KEYCAPS = tuple(digit + VS16 + "\u20e3" for digit in "#*0123456789")
LETTERS = tuple(chr(0x1F1E6 + i) for i in range(26))
COUNTRY_FLAGS = tuple(first + second for first in LETTERS for second in LETTERS)
REGION_FLAGS = tuple(
    "\U0001f3f4" + "".join(chr(TAG + ord(c)) for c in region) + "\U000e007f" for region in ("gbeng", "gbsct", "gbwls")
)


def points(ranges: str) -> frozenset[int]:
    """Return the code points of a table: hexadecimal numbers and first-last ranges, separated by blanks."""
    found: set[int] = set()
    for item in ranges.split():
        first, _, last = item.partition("-")
        found.update(range(int(first, 16), int(last or first, 16) + 1))
    return frozenset(found)


_LEFT_OUT = points(PEOPLE) | points(NOT_PICTURES)
_POINTS = {name: points(ranges) for name, ranges in RANGES.items()}


def wanted(point: int) -> bool:
    """Say whether a single code point of the font is a picture without people."""
    return point not in _LEFT_OUT


def class_of(sequence: str) -> str:
    """Return the class of an emoji."""
    if sequence in KEYCAPS:
        return "symbols"
    first = ord(sequence[0])
    if 0x1F1E6 <= first <= 0x1F1FF:
        return "flags" if len(sequence) == 2 else "symbols"
    return next((name for name, members in _POINTS.items() if first in members), DEFAULT_CLASS)
