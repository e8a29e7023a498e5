"""`ganzoo doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from ..console import print_json, print_table


@click.command("doctor")
@click.option(
    "--plugins", "load_plugins", is_flag=True, help="Also import every plugin, each package in a process of its own."
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=None, metavar="FLOAT",
              help="With --plugins: how long the imports of one package may take.  [default: 60]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(load_plugins: bool, seconds: float | None, as_json: bool) -> int:
    """Check this installation: versions, devices, plugins, disk. Exit code 1 where something needs mending."""
    from ..doctor import diagnose

    findings = diagnose(load_plugins=load_plugins, seconds=seconds)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(f.status, f.name, f.text + (f"; {f.remedy}" if f.remedy else "")) for f in findings]
        print_table(("status", "name", "finding"), rows)
    return int(any(finding.status == "problem" for finding in findings))
