"""How to write to a terminal, a pipe or a file: with colours or without, and how wide.

``NO_COLOR`` (https://no-color.org) turns colours off; else ``FORCE_COLOR`` (https://force-color.org) turns them on;
else there are colours in a terminal that is not ``TERM=dumb``. ``COLUMNS`` is the width.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def is_terminal(*, stderr: bool = False, dumb: bool = False) -> bool:
    """Return whether standard output (or error) is a terminal, also if it is a `dumb` one that only prints lines."""
    stream = sys.stderr if stderr else sys.stdout
    there = stream is not None and stream.isatty()
    return there and (dumb or os.environ.get("TERM") not in ("dumb", "unknown"))


def has_colours(*, stderr: bool = False) -> bool:
    """Return whether standard output (or error) gets colours."""
    if os.environ.get("NO_COLOR"):
        return False
    return os.environ.get("FORCE_COLOR", "0") not in ("", "0") or is_terminal(stderr=stderr)


def columns() -> int | None:
    """Return the width that ``COLUMNS`` asks for, None if it asks for none."""
    asked = os.environ.get("COLUMNS", "")
    return int(asked) if asked.isascii() and asked.isdecimal() and 0 < int(asked) < 10_000 else None


def progress_console() -> Console:
    """Return a console for progress on standard error, which is shown only in a terminal."""
    from rich.console import Console

    shown = is_terminal(stderr=True)
    return Console(
        stderr=True, force_terminal=shown, color_system="auto" if shown and has_colours(stderr=True) else None
    )
