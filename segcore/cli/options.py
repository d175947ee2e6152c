"""What several commands share: options, exit codes and settings made from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segcore.results.naming import DEFAULT_DIRECTORY

if TYPE_CHECKING:
    from rich.table import Table

    from segcore.inputs.download import FetchSettings

offline_option = click.option("--offline", is_flag=True, help="Never touch the network (also SEGCORE_OFFLINE=1).")
calibration_option = click.option(
    "--calibration",
    multiple=True,
    metavar="PHOTOS",
    help="What int8 is calibrated on: photo, directory or pattern (repeatable); default: photos of scikit-image.",
)
storage_option = click.option(
    "--storage",
    default=DEFAULT_DIRECTORY,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Directory of saved runs.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def fetch_settings(offline: bool) -> FetchSettings:
    """Return the environment's download settings, switched off line if asked for."""
    from segcore.inputs.download import FetchSettings

    settings = FetchSettings.from_env()
    return replace(settings, offline=True) if offline else settings


def listing(*columns: str) -> Table:
    """Return an empty table without lines, whole in a narrow terminal."""
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="bold")
