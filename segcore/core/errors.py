"""The errors that segcore raises on purpose: one tree, rooted at `SegcoreError`; any other exception is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_BAD_INPUT = 2
"""Exit code of an expected error: bad input, or output that could not be written."""
EXIT_CRASHED = 70
"""Exit code of an unexpected error, which prints a traceback: EX_SOFTWARE of sysexits.h."""
EXIT_IO_ERROR = 74
"""Exit code when a file cannot be read or written and no better error names it: EX_IOERR of sysexits.h."""
EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it (128 + SIGINT)."""


class SegcoreError(Exception):
    """Base of every expected error; ``str(error)`` is one line that says what is wrong and what to do next.

    `where` is the file or URL that the message is about, if the error is to be grouped with others of the same message.
    """

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where


class UsageError(SegcoreError):
    """An option or argument cannot be used."""


class ImageError(SegcoreError):
    """An image cannot be read."""


class CaseError(SegcoreError):
    """A case file is invalid; the message lists every problem of every file, one a line."""


class DownloadError(SegcoreError):
    """A file cannot be downloaded."""


class OfflineError(DownloadError):
    """The network is switched off or out of reach, and the file is not in the cache."""


class IntegrityError(DownloadError):
    """The bytes of a file do not have the expected hash."""


class ModelError(SegcoreError):
    """A model is unknown, or its weights do not fit it."""


class ProgramError(SegcoreError):
    """A program that segments photos failed on one of them."""


class DeviceError(SegcoreError):
    """A device or runtime that was named is not available."""


class DatasetError(SegcoreError):
    """The layout of a dataset, or one of its files, is invalid."""


class NotInstalledError(SegcoreError):
    """An optional package is needed and not installed; the message names the extra that installs it."""


class ArmError(SegcoreError):
    """An arm of the paired gate cannot run what it was asked to."""


class NoCodeError(ArmError):
    """An arm imported nothing from its worktree."""


class RecordError(SegcoreError):
    """A run file cannot be read or understood."""


class ConflictError(SegcoreError):
    """Somebody else changed the same data first; nothing was written."""


class EnvironmentFaultError(SegcoreError):
    """The system refuses memory, files, processes or the like; the message says what to set."""


class OutputError(SegcoreError):
    """A file or stream cannot be written."""


def nearest_hint(found: str, valid: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest valid name, or an empty string."""
    matches = difflib.get_close_matches(found.lower(), list(valid), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
