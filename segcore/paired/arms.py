"""The two arms of a paired gate: which interpreter, which code, which options; and the worktrees that hold the code.

Both arms are checked out afresh, the head too: what is edited while the gate runs must not change what is measured.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from segcore.core.errors import UsageError
from segcore.core.git import git
from segcore.paired.interrupts import deferred_interrupts


@dataclass(frozen=True)
class Arm:
    """One side of the comparison."""

    name: str
    """``base`` or ``head``."""
    args: tuple[str, ...]
    """Arguments of pytest: the bench, and this arm's options."""
    cwd: Path
    """Where pytest runs; the same for both arms, so that both run the same bench and cases."""
    code: Path | None = None
    """Worktree whose packages are imported; None for what is installed."""
    python: str = sys.executable
    forbidden: tuple[Path, ...] = ()
    """Trees of which this arm must import nothing: the working tree, and the other arm's."""
    slowdown: float = 0.0
    """Extra work in the forward pass, as a share of the call: for the self-audit."""


@contextmanager
def worktrees(repository: Path, revision: str) -> Iterator[tuple[Path, Path]]:
    """Check out a revision (base) and the present state of the tracked files (head); yield both directories.

    They lie in one temporary directory, which is removed at the end, also after an interrupt.

    Raises:
        UsageError: this is no git repository, or it has no such revision.
    """
    try:
        base = git(repository, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except UsageError:
        raise UsageError(f"no revision {revision!r} in {repository}; fetch it first (CI: fetch-depth: 0)") from None
    # A commit object of the changes not yet committed, on no branch; nothing is printed when there are none.
    head = git(repository, "stash", "create") or git(repository, "rev-parse", "HEAD")
    with ExitStack() as opened:
        with deferred_interrupts():
            opened.callback(git, repository, "worktree", "prune")
            place = Path(
                opened.enter_context(tempfile.TemporaryDirectory(prefix="segcore-gate-", ignore_cleanup_errors=True))
            ).resolve()
        directories = (place / "base", place / "head")
        try:
            for directory, commit in zip(directories, (base, head), strict=True):
                git(repository, "worktree", "add", "--detach", "--quiet", str(directory), commit.decode())
            yield directories
        finally:
            with deferred_interrupts():
                opened.close()


def repository_of(directory: Path) -> Path:
    """Return the top of the git working tree that a directory is in.

    Raises:
        UsageError: it is in none.
    """
    return Path(os.fsdecode(git(directory, "rev-parse", "--show-toplevel")))


def untracked(repository: Path) -> tuple[str, ...]:
    """Return the Python and YAML files that git does not know, and that are therefore in neither arm."""
    listed = git(repository, "ls-files", "-z", "--others", "--exclude-standard", "*.py", "*.yaml", "*.yml")
    return tuple(os.fsdecode(name) for name in listed.split(b"\0") if name)
