"""The one place where a rendered report becomes a file."""

from __future__ import annotations

from pathlib import Path

from segcore.core.errors import RecordError
from segcore.core.files import atomic_write


def write_text(path: Path, text: str) -> None:
    """Write a report, whole or not at all.

    Raises:
        RecordError: the file cannot be written.
    """
    try:
        atomic_write(path, text.encode())
    except OSError as error:
        raise RecordError(f"{path}: the report cannot be written: {error.strerror}; choose another place") from None
