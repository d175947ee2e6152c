"""Make text from outside printable, and format parts of messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

MAX_TEXT = 4096
"""Characters of a text in a run file: as many as a path may have bytes."""


def decoded(data: bytes) -> str:
    """Return the text of a file in UTF-8, UTF-16 or UTF-32 without byte order marks; else UnicodeDecodeError."""
    # Marks are also where files were joined.
    return data.decode(json.detect_encoding(data)).replace("\ufeff", "")


def printable(text: str) -> str:
    """Return text in which each run of characters that are not printable (`str.isprintable`) is a space."""
    if text.isprintable():
        return text
    return re.sub("\0+", " ", "".join(char if char.isprintable() else "\0" for char in text))


def bounded(text: str) -> str:
    """Return printable text of at most `MAX_TEXT` characters; what is cut off ends in an ellipsis."""
    clean = printable(text)
    return clean if len(clean) <= MAX_TEXT else f"{clean[: MAX_TEXT - 1]}…"


def listed(items: Iterable[object], most: int) -> str:
    """Return the first `most` items separated by commas, with dots if there are others."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:most]) + ", ..." * (len(texts) > most)


def first_line(text: object) -> str:
    """Return the first line of a text, or of an exception's; empty if it has none."""
    return next(iter(str(text).strip().splitlines()), "")
