"""Places where the runs of many machines are kept: what they can do, and one of them, a directory."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from segcore.core.errors import OutputError, UsageError
from segcore.core.files import read_file, write_file
from segcore.results.shipping import Entry, parse_entry


class Place(Protocol):
    """Where runs are kept."""

    name: str

    def listing(self) -> dict[Entry, dict[str, str]]:
        """Return the runs that are there, with the paths of their pictures by name.

        Raises:
            UsageError: the place cannot be read.
        """
        ...

    def prepare(self, paths: Collection[str]) -> None:
        """Get ready to read many files."""
        ...

    def read(self, path: str, most: int) -> bytes:
        """Return the bytes of a file of at most `most` bytes; raise OSError if it cannot be read."""
        ...

    def change(self, added: Mapping[str, bytes], removed: Sequence[Entry], message: str) -> None:
        """Add files and remove runs, all or nothing for each run.

        Raises:
            ConflictError: nothing was changed, because somebody else changed the place since `listing`.
            OutputError: it cannot be written.
        """
        ...


def group(paths: Collection[str]) -> dict[Entry, dict[str, str]]:
    """Return the runs among the files of a place, with the paths of their pictures by name."""
    files: set[Entry] = set()
    pictures: dict[Entry, dict[str, str]] = {}
    for path in paths:
        if (found := parse_entry(path)) is None:
            continue
        entry, picture = found
        if picture:
            pictures.setdefault(entry, {})[picture] = path
        else:
            files.add(entry)
    return {entry: pictures.get(entry, {}) for entry in sorted(files)}


class DirectoryPlace:
    """A directory, for example on a network share."""

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root

    def listing(self) -> dict[Entry, dict[str, str]]:
        """See `Place`; symbolic links are ignored."""
        try:
            return group([unicodedata.normalize("NFC", path) for path in self._paths()])  # macOS changes the form
        except OSError as error:
            raise UsageError(f"{self.name}: cannot be read: {error.strerror}") from None

    def _paths(self) -> Iterator[str]:
        for machine in _directories(self._root):
            for entry in os.scandir(machine):
                if entry.is_dir(follow_symlinks=False):
                    with suppress(OSError):
                        names = [file.name for file in os.scandir(entry) if file.is_file(follow_symlinks=False)]
                        yield from (f"{machine.name}/{entry.name}/{name}" for name in names)
                elif entry.is_file(follow_symlinks=False):
                    yield f"{machine.name}/{entry.name}"

    def prepare(self, paths: Collection[str]) -> None:
        """See `Place`."""

    def read(self, path: str, most: int) -> bytes:
        """See `Place`."""
        file = self._root / path
        if stat.S_ISLNK(file.lstat().st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return read_file(file, most)

    def change(self, added: Mapping[str, bytes], removed: Sequence[Entry], message: str) -> None:
        """See `Place`; there are no conflicts, because no two runs share a name."""
        for machine in {path.partition("/")[0] for path in added}:
            if (self._root / machine).is_symlink():
                raise OutputError(f"{self._root / machine}: is a symbolic link: wanted a directory; delete the link")
        written: list[Path] = []
        try:
            for path, data in added.items():
                written.append(self._root / path)
                write_file(self._root / path, data)
                if path.endswith(".json"):  # the last of its run
                    written.clear()
        except BaseException:
            for path_ in reversed(written):
                with suppress(OSError):
                    path_.unlink(missing_ok=True)
                    path_.parent.rmdir()
            raise
        for entry in removed:
            try:
                (self._root / entry.file).unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{self._root / entry.file}: cannot be deleted: {error.strerror}") from None
            shutil.rmtree(self._root / entry.directory, ignore_errors=True)


def _directories(root: Path) -> list[Path]:
    return [Path(entry) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
