"""The two arms of a paired gate, and the git worktrees that hold their code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from segcore.core.configuration import find_configuration
from segcore.core.errors import UsageError
from segcore.core.git import git
from segcore.core.text import listed
from segcore.paired.cleanup import forget_worktrees, temporary_directory

WORKER = Path(__file__).with_name("worker.py")

WEIGHTS = (".pt", ".pth", ".pt2", ".ts", ".safetensors", ".onnx", ".tflite", ".xml", ".bin", ".data")
"""Ends of the names of files of weights: those that models are read from, and those beside ONNX and OpenVINO files."""


@dataclass(frozen=True)
class Arm:
    """One side of the comparison."""

    name: str
    """``base`` or ``head``."""
    args: tuple[str, ...]
    """Arguments of pytest: the bench, then this arm's options."""
    cwd: Path
    """Where pytest runs; the same for both arms, so that both run the same bench and cases."""
    code: Path | None = None
    """Worktree to import the code from; None for the installed package."""
    path: tuple[str, ...] = ()
    """Further directories to import from."""
    python: str = sys.executable
    forbidden: tuple[Path, ...] = ()
    """Directories from which this arm must not import: the working tree and the other arm's worktree."""
    program: tuple[str, ...] = (str(WORKER),)
    """The worker's script and its arguments."""
    own_bench: bool = False
    """Whether the arm runs the bench of its own worktree, and need not import code from there."""


@contextmanager
def worktrees(repository: Path, revision: str, head_revision: str | None = None) -> Iterator[tuple[Path, Path]]:
    """Check out a revision (base), and another one or the present state of the tracked files (head); yield both.

    Both directories are removed at the end, also after an interrupt.

    Raises:
        UsageError: the repository has no such revision, or git fails.
    """
    base = commit_of(repository, revision)
    if head_revision is not None:
        head = commit_of(repository, head_revision)
    else:  # a commit of the uncommitted changes, on no branch; empty if there are none
        head = git(repository, "stash", "create") or git(repository, "rev-parse", "HEAD")
    with ExitStack() as cleanup:
        cleanup.callback(forget_worktrees, repository)
        parent = cleanup.enter_context(temporary_directory())
        forget_worktrees(repository)
        directories = (parent / "base", parent / "head")
        for directory, commit in zip(directories, (base, head), strict=True):
            git(repository, "worktree", "add", "--detach", "--quiet", str(directory), commit.decode())
            _link_weights(repository, directory)
        yield directories


def _link_weights(repository: Path, tree: Path) -> None:
    """Link the weights that git does not have into a worktree: a model file may name them by relative paths."""
    for name in unversioned_weights(repository):
        link = tree / name
        if not os.path.lexists(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(repository / name)


def unversioned_weights(repository: Path) -> tuple[str, ...]:
    """Return the files of weights, and the JSON files beside them, that git does not have, also if it ignores them."""
    others = git(repository, "ls-files", "-z", "--others", "--", *(f"*{end}" for end in (*WEIGHTS, ".json")))
    found = [Path(name) for name in _names(others) if "site-packages" not in Path(name).parts]
    directories = {path.parent for path in found if path.suffix in WEIGHTS}
    return tuple(str(path) for path in found if path.parent in directories)


def arms_of(head: Arm, base_args: tuple[str, ...], trees: tuple[Path, Path], repository: Path) -> tuple[Arm, Arm]:
    """Return base and head in their worktrees (`trees`) of a repository, both with the bench of the head."""
    old, new = trees
    there = new / head.cwd.relative_to(repository)
    return (
        replace(head, name="base", args=base_args, cwd=there, code=old, forbidden=(repository, new)),
        replace(head, cwd=there, code=new, forbidden=(repository, old)),
    )


def with_own_bench(arm: Arm, head: Arm) -> Arm:
    """Return an arm that runs the bench of its own worktree instead of the head's."""
    assert arm.code
    assert head.code
    return replace(arm, cwd=arm.code / head.cwd.relative_to(head.code), own_bench=True)


def commit_of(repository: Path, revision: str) -> bytes:
    """Return the commit of a revision; raise UsageError if there is none."""
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except UsageError:
        raise UsageError(f"no revision {revision!r} in {repository}; fetch it first (CI: fetch-depth: 0)") from None


def repository_of(directory: Path) -> Path:
    """Return the top of the git working tree that contains a directory; raise UsageError if there is none."""
    return Path(os.fsdecode(git(directory, "rev-parse", "--show-toplevel")))


def changed_bench(trees: tuple[Path, Path], cwd: Path, bench: str) -> tuple[str, ...]:
    """Return the files of the bench, the cases and the settings that differ between two worktrees.

    Args:
        trees: of base and head.
        cwd: where pytest runs, relative to the top of a worktree.
        bench: relative to `cwd`.
    """
    old, new = (git(tree, "rev-parse", "HEAD").decode() for tree in trees)
    paths = (str(cwd / bench.partition("::")[0]), str(cwd / "cases"), "*conftest.py", "*.yaml", "*.yml")
    names = _names(git(trees[1], "diff", "--name-only", "-z", old, new, "--", *paths))
    found = [find_configuration(tree / cwd) for tree in trees]
    tables = [each and each.table for each in found]
    return names if tables[0] == tables[1] else (*names, "pyproject.toml")


def bench_note(base: Arm, head: Arm) -> str:
    """Return in words what differs in the bench or cases of two arms; empty if nothing, or if they are no worktrees."""
    if base.code is None or head.code is None:
        return ""
    files = changed_bench((base.code, head.code), head.cwd.relative_to(head.code), head.args[0])
    if not files:
        return ""
    what = f"bench or cases differ between the revisions ({listed(files, 3)})"
    return f"{what}: what times something else says nothing of the code"


def untracked(repository: Path) -> tuple[str, ...]:
    """Return the untracked Python and YAML files, which are in neither arm."""
    return _names(git(repository, "ls-files", "-z", "--others", "--exclude-standard", "*.py", "*.yaml", "*.yml"))


def _names(output: bytes) -> tuple[str, ...]:
    return tuple(os.fsdecode(name) for name in output.split(b"\0") if name)
