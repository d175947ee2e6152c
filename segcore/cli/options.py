"""What several commands share: options, exit codes and settings made from them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcore.core.errors import UsageError
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


class FiniteFloat(click.FloatRange):
    """A number within limits, neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number.

        Raises:
            UsageError: it is NaN or infinite.
        """
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            raise UsageError(f"{param.opts[0] if param else 'option'} {value}: wanted a finite number")
        return number


def fetch_settings(offline: bool) -> FetchSettings:
    """Return the environment's download settings, switched off line if asked for."""
    from segcore.inputs.download import FetchSettings

    settings = FetchSettings.from_env()
    return replace(settings, offline=True) if offline else settings


def listing(*columns: str) -> Table:
    """Return an empty table without lines, whole in a narrow terminal."""
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="bold")
