"""The two arms of a paired gate: which interpreter, which code, which options; and the worktrees that hold the code.

Both arms are checked out afresh, the head too: what is edited while the gate runs must not change what is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from segcore.core.errors import UsageError
from segcore.paired.interrupts import deferred_interrupts

_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "segcore"), ("EMAIL", "segcore@localhost"))
}
"""Of the commit that holds what is not committed; CI runners often have none."""


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
    base = _git(repository, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", missing=revision)
    # A commit object of the changes not yet committed, on no branch; nothing is printed when there are none.
    head = _git(repository, "stash", "create") or _git(repository, "rev-parse", "HEAD")
    with ExitStack() as opened:
        with deferred_interrupts():
            opened.callback(_git, repository, "worktree", "prune")
            place = Path(
                opened.enter_context(tempfile.TemporaryDirectory(prefix="segcore-gate-", ignore_cleanup_errors=True))
            ).resolve()
        directories = (place / "base", place / "head")
        try:
            for directory, commit in zip(directories, (base, head), strict=True):
                _git(repository, "worktree", "add", "--detach", "--quiet", str(directory), commit)
            yield directories
        finally:
            with deferred_interrupts():
                opened.close()


def repository_of(directory: Path) -> Path:
    """Return the top of the git working tree that a directory is in.

    Raises:
        UsageError: it is in none.
    """
    return Path(_git(directory, "rev-parse", "--show-toplevel"))


def untracked(repository: Path) -> tuple[str, ...]:
    """Return the Python and YAML files that git does not know, and that are therefore in neither arm."""
    return tuple(_git(repository, "ls-files", "--others", "--exclude-standard", "*.py", "*.yaml", "*.yml").splitlines())


def _git(directory: Path, *words: str, missing: str = "") -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=directory, env=os.environ | _IDENTITY, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UsageError(f"git {words[0]} in {directory}: {error.strerror}; the paired gate needs git") from None
    if done.returncode:
        if missing:
            raise UsageError(f"no revision {missing!r} in {directory}; fetch it first (CI: fetch-depth: 0)")
        raise UsageError(f"git {words[0]} in {directory}: {done.stderr.strip().splitlines()[-1:] or 'failed'}")
    return done.stdout.strip()
