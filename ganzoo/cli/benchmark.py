"""`ganzoo benchmark`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..console import err, plain, print_json, print_table, steps
from ..errors import PluginError, RecipeError, did_you_mean
from . import stats
from .commands import complete_recipes, completer

if TYPE_CHECKING:
    from ..benchmark.engines import Engine
    from ..benchmark.protocol import Protocol
    from ..benchmark.sweep import Result

UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
BUDGETS = {"smoke": 2_000, "short": 50_000, "full": 0}
TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
NO_FID = 3  # exit code of --require-fid without it
FORMATS = ("table", "json", "csv", "md", "html")


class WithDefault(click.Group):
    """A group whose first argument may be a subcommand; anything else goes to `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` before what is no subcommand."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def budget(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Read 200k, 2m, 500_000, or one of smoke, short and full."""
    if value in BUDGETS:
        return BUDGETS[value]
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)([km]?)", value.lower())
    if not match:
        raise click.BadParameter(f"{value!r} is no number of samples; write 200k, 2m, 500_000, smoke, short or full")
    return int(float(match[1].replace("_", "")) * UNITS[match[2]])


def time_limit(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Read 90s, 30m or 2h as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h|)", value or "0")
    if not match:
        raise click.BadParameter(f"{value!r} is no time; write 90s, 30m or 2h")
    return float(match[1]) * TIMES[match[2]]


