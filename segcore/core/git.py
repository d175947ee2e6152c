"""The git command line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from segcore.core.errors import UsageError

_IDENTITY = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "segcore"), ("EMAIL", "segcore@localhost"))
}
"""Identity for temporary commits; CI runners often have none."""


def git(directory: Path, *arguments: str, timeout_s: float | None = None) -> bytes:
    """Run git in a directory and return its standard output, without surrounding whitespace.

    The output is bytes because branch and file names need not be UTF-8.

    Raises:
        UsageError: git is not installed, failed, or took longer than `timeout_s`.
    """
    where = f"git {arguments[0]} in {directory}"
    environment = os.environ | _IDENTITY
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=directory, env=environment, capture_output=True, timeout=timeout_s, check=False
        )
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}; is git installed?") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{where}: no answer within {timeout_s:.0f} s") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageError(f"{where}: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout.strip()
