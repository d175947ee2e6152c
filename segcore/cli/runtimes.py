"""``segcore runtimes``: the backends available here."""

from __future__ import annotations

import click

from segcore.cli import completion
from segcore.cli.completion import completes
from segcore.cli.options import json_option


@click.command()
@click.option(
    "--device",
    default="auto",
    shell_complete=completes(completion.devices),
    help="Device to run on; see `segcore devices`.",
)
@json_option
def runtimes(device: str, as_json: bool) -> None:
    """List every runtime with the precisions available on a device, and why the others are not."""
    from segcore.cli.output import NO, show, show_json
    from segcore.inference.devices import open_device
    from segcore.inference.runtimes import RUNTIMES, why_not
    from segcore.report.table import Cell, Table

    chosen = open_device(device)
    found = {
        name: {precision: why_not(name, chosen, precision) for precision in runtime.precisions}
        for name, runtime in RUNTIMES.items()
    }
    if as_json:
        show_json({"device": chosen.name, "runtimes": found})
        return
    rows, notes = [], []
    for name, reasons in found.items():
        available = " ".join(precision for precision, reason in reasons.items() if reason is None)
        rows.append((name, Cell(available, "good") if available else NO, RUNTIMES[name].summary))
        missing = [(f"{name} {precision}", reason) for precision, reason in reasons.items() if reason]
        notes += missing if available else [(name, missing[0][1])]
    show(
        Table(
            ("runtime", f"on {chosen.name}", "description"),
            tuple(rows),
            notes=tuple(f"not available: {backend}: {reason}" for backend, reason in notes),
        )
    )
