"""The journal of an evaluation: one line per scored image, so that an interrupted evaluation can be resumed.

The first line identifies the evaluation; the journal of another one is refused. A line cut off by a kill is dropped and
its image scored again. Failures are not written, so they are tried again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from segcore.core.errors import RecordError
from segcore.evaluation.scoring import COUNT_CELLS, Counts, ImageScore

_SYNC_S = 1.0
"""Seconds of work that a power cut can cost; a killed process loses nothing that was appended."""


class Journal:
    """An append-only file of image scores.

    Args:
        path: JSON lines.
        identity: what determines the scores; must be equal when resuming.
        resume: keep the existing journal instead of starting a new one.

    Raises:
        RecordError: the file cannot be written, or is the journal of another evaluation.
    """

    def __init__(self, path: Path, identity: Mapping[str, object], resume: bool) -> None:
        self._path = path
        self._synced = time.monotonic()
        head = json.dumps({"segcore journal": 1, **identity}, sort_keys=True).encode() + b"\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if resume and path.exists():
                self._check_head(head)
            else:
                path.write_bytes(head)
            self._file = path.open("r+b")
            self._file.truncate(sum(len(line) for line in self._file if line.endswith(b"\n")))
        except OSError as error:
            raise RecordError(f"{path}: journal cannot be written: {error.strerror}; choose another --out") from None

    def _check_head(self, wanted: bytes) -> None:
        with self._path.open("rb") as file:
            found = file.readline()
        if found == wanted:
            return
        try:
            before, now = json.loads(found), json.loads(wanted)
            differing = [key for key in now if before.get(key) != now[key]]
        except (ValueError, AttributeError):
            differing = ["its first line"]
        raise RecordError(
            f"{self._path}: cannot be resumed: it is the journal of another evaluation ({', '.join(differing)} "
            "differ); omit --resume to start a new one, or choose another --out"
        )

    def scores(self) -> Iterator[ImageScore]:
        """Yield the scores in the journal.

        Raises:
            RecordError: a line is not an image score.
        """
        self._file.seek(0)
        self._file.readline()
        for number, line in enumerate(self._file, start=2):
            try:
                entry = json.loads(line)
                counts = {scale: _dense(*cells) for scale, cells in entry["counts"].items()}
                yield ImageScore(entry["name"], counts, float(entry["forward_s"]))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                raise RecordError(
                    f"{self._path}:{number}: not an image score ({type(error).__name__}: {error}); "
                    "omit --resume to start a new journal"
                ) from None

    def append(self, score: ImageScore) -> None:
        """Write one image, unless it failed."""
        if score.error is not None:
            return
        counts = {scale: _sparse(row) for scale, row in score.counts.items()}
        entry = {"name": score.name, "forward_s": score.forward_s, "counts": counts}
        self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_S:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _sparse(row: Counts) -> tuple[list[int], list[int]]:
    cells = np.flatnonzero(row)
    return cells.tolist(), row[cells].tolist()


def _dense(cells: list[int], values: list[int]) -> Counts:
    row = np.zeros(COUNT_CELLS, dtype=np.int64)
    row[cells] = values
    return row