def seeds(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Read 0,1,2."""
    if value and not re.fullmatch(r"\d+(,\d+)*", value):
        raise click.BadParameter(f"{value!r} is no list of seeds; write 0,1,2")
    return tuple(int(seed) for seed in value.split(",")) if value else ()


def shard(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """Read i/n, counted from 1."""
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"{value!r} is no share of the work; write 1/4 to 4/4 for four of them")
    return int(match[1]) - 1, int(match[2])


def words(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Read a,b,c."""
    return tuple(filter(None, (word.strip() for word in value.split(","))))


@click.group("benchmark", cls=WithDefault, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Score models under one frozen protocol and make a leaderboard of them.

    \b
    ganzoo benchmark                                   every zoo model that has a checkpoint
    ganzoo benchmark --suite diversity                 how many modes do methods cover?
    ganzoo benchmark dcgan 'wgan*' runs/mine           some of them, or a run of your own
    ganzoo benchmark --train-missing --budget 200k     train the others first, all with one budget
    ganzoo benchmark selftest                          are the metrics right on this machine?
    ganzoo benchmark run --help                        every option of a sweep; the word `run` may be left out
    """


command.add_command(stats.command)


@command.command("run")
@click.argument("targets", nargs=-1, metavar="[NAME|PATTERN|RUN|CHECKPOINT]...", shell_complete=complete_recipes)
@click.option("--suite", default="", metavar="NAME|FILE", help="Train and compare the contestants of a suite; targets are "
              "then its SETs or SET/CONTESTANTs.")  # fmt: skip
@click.option("--protocol", default="", metavar="NAME|FILE", help="How to score.  [default: fid10k with its verified "
              "weights, else offline10k]")  # fmt: skip
@click.option("--data", "--dataset", default="", metavar="NAME|PATH", help="Train and score on this data.",
              shell_complete=completer("dataset"))  # fmt: skip
@click.option("--extractor", "extractors", multiple=True, metavar="NAME", help="Other extractors; the first one ranks.",
              shell_complete=completer("extractor"))  # fmt: skip
@click.option("--weights", multiple=True, metavar="[EXTRACTOR=]FILE", help="A file of weights for an extractor.")
@click.option("--metrics", default="", callback=words, metavar="A,B", help="Other metrics than the protocol's.")
@click.option("--samples", type=click.IntRange(2), default=None, help="Another number of samples.")
@click.option("--eval-seeds", default="", callback=seeds, metavar="0,1,2", help="Other seeds of the samples.")
@click.option("--weights-kind", type=click.Choice(["ema", "raw"]), default=None, help="Averaged or raw weights.")
@click.option("--bn", type=click.Choice(["eval", "batch"]), default=None, help="What batch norm uses when sampling.")
@click.option("--truncation", type=click.FloatRange(0), default=None, help="Nearer to the mean, as `ganzoo sample` has it.")
@click.option("--reference-split", type=click.Choice(["train", "test"]), default=None, help="What to compare with.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where runs are.")
@click.option("--train-missing", is_flag=True, help="Train the models that have no checkpoint first.")
@click.option("--budget", default="full", callback=budget, metavar="200k|smoke|short|full", show_default=True,
              help="Samples of each such training; full: the recipe's own.")  # fmt: skip
@click.option("--train-seeds", default="", callback=seeds, metavar="0,1,2", help="Train each model with each of these.")
@click.option("--device", default="auto", show_default=True, help="Where to compute.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True,
              help="Samples held at once; no score depends on it.")  # fmt: skip
@click.option("--engine", default="local", show_default=True, metavar="local|ray", help="Where the work is done.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default="as many as there are cores",
              help="How many processes share it; no score depends on it.")  # fmt: skip
@click.option("--shard", default="1/1", callback=shard, metavar="I/N", show_default=True, help="Do one of N shares.")
@click.option("--time-limit", default="", callback=time_limit, metavar="30m", help="Stop after the task that reaches it.")
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="Also score real images, copies, noise.")
@click.option("--resume/--fresh", "resume", default=True, show_default=True, help="Keep finished results, or start anew.")
@click.option("--require-fid", is_flag=True, help="Exit with code 3 where FID itself cannot be had.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("leaderboard"), show_default=True,
              help="The folder of results, entries and pages.")  # fmt: skip
@click.option("--format", "formats", default="table,json,csv,md,html", callback=words, metavar="A,B", show_default=True,
              help="The table on standard output, and files in the folder.")  # fmt: skip
@click.option("--sort", default="", metavar="COLUMN", help="Sort the table by this column.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json-stdout", "as_json", is_flag=True, help="Print the boards as JSON instead of the table.")
def run(**asked: Any) -> int:
    """Score models and write a leaderboard; the same command goes on where it was stopped."""
    if asked["suite"]:
        from . import suite

        return suite.run(asked)
    from ..benchmark.launch import together

    with together(asked["device"]) as (leads, engine):
        return _run(asked, engine) if leads else 0


def _run(asked: dict[str, Any], engine: Engine | None) -> int:
    """Do what was asked for; the processes of a launch have an engine of their own."""
    from ..benchmark.sweep import sweep
    from ..registry import registry

    known = registry()
    unknown = [name for name in asked["formats"] if name not in FORMATS]
    if unknown:
        raise click.UsageError(f"there is no format {unknown[0]!r}; there are: {', '.join(FORMATS)}")
    _check_engine(asked["engine"])
    if engine:
        _refuse_own("engine", "workers")
        asked |= {"engine": engine, "workers": 1}  # one task at a time
    protocol, has_fid = _protocol(asked, known)
    _check(asked, protocol, known)
    result = sweep(_order(asked, protocol), known, steps(asked["quiet"]))
    _publish(result, asked)
    if result.left:
        err().print(f"{result.left} results are still missing; the same command goes on")
    if asked["require_fid"] and not has_fid:
        err().print("error: --require-fid: these scores are not FID; give the verified weights with --weights")
        return NO_FID
    return 0


def _check(asked: dict[str, Any], protocol: Protocol, known: Any) -> None:
    """Refuse what cannot be done before anything is trained for it."""
    from ..benchmark.columns import chosen
    from ..benchmark.measures import build

    build(protocol.metrics, protocol.options)
    for name in protocol.extractors:
        known.find("extractor", name)
    chosen([asked["sort"].lstrip("-")] if asked["sort"] else [])


def _check_engine(name: str) -> None:
    from ..benchmark.engines import ENGINES

    if name not in ENGINES:
        raise click.UsageError(
            f"there is no engine {name!r}{did_you_mean(name, ENGINES)} (there are: {', '.join(ENGINES)})"
        )


def _refuse_own(*options: str) -> None:
    """Refuse options that say who does the work, where torchrun has said so."""
    context = click.get_current_context()
    for option in options:
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"the processes that torchrun started do all the work; leave --{option} out")


def _protocol(asked: dict[str, Any], known: Any) -> tuple[Protocol, bool]:
    """Return the protocol that was asked for with its changes, and whether its scores are FID."""
    from ..benchmark.protocol import find
    from ..errors import DataError

    name = asked["protocol"]
    has_fid = False
    reserved = find("fid10k", known)
    try:
        file = _weights(asked["weights"])
        options = {"weights": next(iter(file.values()))} if len(file) == 1 else {}
        extractor = known.build("extractor", reserved.extractors[0], options)
        has_fid = bool(getattr(extractor, "reserved", ""))
    except (DataError, PluginError) as error:
        if name and find(name, known).extractors == reserved.extractors and not asked["extractors"]:
            raise
        if not name:
            err().print(plain(f"note: no FID, but distances in other features: {error}"))
    protocol = find(name or ("fid10k" if has_fid else "offline10k"), known)
    changed = protocol.changed(
        samples=asked["samples"],
        seeds=asked["eval_seeds"] or None,
        weights=asked["weights_kind"],
        norm=asked["bn"],
        truncation=asked["truncation"],
        reference=asked["reference_split"],
        extractors=asked["extractors"] or None,
        metrics=asked["metrics"] or None,
        options={key: protocol.options[key] for key in asked["metrics"] if key in protocol.options}
        if asked["metrics"]
        else None,
    )
    return changed, has_fid and protocol.extractors == reserved.extractors


def _weights(texts: tuple[str, ...]) -> dict[str, str]:
    files: dict[str, str] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        name, file = (name, file) if equals and not Path(text).exists() else ("", text)
        if not Path(file).expanduser().is_file():
            raise RecipeError(f"--weights {file!r} is no file; give the path of an extractor's weights")
        files[name] = file
    return files


def _order(asked: dict[str, Any], protocol: Protocol) -> Any:
    from ..benchmark.sweep import Order

    same = ("targets", "data", "runs", "train_missing", "budget", "train_seeds", "device", "baselines", "engine", "workers")
    return Order(
        **{key: asked[key] for key in (*same, "shard", "time_limit", "out")},
        protocol=protocol,
        weights=_weights(asked["weights"]),
        batch=asked["batch_size"],
        fresh=not asked["resume"],
    )


def _publish(result: Result, asked: dict[str, Any]) -> None:
    """Write entries and pages, and show the table."""
    from ..benchmark import publish

    boards = publish.boards(result, asked["out"])
    written = publish.pages(boards, result.pictures, asked["out"], asked["formats"], asked["sort"])
    if asked["as_json"]:
        print_json(publish.as_json(boards))
    if "table" in asked["formats"] and not asked["as_json"]:
        publish.show(boards, asked["sort"])
    for path in written:
        err().print(f"written: {path}")


@command.command("selftest")
@click.argument("names", nargs=-1, metavar="[CASE]...")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def selftest(names: tuple[str, ...], as_json: bool) -> int:
    """Check the metrics of this machine against known values. Exit code 1 where one is off."""
    from dataclasses import asdict

    from ..benchmark import selftest_paths  # noqa: F401 (adds its cases)
    from ..benchmark.protocol import anchors
    from ..benchmark.selftest import run as cases
    from ..registry import registry

    known = registry()
    found = list(cases(names, anchors=lambda: anchors(known)))
    if as_json:
        print_json([asdict(case) for case in found])
    else:
        marks = {True: "ok", False: "WRONG", None: "skipped"}
        rows = [(one.name, marks[one.ok], one.expected, one.found, f"{one.seconds:.1f} s") for one in found]
        print_table(("name", "result", "expected", "found", "time"), rows)
        total = sum(one.seconds for one in found)
        click.echo(f"{sum(one.ok is True for one in found)} of {len(found)} hold, {total:.0f} s")
    return int(any(one.ok is False for one in found))
