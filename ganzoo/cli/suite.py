"""`ganzoo benchmark --suite`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from ..console import err, plain, print_json, print_table, steps

UNDERSTOOD = {
    *("suite", "targets", "train_seeds", "budget", "device", "engine", "workers", "time_limit", "out", "quiet", "as_json"),
}


def run(asked: Mapping[str, Any]) -> int:
    """Train what a suite asks for, count modes, and write and show its table; exit code 1 where a training failed."""
    from ..benchmark import suite_report
    from ..benchmark.diversity import SuiteOrder, entrants, run_suite
    from ..benchmark.engines import engine
    from ..benchmark.suite import find_suite
    from ..busy import cores
    from ..registry import registry

    _refuse_others()
    suite = find_suite(asked["suite"], registry())
    order = SuiteOrder(
        suite=suite,
        out=asked["out"] / suite.name,
        targets=asked["targets"],
        seeds=asked["train_seeds"],
        budget=asked["budget"],
        device="cpu" if asked["device"] == "auto" else asked["device"],  # its networks are too small for anything else
        workers=asked["workers"] or cores(),
        time_limit=asked["time_limit"],
    )
    everybody = entrants(order)
    rows, errors = run_suite(order, engine(asked["engine"]), steps(asked["quiet"]))
    written = [*suite_report.write(suite, rows, order.out), *suite_report.draw(everybody, order.out)]
    if asked["as_json"]:
        print_json([row.as_json() for row in rows])
    else:
        print_table(suite_report.COLUMNS, suite_report.table(rows), suite.summary)
    for path in written:
        err().print(f"written: {path}")
    for text in errors:
        err().print(plain(f"error: {text}"))
    left = sum(not one.trained for one in everybody)
    if left:
        err().print(f"{left} of {len(everybody)} trainings are still missing; the same command goes on")
    return int(bool(errors))


def _refuse_others() -> None:
    """Refuse options that say how images are scored: a suite does not score images."""
    context = click.get_current_context()
    for name in context.params:
        if name not in UNDERSTOOD and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is about scores of images and a suite has none; leave it or --suite out")
