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
    """Run git in a directory and return its stripped standard output; UsageError if it fails or is too slow."""
    done = run_git(directory, *arguments, timeout_s=timeout_s)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        problem = lines[-1] if lines else f"exit code {done.returncode}"
        raise UsageError(f"git {arguments[0]} in {directory}: {problem}")
    return done.stdout.strip()


def run_git(
    directory: Path,
    *arguments: str,
    data: bytes = b"",
    timeout_s: float | None = None,
    without: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a directory, whatever its exit code, `without` some environment variables."""
    where = f"git {arguments[0]} in {directory}"
    environment = {name: value for name, value in os.environ.items() if name not in without} | _IDENTITY
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=directory,
            env=environment,
            input=data,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}; is git installed?") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{where}: no answer within {timeout_s:.0f} s") from None
