"""The one tree of errors that segcore raises on purpose.

::

    SegcoreError                 expected: one line on stderr, exit code 2
    ├── UsageError               an option or argument that cannot be used
    ├── ImageError               an image that cannot be read
    ├── CaseError                a case file with problems (all of them, with line numbers)
    ├── DownloadError            a file that could not be fetched
    │   ├── OfflineError         ... because the network is off or out of reach
    │   └── IntegrityError       ... because its bytes are not the promised ones
    ├── ModelError               an unknown model, or weights that do not fit
    ├── DeviceError              a device or runtime that was asked for and is not there
    ├── DatasetError             a dataset whose layout or files are wrong
    ├── NotInstalledError        an optional package that is needed and not installed
    ├── ArmError                 an arm of the paired gate that could not run what it was asked to
    ├── RecordError              a run file that cannot be read or understood
    └── OutputError              a file or stream that cannot be written

A message says what went wrong, where, what was wanted, what was found and what to do next. Anything else that
escapes is a bug and shows a traceback.
"""

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
    """Base of every expected error; ``str(error)`` is fit to be shown to a user."""


class UsageError(SegcoreError):
    """An option or argument cannot be used."""


class ImageError(SegcoreError):
    """An image cannot be read."""


class CaseError(SegcoreError):
    """One or more case files are wrong; the message lists every problem."""


class DownloadError(SegcoreError):
    """A file could not be fetched."""


class OfflineError(DownloadError):
    """The network is switched off or out of reach, and the file is not in the cache."""


class IntegrityError(DownloadError):
    """The bytes received, or found in the cache, are not the promised ones."""


class ModelError(SegcoreError):
    """The model is unknown, or its weights do not fit."""


class DeviceError(SegcoreError):
    """A device or runtime was asked for by name and is not available."""


class DatasetError(SegcoreError):
    """A dataset's layout or one of its files is wrong."""


class NotInstalledError(SegcoreError):
    """An optional package is needed and not installed; the message names the extra that installs it."""


class ArmError(SegcoreError):
    """An arm of the paired gate could not run what it was asked to."""


class RecordError(SegcoreError):
    """A run file cannot be read or understood."""


class OutputError(SegcoreError):
    """A file or stream cannot be written."""


def nearest_hint(found: str, valid: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest valid name, or an empty string."""
    matches = difflib.get_close_matches(found.lower(), list(valid), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
