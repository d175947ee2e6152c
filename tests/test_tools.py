"""The trials of `tools.kill_trial`, a few of the fastest command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kills forks and looks for their descendants")
@pytest.mark.parametrize("words", [["--count", "3"], ["--count", "1", "--at-once", "8"]], ids=["killed", "at-once"])
def test_a_download_survives(words: list[str]) -> None:
    command = [sys.executable, "-m", "tools.kill_trial", "fetch", *words]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": right") == int(words[1])
