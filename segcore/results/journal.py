"""The journal of a run in progress, and what becomes of it if the run is killed; see `store.journal_path`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from segcore.core.errors import OutputError, SegcoreError
from segcore.core.records import OutcomeRecord
from segcore.results.store import journal_path, parse_run, read_with_journal, save_document


class Journal:
    """The open journal of a run in progress, which is locked so that nobody takes it for that of a killed one.

    Its lines are of the run that has this `RunRecord.started`; those of other runs of the file are ignored.
    """

    def __init__(self, path: Path, started: str) -> None:
        self._path, self._started = journal_path(path), started
        self._file: BinaryIO | None = None

    def append(self, entries: Sequence[Mapping[str, Any]], outcome: OutcomeRecord) -> None:
        """Append an item: its benchmarks in pytest-benchmark's format, if it got so far, and how it ended.

        A later outcome of the same key counts. Raises OutputError if the journal cannot be written.
        """
        line = {"started": self._started, "benchmarks": entries, "outcome": outcome.model_dump(mode="json")}
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(json.dumps(line, default=str).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}; choose another path") from error

    def _open(self) -> BinaryIO:
        while True:
            file = self._path.open("ab")
            _lock(file, wait=True)
            with contextlib.suppress(FileNotFoundError):  # it was taken for a leftover before it was locked
                if os.path.samestat(self._path.stat(), os.fstat(file.fileno())):
                    return file
            file.close()

    def close(self) -> None:
        """Close the journal: from then on it is that of a killed run."""
        with contextlib.suppress(OSError):
            if self._file:
                self._file.close()
        self._file = None

    def discard(self) -> None:
        """Close the journal and delete it: the run file has everything."""
        self.close()
        self._path.unlink(missing_ok=True)


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Lock a file until it is closed; return whether that is possible here and, without waiting, at once."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def fold_journals(directory: Path) -> None:
    """Add what the journals of killed runs hold to their run files, and delete them.

    Whatever cannot be read or written stays as it is.
    """
    for journal in filter(Path.is_file, directory.glob("*.partial.jsonl")):
        path = journal.with_name(f"{journal.name.removesuffix('.partial.jsonl')}.json")
        with contextlib.suppress(OSError, SegcoreError), journal.open("rb") as file:
            if _lock(file, wait=False):
                if path.exists():
                    document = read_with_journal(path)
                    parse_run(document, path)
                    save_document(path, document)
                journal.unlink()
