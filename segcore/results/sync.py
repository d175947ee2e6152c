"""Exchange runs with a place where those of many machines are kept: pull those of others, push those recorded here."""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from segcore.core.errors import ConflictError, OutputError, RecordError, UsageError
from segcore.core.git import git
from segcore.core.text import listed
from segcore.results.journal import fold_journals
from segcore.results.naming import MACHINES, name_pattern, pulled_from
from segcore.results.places import DirectoryPlace, GitPlace, Place
from segcore.results.shipping import Entry, entry_of, pack, unpack
from segcore.results.store import find_runs, journal_path

BATCH = 20
"""Runs that are pushed together: an interruption costs at most so many, and so many are in memory."""
ATTEMPTS = 200
"""Most pushes of one batch; each time that one is refused because of another's, that other's has succeeded."""
STUCK = 6
"""Pushes that are refused although nobody else pushed: it is for another reason, such as missing rights."""
LONGEST_WAIT_S = 2.0
PREFIX = "segcore-sync-"
ABANDONED_S = 24 * 3600
"""Age at which a scratch repository has no process any more."""
_URL = re.compile(r"[a-z+]+://.+|[^/:]+@[^/:]+:.+", re.IGNORECASE)
"""Of a git repository: ``https://host/x.git``, ``git@host:x.git``."""


@dataclass
class Exchange:
    """What was exchanged."""

    pulled: list[Entry] = field(default_factory=list)
    pushed: list[Entry] = field(default_factory=list)
    pruned: list[Entry] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Why runs of the place were not pulled."""
    failed: list[str] = field(default_factory=list)
    """Why runs of this machine were not pushed."""


@contextmanager
def open_place(reference: str, branch: str) -> Iterator[Place]:
    """Open a place: a directory; a git repository, by path or URL; or a remote of the repository here, by name.

    Raises:
        UsageError: there is no such place.
    """
    url = _git_url(reference)
    if url is None:
        yield DirectoryPlace(Path(reference))
        return
    _delete_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as scratch:
        yield GitPlace(url, branch, Path(scratch))


def _delete_abandoned(directory: Path) -> None:
    """Delete the scratch repositories that killed processes have left."""
    for scratch in directory.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time.time() - scratch.lstat().st_mtime > ABANDONED_S:
                shutil.rmtree(scratch, ignore_errors=True)


def _git_url(reference: str) -> str | None:
    """Return the URL of a git repository, None for a directory."""
    path = Path(reference)
    if _URL.fullmatch(reference):
        return reference
    with suppress(OSError):
        if path.is_dir():
            bare = all((path / name).exists() for name in ("HEAD", "objects", "refs"))
            return str(path.resolve()) if bare or (path / ".git").exists() else None
    with suppress(UsageError):
        if not reference.startswith("-"):
            return git(Path(), "remote", "get-url", reference).decode(errors="surrogateescape")
    raise UsageError(
        f"PLACE {reference}: wanted a directory (create it first), a git repository or the name of a remote, found none"
    )


def sync(place: Place, storage: Path, machine: str, *, keep: int | None = None, pull_only: bool = False) -> Exchange:
    """Pull the runs that are not in `storage`, then push those that were recorded here, and prune the place.

    `machine` is what this machine is called; of its runs, the place keeps the `keep` newest of each name, or all.

    Raises:
        UsageError: the place cannot be read.
        OutputError: a run cannot be written, here or there.
    """
    done = Exchange()
    here = _recorded_here(storage, machine, done)
    there = place.listing()
    _pull(place, there, {entry.stem for entry in here}, storage, done)
    if not pull_only:
        _push(place, there, here, machine, keep, done)
    return done


def plan(
    there: Collection[Entry], here: Collection[Entry], machine: str, keep: int | None
) -> tuple[list[Entry], list[Entry]]:
    """Return which of the runs recorded here to push to a place and which there to delete, oldest first.

    Runs of other machines are never deleted; for `keep` see `sync`.
    """
    known = {entry.stem for entry in there}
    push = sorted(entry for entry in here if entry.stem not in known)
    if keep is None:
        return push, []
    own = [*push, *(entry for entry in there if entry.machine == machine)]
    by_name = sorted(own, key=lambda entry: (name_pattern(entry.name), entry))
    groups = [list(same) for _, same in groupby(by_name, key=lambda entry: name_pattern(entry.name))]
    too_old = {entry for same in groups for entry in same[:-keep]}
    return [entry for entry in push if entry not in too_old], sorted(too_old.intersection(there))


def _recorded_here(storage: Path, machine: str, done: Exchange) -> dict[Entry, Path]:
    """Return the runs that were recorded here; one with a journal is in progress."""
    found: dict[Entry, Path] = {}
    paths = [path for path in find_runs(storage) if not pulled_from(path)]
    for directory in {path.parent for path in paths}:
        fold_journals(directory)
    for path in paths:
        if not os.path.exists(journal_path(path)):  # noqa: PTH110 - Path.exists() raises if the name is too long
            try:
                found[entry_of(path, machine)] = path
            except RecordError as error:
                done.failed.append(f"not pushed: {error}")
    return found


def _pull(place: Place, there: Mapping[Entry, Mapping[str, str]], own: set[str], storage: Path, done: Exchange) -> None:
    wanted = [e for e in there if e.stem not in own and not (storage / MACHINES / e.file).exists()]
    if wanted:
        place.prepare([path for entry in wanted for path in (entry.file, *there[entry].values())])
    for entry in wanted:
        try:
            unpack(place.read, entry, there[entry], storage)
        except RecordError as error:
            done.left_out.append(f"left out: {error}")
        else:
            done.pulled.append(entry)


def _push(
    place: Place,
    there: Mapping[Entry, Mapping[str, str]],
    here: Mapping[Entry, Path],
    machine: str,
    keep: int | None,
    done: Exchange,
) -> None:
    waiting = dict(here)
    packed: tuple[list[Entry], dict[str, bytes]] = ([], {})
    refused = stuck = 0
    while True:
        push, prune = plan(there, waiting, machine, keep)
        if not push and not prune:
            return
        batch, prune = push[:BATCH], prune if len(push) <= BATCH else []
        if packed[0] != batch:
            packed = batch, _packed(batch, waiting, done)
        files = packed[1]
        pushed = [entry for entry in batch if entry.file in files]
        try:
            place.change(files, prune, _message(machine, pushed, prune))
        except ConflictError as error:
            refused, before, there = refused + 1, there, place.listing()
            stuck = stuck + 1 if there.keys() == before.keys() else 0
            if stuck == STUCK or refused == ATTEMPTS:
                raise OutputError(f"{error}; no run was lost: fix that, then sync again") from None
            time.sleep(random.uniform(0, min(LONGEST_WAIT_S, 0.1 * 1.5 ** min(refused, 20))))
            continue
        refused = stuck = 0
        done.pushed += pushed
        done.pruned += prune
        for entry in batch:
            waiting.pop(entry, None)
        there = place.listing()


def _packed(batch: Collection[Entry], paths: dict[Entry, Path], done: Exchange) -> dict[str, bytes]:
    """Return the files of runs; one that cannot be read is left out, for good."""
    files: dict[str, bytes] = {}
    for entry in batch:
        try:
            files |= pack(entry, paths[entry])
        except RecordError as error:
            done.failed.append(f"not pushed: {error}")
            del paths[entry]
    return files


def _message(machine: str, pushed: Collection[Entry], pruned: Collection[Entry]) -> str:
    names = listed((entry.name for entry in pushed), 5) or "nothing new"
    return f"{machine}: {names}" + (f"; {len(pruned)} pruned" if pruned else "")
