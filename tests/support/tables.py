"""Reading cells of a report's tables."""

from __future__ import annotations

from segcore.report.table import Value


def as_number(value: Value) -> float:
    """Return a cell that must be a number."""
    assert isinstance(value, int | float)
    return value
