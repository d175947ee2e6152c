"""Places where the runs of many machines are kept: a directory, or a branch of a git repository."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from segcore.core.errors import ConflictError, OutputError, UsageError
from segcore.core.files import read_file, write_file
from segcore.core.git import run_git
from segcore.core.text import first_line
from segcore.results.shipping import Entry, parse_entry

MARKER = ".segcore-runs"
"""File by which a branch says that it was made for runs, so that none goes to a branch of code by mistake."""
_HEAD = "refs/segcore/head"
_OF_A_HOOK = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_SHALLOW_FILE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH"),
)
"""Variables that name the repository of a hook in which segcore runs."""


class Place(Protocol):
    """Where runs are kept."""

    name: str

    def listing(self) -> dict[Entry, dict[str, str]]:
        """Return the runs that are there, with the paths of their pictures by name.

        Raises:
            UsageError: the place cannot be read.
        """

    def prepare(self, paths: Collection[str]) -> None:
        """Get ready to read many files."""

    def read(self, path: str, most: int) -> bytes:
        """Return the bytes of a file of at most `most` bytes; raise OSError if it cannot be read."""

    def change(self, added: Mapping[str, bytes], removed: Sequence[Entry], message: str) -> None:
        """Add files and remove runs, all or nothing for each run.

        Raises:
            ConflictError: nothing was changed, because somebody else changed the place since `listing`.
            OutputError: it cannot be written.
        """


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
        for machine in (entry for entry in os.scandir(self._root) if entry.is_dir(follow_symlinks=False)):
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


class GitPlace:
    """A branch of a git repository; `scratch` is an empty directory, and becomes a bare repository.

    Nothing is checked out: git's plumbing lists the tree, fetches the files that are wanted and adds a commit on top,
    so names in the tree never become paths here. A push is never forced: if somebody else pushed first, it is refused,
    and made again on top of theirs. The scratch repository has the latest commit alone, and of its files only those
    asked for.
    """

    def __init__(self, url: str, branch: str, scratch: Path) -> None:
        self.name = f"{url} (branch {branch})"
        self._url, self._ref, self._scratch = url, f"refs/heads/{branch}", scratch
        self._head = ""
        self._objects: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._pushes = 0
        if run_git(Path(), "check-ref-format", self._ref, without=_OF_A_HOOK).returncode:
            raise UsageError(f"--branch {branch}: is not a valid branch name")
        self._git("init", "--quiet", "--bare", "--template=", ".")
        # Not `git remote add`, which a URL that begins with a hyphen would confuse.
        self._git("config", "remote.origin.url", url)

    def _git(self, *arguments: str, data: bytes = b"") -> bytes:
        done = self._try(*arguments, data=data)
        if done[0]:
            raise UsageError(f"{self.name}: git {arguments[0]}: {done[2]}")
        return done[1]

    def _try(self, *arguments: str, data: bytes = b"") -> tuple[int, bytes, str]:
        """Return exit code, output, and the line that says best what went wrong."""
        quiet = ("-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "maintenance.auto=false")
        done = run_git(self._scratch, *quiet, *arguments, data=data, without=_OF_A_HOOK)
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote: error", "ssh:"))]
        return done.returncode, done.stdout, first_line((telling or lines or [f"exit code {done.returncode}"])[0])

    def listing(self) -> dict[Entry, dict[str, str]]:
        """See `Place`; links and submodules in the tree are ignored."""
        self._head, self._objects = "", {}
        latest = ("fetch", "--quiet", "--depth=1", "--no-tags", "--filter=blob:none", "origin", f"+{self._ref}:{_HEAD}")
        code, _, problem = self._try(*latest)
        if code:
            if self._git("ls-remote", "origin", self._ref):
                raise UsageError(f"{self.name}: git fetch: {problem}")
            return {}  # there is no such branch yet
        self._head = self._git("rev-parse", _HEAD).decode().strip()
        tree = self._git("ls-tree", "-r", "-z", "--full-tree", self._head)
        for line in tree.split(b"\0")[:-1]:
            about, _, path = line.partition(b"\t")
            mode, _, name = about.decode().split()
            if mode in ("100644", "100755"):
                self._objects[os.fsdecode(path)] = name
        if MARKER not in self._objects:
            raise UsageError(f"{self.name}: this branch was not made for runs (it has no {MARKER}); choose a --branch")
        return group(self._objects)

    def prepare(self, paths: Collection[str]) -> None:
        """See `Place`: fetch the files that are not here, together."""
        wanted = {self._objects[path] for path in paths}
        missing = self._git("rev-list", "--objects", "--missing=print", "--no-object-names", self._head).decode()
        absent = wanted & {line[1:] for line in missing.splitlines() if line.startswith("?")}
        if absent:  # as git itself does for a partial clone
            self._git(
                *("-c", "fetch.negotiationAlgorithm=noop", "fetch", "--quiet", "origin", "--no-tags"),
                *("--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none", "--stdin"),
                data="".join(f"{name}\n" for name in sorted(absent)).encode(),
            )
        answers = self._git(
            "cat-file", "--batch-check=%(objectname) %(objectsize)", data="\n".join(sorted(wanted)).encode()
        )
        self._sizes |= {name: int(size) for name, size in (line.split() for line in answers.decode().splitlines())}

    def read(self, path: str, most: int) -> bytes:
        """See `Place`; for files that were prepared."""
        size = self._sizes[self._objects[path]]
        if size > most:
            raise OSError(errno.EFBIG, f"has {size:,} bytes, wanted at most {most:,}")
        return self._git("cat-file", "blob", self._objects[path])

    def change(self, added: Mapping[str, bytes], removed: Sequence[Entry], message: str) -> None:
        """See `Place`: one commit, pushed onto that which was listed."""
        self._pushes += 1
        new = f"refs/segcore/push-{self._pushes}"
        stream = [f"commit {new}\ncommitter segcore <segcore@localhost> {int(time.time())} +0000\n".encode()]
        stream.append(_data(message.encode()))
        if self._head:
            stream.append(f"from {self._head}\n".encode())
        else:
            stream += [f"M 100644 inline {MARKER}\n".encode(), _data(b"Runs of segcore, see `segcore sync`.\n")]
        for path, data in added.items():
            stream += [b"M 100644 inline %b\n" % os.fsencode(path), _data(data)]
        for entry in removed:
            stream += [b"D %b\n" % os.fsencode(path) for path in (entry.file, entry.directory)]
        self._git("fast-import", "--quiet", "--done", data=b"".join([*stream, b"done\n"]))
        code, output, problem = self._try(
            "push", "--porcelain", "--no-thin", "--no-verify", "origin", f"{new}:{self._ref}"
        )
        if code:
            rejected = next((line for line in output.decode(errors="replace").splitlines() if line[:1] == "!"), "")
            reason = rejected.rpartition("\t")[2] or problem
            raise ConflictError(f"{self.name}: the push was refused: {reason}")


def _data(data: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(data), data)
