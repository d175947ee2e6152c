"""``segcore runtimes``: which ways to execute a model there are here, and what would add the others."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segcore.cli_options import json_option


@click.command()
@click.option("--device", default="auto", show_default=True, help="Device that they would run on.")
@json_option
def runtimes(device: str, as_json: bool) -> None:
    """List every runtime with its precisions on a device, and why the rest is not here."""
    from segcore.devices import open_device
    from segcore.runtimes import RUNTIMES, why_not

    chosen = open_device(device)
    found = {
        name: {precision: why_not(name, chosen, precision) for precision in runtime.precisions}
        for name, runtime in RUNTIMES.items()
    }
    if as_json:
        click.echo(json.dumps({"device": chosen.name, "runtimes": found}, indent=2))
        return
    table = Table("runtime", f"on {chosen.name}", "what it is", box=None, pad_edge=False, header_style="bold")
    reasons: dict[str, str] = {}
    for name, precisions in found.items():
        here = [precision for precision, reason in precisions.items() if reason is None]
        mark = Text(" ".join(here), style="green") if here else Text("no", style="dim")
        table.add_row(name, mark, Text(RUNTIMES[name].summary))
        if here:
            reasons |= {f"{name} {precision}": reason for precision, reason in precisions.items() if reason}
        else:
            reasons[name] = next(reason for reason in precisions.values() if reason)
    console = Console()
    console.print(table)
    for what, reason in reasons.items():
        console.print(Text(f"not here: {what}: {reason}", style="dim"))
