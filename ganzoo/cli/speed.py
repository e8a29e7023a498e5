"""`ganzoo speed`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from ..allocator import keep_memory
from ..console import err, plain, print_json, print_table, size
from .commands import complete_recipes, recipe_options

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..registry import Registry
    from ..speed.figures import Spread
    from ..speed.measure import RecipeSpeed, VariantSpeed
    from ..zoo import Request

TIER = "cpu-minutes"  # of the recipes that are measured where none is named
NEXT_KEY = re.compile(r",(?=\s*[\w-]+(?:\.[\w-]+)+\s*=)")  # a comma before another KEY=, and none inside a list
WAITING = 0.02  # share of the time spent waiting for data from which on a recipe is marked
ALIKE = 0.05  # smaller differences between variants are within what one machine varies by


@click.command("speed")
@click.argument("names", nargs=-1, metavar="[RECIPE]...", shell_complete=complete_recipes)
@recipe_options
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:n]|mps|xpu", help="Where to compute.")
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Rounds to measure.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=15.0, show_default=True, metavar="FLOAT",
              help="Begin no more rounds after so long, for each recipe or variant.")  # fmt: skip
@click.option("--compare", "compared", multiple=True, metavar="KEY=VALUE[,KEY=VALUE...]",
              help="A variant with these settings, played by turns with the recipe.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(
    names: tuple[str, ...],
    device: str,
    rounds: int,
    seconds: float,
    compared: tuple[str, ...],
    as_json: bool,
    **asked: Any,
) -> None:
    """Measure how fast recipes train here, where the time goes, and how much of the machine they use; write nothing.

    \b
    ganzoo speed                                           every recipe that trains in minutes on a CPU
    ganzoo speed dcgan-wgangp
    ganzoo speed dcgan --compare train.precision=fp32      how much does one setting gain?

    A recipe of stages is measured in the longest of them.
    """
    from ..registry import registry
    from ..zoo import Request

    known, request = registry(), Request(**asked)
    found = [(name, _variants(name, request, compared, known)) for name in names or _usual(known)]
    keep_memory()
    from ..speed.measure import hardware, measure  # imports torch, which a recipe that is refused need not wait for

    speeds = []
    for name, variants in found:
        err().print(plain(f"measuring {name}" + "".join(f", {text}" for text in compared)))
        speeds.append(measure(variants, known, device, rounds, seconds))
        if not as_json:
            _show(speeds[-1])
    if as_json:
        print_json({"hardware": hardware(device), "recipes": [asdict(speed) for speed in speeds]})
    else:
        _sum_up(speeds, hardware(device))


def _usual(known: Registry) -> list[str]:
    """Return the recipes that are made for a machine such as anybody has."""
    from ..config import read_toml
    from ..zoo import entries

    return [entry.qualified for entry in entries(known) if read_toml(entry.path).get("tier") == TIER]


def _variants(name: str, request: Request, compared: tuple[str, ...], known: Registry) -> Mapping[str, Recipe]:
    """Return the recipe as it is and its variants, each under the settings that it differs in."""
    from ..zoo import resolve

    sets = {"as it is": (), **{text: tuple(NEXT_KEY.split(text)) for text in compared}}
    return {text: resolve(name, replace(request, sets=(*request.sets, *more)), known) for text, more in sets.items()}


def _letters(speed: RecipeSpeed) -> list[tuple[str, VariantSpeed]]:
    """Return the variants with the names that the tables have room for: A, B, C."""
    return [(chr(ord("A") + number), variant) for number, variant in enumerate(speed.variants)]


def _show(speed: RecipeSpeed) -> None:
    """Show where the time of one recipe goes, and its variants side by side."""
    for letter, variant in _letters(speed):
        which = f" {letter} ({variant.name})" if len(speed.variants) > 1 else ""
        counts = f"{variant.samples_per_round} samples a round, rounds measured: {variant.rounds}"
        click.echo(plain(f"{speed.recipe}{which}: {variant.precision}, {counts}"))
        print_table(("part", "turns", "ms a turn", "ms a round", "of the time", "GFLOP", "of the peak"),
                    _parts(speed, variant))  # fmt: skip
        click.echo()
    if len(speed.variants) > 1:
        print_table(("", "images/s", "ratio to A", "quartiles", "settings"), _comparison(speed))
        click.echo(
            f"Ratios are medians over rounds that were played by turns; below {ALIKE:.0%} read them as no difference.\n"
        )


def _parts(speed: RecipeSpeed, variant: VariantSpeed) -> list[tuple[str, ...]]:
    best = max(rate.flops_per_second for rate in speed.peaks[variant.precision].values())
    rows = [
        (part.name, f"{part.turns:.3g}", f"{1000 * part.seconds_per_turn:.1f}", f"{1000 * part.seconds_per_round:.1f}",
         f"{part.seconds_per_round / variant.seconds_per_round:.1%}",
         *((f"{part.flops_per_round / 1e9:.2f}", f"{part.flops_per_round / part.seconds_per_round / best:.0%}")
           if part.flops_per_round else ("", "")))
        for part in variant.parts
    ]  # fmt: skip
    whole = ("round", "", "", f"{1000 * variant.seconds_per_round:.1f}", "", f"{variant.flops_per_round / 1e9:.2f}",
             f"{variant.peak_share:.0%}")  # fmt: skip
    return [*rows, whole]


def _comparison(speed: RecipeSpeed) -> list[tuple[str, ...]]:
    (letter, usual), *others = _letters(speed)
    first: tuple[str, ...] = (letter, f"{usual.images_per_second.median:,.0f}", "1", "", usual.name)
    return [first] + [
        (letter, f"{variant.images_per_second.median:,.0f}", f"{variant.ratio.median:.2f}",
         _quartiles(variant.ratio, ".2f"), variant.name)
        for letter, variant in others
    ]  # fmt: skip


def _quartiles(spread: Spread, form: str) -> str:
    return f"{spread.lower:{form}} to {spread.upper:{form}}"


def _waiting(variant: VariantSpeed) -> str:
    return f"{variant.data_share:.1%}" + " !" * (variant.data_share > WAITING)


def _sum_up(speeds: list[RecipeSpeed], machine: Mapping[str, str | int]) -> None:
    """Show all recipes in one table, and below it what the machine is and can do."""
    from ..speed.peak import better, larger

    rows = [
        (f"{speed.recipe} {letter}" if len(speed.variants) > 1 else speed.recipe,
         f"{variant.images_per_second.median:,.0f}", _quartiles(variant.images_per_second, ",.0f"),
         f"{variant.flops_per_second / 1e9:,.0f}", f"{variant.peak_share:.0%}",
         f"{variant.first_round_seconds:+.1f} s", _waiting(variant), size(speed.memory_bytes))
        for speed in speeds for letter, variant in _letters(speed)
    ]  # fmt: skip
    columns = ("name", "images/s", "quartiles", "GFLOP/s", "of the peak", "first round", "data", "memory")
    print_table(columns, rows)
    if any(variant.data_share > WAITING for speed in speeds for variant in speed.variants):
        click.echo(f"! more than {WAITING:.0%} of the time is spent waiting for data")
    click.echo(plain("\nmachine: " + ", ".join(f"{key} {value}" for key, value in machine.items())))
    peaks: dict[str, Any] = {}
    for speed in speeds:
        for precision, reached in speed.peaks.items():
            peaks[precision] = better(peaks.get(precision, reached), reached)
    for precision, reached in peaks.items():
        best = larger(reached)
        for kind, rate in sorted(reached.items(), key=lambda item: item[0] != best):
            mark = "the peak" if kind == best else "beside it"
            click.echo(f"{precision}, {mark}: {rate.flops_per_second / 1e9:,.0f} GFLOP/s, {kind} {rate.name}")
