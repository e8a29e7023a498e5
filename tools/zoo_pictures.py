"""Put the last sample grids of trained recipes into docs/images/zoo, where docs/zoo.md shows them.

    python tools/zoo_pictures.py runs/*        then: python tools/generate_docs.py

A grid becomes as small as its samples are; how much its training saw and its seed stay inside the picture, for the caption.
Runs that are not finished, or whose recipe is not one of ganzoo's zoo as shipped, are left out with a word why.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

from PIL import Image

from ganzoo.pictures import TARGET, save_png
from ganzoo.registry import registry
from ganzoo.runs import RunFolder
from ganzoo.zoo import Request, resolve

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images" / "zoo"


def reason_against(folder: RunFolder) -> str:
    """Return why a run's picture does not show what its recipe makes, or nothing."""
    if folder.state().get("state") != "finished":
        return "is not finished"
    raw = tomllib.loads(folder.recipe_file.read_text(encoding="utf-8"))
    shipped = resolve(str(raw["name"]), Request(), registry()).raw
    same = ("data", "architecture", "loss", "regularizer", "game", "latent", "optimizer", "stages")
    changed = [key for key in same if raw.get(key) != shipped.get(key)]
    told = ("samples", "seed")  # by the caption, which names no other setting
    trained, meant = ({key: value for key, value in one["train"].items() if key not in told} for one in (raw, shipped))
    changed += ["train"] * (trained != meant)
    return f"has another [{changed[0]}] than the zoo's" if changed else ""


def shrunk(path: Path) -> tuple[Image.Image, dict[str, str]]:
    """Return a grid without its enlargement by a whole factor, and its notes."""
    with Image.open(path) as picture:
        notes = {key: str(value) for key, value in picture.info.items() if key in ("recipe", "samples", "seed")}
        side = max(picture.size)
        for factor in range(max(TARGET // 16, 1), 0, -1):  # the largest factor under which nothing is lost
            small = picture.resize((picture.width // factor, picture.height // factor), Image.Resampling.NEAREST)
            if side % factor == 0 and small.resize(picture.size, Image.Resampling.NEAREST).tobytes() == picture.tobytes():
                return small, notes
        return picture.copy(), notes


def main() -> None:
    """Copy and say what was left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    for place in parser.parse_args().runs:
        folder = RunFolder(place)
        against = reason_against(folder)
        if against:
            print(f"{place} {against}; left out", file=sys.stderr)
            continue
        picture, notes = shrunk(sorted(folder.samples.glob("*.png"))[-1])
        target = IMAGES / f"{notes['recipe']}.png"
        save_png(picture, target, notes)
        print(target)


if __name__ == "__main__":
    main()
