"""The journal of an evaluation: one line per scored image, so that an interrupted evaluation can be resumed.

The first line identifies the evaluation; the journal of another one is refused. A line cut off by a kill is dropped and
its image scored again. Failures are not written, so they are tried again. The end of the first line says whether the
evaluation has finished; the journal of one that has not is not replaced.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from segcore.core.errors import OutputError, RecordError
from segcore.core.files import is_replaced
from segcore.evaluation.scoring import Counts, ImageScore

_FORMAT = 2
_SYNC_S = 1.0
"""Seconds of work that a power cut can cost; a killed process loses nothing that was appended."""
_UNFINISHED, _FINISHED = b', "finished": 0}\n', b', "finished": 1}\n'
"""Ends of the first line, of one length."""


class Journal:
    """An append-only file of image scores (JSON lines), locked until it is closed.

    `identity` determines the scores: it must be equal to resume. `cells` is the length of a row of counts
    (`segcore.evaluation.scoring.count_cells`).

    Raises:
        RecordError: another process has the journal open, or it is that of another evaluation, or of one that did not
            finish and is not resumed.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, object], resume: bool, cells: int) -> None:
        self._path = path
        self._cells = cells
        self._synced = time.monotonic()
        self._head = json.dumps({"segcore journal": _FORMAT, **identity}, sort_keys=True).encode()[:-1]
        with ExitStack() as stack, self._writing("choose another --out"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock(stack)
            if not is_replaced(path):
                raise OSError("it is not a regular file")
            self._file = stack.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b"))
            found = self._file.readline()
            if resume and found:
                self._check_head(found)
                self._file.truncate(len(found) + sum(len(line) for line in self._file if line.endswith(b"\n")))
            else:
                self._check_finished(found)
                self._file.truncate(0)
            self._write(0, self._head + _UNFINISHED)
            self._open = stack.pop_all()

    def _lock(self, stack: ExitStack) -> None:
        target = self._path.resolve()
        file = target.with_name(target.name + ".lock")
        lock = FileLock(file, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RecordError(
                f"{self._path}: another evaluation is writing it; wait for its end, or choose another --out"
            ) from None
        stack.callback(lock.release)
        stack.callback(file.unlink, missing_ok=True)  # while locked: who waits for it sees that it is gone

    @contextmanager
    def _writing(self, remedy: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self._path}: journal cannot be written: {error.strerror or error}; {remedy}"
            ) from error

    def _check_head(self, found: bytes) -> None:
        if found in (self._head + _UNFINISHED, self._head + _FINISHED):
            return
        try:
            before, now = json.loads(found), json.loads(self._head + b"}")
            differing = [key for key in now if before.get(key) != now[key]]
        except (ValueError, AttributeError):
            differing = ["its first line"]
        raise RecordError(
            f"{self._path}: cannot be resumed: it is the journal of another evaluation ({', '.join(differing)} "
            "differ); delete it to start a new one, or choose another --out"
        )

    def _check_finished(self, found: bytes) -> None:
        images = sum(1 for _ in self._file)
        if images and found.endswith(_UNFINISHED):
            raise RecordError(
                f"{self._path}: has the scores of {images} images of an evaluation that did not finish; "
                "continue it with --resume, or delete this file to start anew"
            )

    def scores(self) -> Iterator[ImageScore]:
        """Yield the scores in the journal, each image once.

        Raises:
            RecordError: a line is damaged.
        """
        self._file.seek(0)
        self._file.readline()
        for number, line in enumerate(self._file, start=2):
            try:
                entry = json.loads(line)
                if entry.pop("crc") != _checksum(entry):
                    raise ValueError("its checksum differs")
                counts = {scale: _dense(self._cells, *cells) for scale, cells in entry["counts"].items()}
                yield ImageScore(entry["name"], counts, float(entry["forward_s"]))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                raise RecordError(
                    f"{self._path}:{number}: not an image score ({type(error).__name__}: {error}); "
                    "delete that line to score the image again, or the file to start anew"
                ) from None

    def append(self, score: ImageScore) -> None:
        """Write one image, unless it failed.

        Raises:
            OutputError: the file cannot be written.
        """
        if score.error is not None:
            return
        counts = {scale: _sparse(row) for scale, row in score.counts.items()}
        entry = {"name": score.name, "forward_s": score.forward_s, "counts": counts}
        with self._writing("mend that and continue with --resume"):
            end = self._file.seek(0, os.SEEK_END)
            self._write(end, json.dumps({**entry, "crc": _checksum(entry)}).encode() + b"\n")
            if time.monotonic() - self._synced > _SYNC_S:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def finish(self) -> None:
        """Note that the evaluation has finished, so that the next one may replace the journal."""
        with self._writing("free some space"):
            self._write(0, self._head + _FINISHED)

    def _write(self, position: int, line: bytes) -> None:
        self._file.seek(position)
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        """Sync, close and unlock."""
        with self._open, self._writing("mend that and continue with --resume"):
            self._file.flush()
            os.fsync(self._file.fileno())


def _checksum(entry: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry).encode())


def _sparse(row: Counts) -> tuple[list[int], list[int]]:
    cells = np.flatnonzero(row)
    return cells.tolist(), row[cells].tolist()


def _dense(length: int, cells: list[int], values: list[int]) -> Counts:
    row = np.zeros(length, dtype=np.int64)
    row[cells] = values
    return row
