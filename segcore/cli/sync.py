"""``segcore sync``: exchange runs with other machines."""

from __future__ import annotations

from pathlib import Path

import click

from segcore.cli.options import POSITIVE, json_option, storage_option


@click.command()
@click.argument("place")
@click.option("--branch", default="segcore-runs", help="Branch of a git repository, made for runs alone.")
@click.option("--keep", type=POSITIVE, help="Runs of this machine to keep in PLACE, of each name, the newest [all].")
@click.option("--pull-only", is_flag=True, help="Push nothing: for a PLACE that you may only read.")
@storage_option
@json_option
def sync(place: str, branch: str, keep: int | None, pull_only: bool, storage: Path, as_json: bool) -> None:
    """Exchange saved runs with PLACE: pull those of other machines, push those recorded here.

    PLACE is a directory, a git repository (path or URL), or the name of a remote of the repository here. Runs get the
    name MACHINE/NAME on every other machine, as in `segcore gate laptop/main latest`. MACHINE is the host name, or
    what SEGCORE_MACHINE says.
    """
    from segcore.cli.output import exit_if_any, print_errors, show, show_json
    from segcore.core.errors import UsageError
    from segcore.core.system import machine_name
    from segcore.core.text import listed
    from segcore.results.sync import open_place
    from segcore.results.sync import sync as exchange

    if keep and pull_only:
        raise UsageError("--keep deletes runs in PLACE, and --pull-only changes nothing there: give one of them")
    machine = machine_name()
    with open_place(place, branch) as opened:
        done = exchange(opened, storage, machine, keep=keep, pull_only=pull_only)
    print_errors(done.left_out)
    runs = {"pulled": done.pulled, "pushed": done.pushed, "pruned": done.pruned}
    names = {what: [entry.full_name for entry in entries] for what, entries in runs.items()}
    if as_json:
        about = {"place": place, "machine": machine}
        show_json({**about, **names, "left_out": done.left_out, "failed": done.failed})
    else:
        lines = [
            f"{len(found)} {what.replace('pruned', 'deleted there')}: {listed(dict.fromkeys(found), 5)}"
            for what, found in names.items()
            if found
        ]
        show(*(lines or ["nothing new"]), f"{place}: this machine is {machine}")
    exit_if_any(done.failed)
