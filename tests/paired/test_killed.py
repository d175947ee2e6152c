"""What remains of a gate that is killed (SIGKILL)."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from segcore.cli import cli
from tests.support.repositories import git

GATE = """
import os
from pathlib import Path
from segcore.paired.arms import Arm
from segcore.paired.process import start_worker

with start_worker(Arm("head", ("bench",), Path.cwd(), Path.cwd())) as worker:
    worker.item()
    os.kill(os.getpid(), 9)
"""
SUBREAPER = """
import ctypes, os, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
assert subprocess.run([sys.executable, "-c", sys.argv[1]]).returncode == -9
os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="uses prctl(2)")
def test_a_stopped_worker_dies_with_the_gate(repository: Path) -> None:
    """Also if an ancestor in the same session adopts it, so that the kernel wakes no orphaned process group."""
    environment = {**os.environ, "TMPDIR": str(repository.parent / "tmp")}
    command = [sys.executable, "-c", SUBREAPER, GATE]
    subprocess.run(command, cwd=repository, env=environment, check=True)


def processes_of(temporary: Path) -> list[psutil.Process]:
    """Return every process whose environment names the temporary directory: gate, workers and git."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(temporary):
                found.append(process)
    return found


def is_stopped(process: psutil.Process) -> bool:
    """Return whether a process waits for its turn; a process may end between being listed and being asked."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_STOPPED)
    return False


@pytest.mark.slow
def test_a_gate_killed_at_any_moment_leaves_no_process_and_the_next_one_removes_the_rest(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = repository.parent / "tmp"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    gate = [sys.executable, "-m", "segcore", "gate", "--args", "bench -k pedantic", "--against", "HEAD"]
    moments = random.Random(0)
    for wait_for_a_stopped_worker in [False, True] * 3:
        process = subprocess.Popen(gate, cwd=repository, env=environment, stderr=subprocess.PIPE)
        assert process.stderr
        process.stderr.readline()  # the worktrees are checked out
        if wait_for_a_stopped_worker:
            while not any(map(is_stopped, psutil.Process(process.pid).children())):
                assert process.poll() is None
                time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.6))
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs(processes_of(temporary), timeout=60)
        assert not alive, [(p.cmdline(), p.status()) for p in alive]
        assert 0 < len(list(temporary.iterdir())) <= 3  # of one gate: the worktrees and a directory for each worker
    monkeypatch.chdir(repository)
    for name in ("BLOCK_S", "TURN_S"):
        monkeypatch.setattr(f"segcore.paired.session.{name}", 0.01)
    assert CliRunner().invoke(cli, [*gate[3:], "--budget", "1"]).exit_code in (1, 3)  # two blocks are few
    assert list(temporary.iterdir()) == []
    assert git(repository, "worktree", "list").count("\n") == 0
