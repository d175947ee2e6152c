"""Start commands in forks of this process, or in new interpreters, and find what is left of them."""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

TIMEOUT_S = 300.0
"""Longest duration of a start; one that waits for a lock left behind takes longer."""
EXIT_S = 10.0
"""Time for the remaining processes to end after a kill."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Negative: the signal."""
    output: str
    seconds: float


class Process:
    """A command in a session of its own, so that its descendants can be found after its death."""

    def __init__(self, arguments: Sequence[str], directory: Path, environment: dict[str, str], fresh: bool) -> None:
        self._log, temporary = (
            directory.with_name(f"{directory.name}.log"),
            directory.with_name(f"{directory.name}.tmp"),
        )
        temporary.mkdir(exist_ok=True)
        self._start = time.monotonic()
        environment = {**os.environ, **environment, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(directory / "cache")  # else torch creates it in TMPDIR
        self.pid = os.fork()
        if self.pid == 0:
            _become(arguments, directory, environment, self._log, fresh)

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int | None:
        """Return the exit code; None if the process is still running after some seconds."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() - self._start > seconds:
                return None
            time.sleep(0.002)

    def end(self) -> Ended:
        """Wait for the end of the process; kill it after `TIMEOUT_S`."""
        code = self.wait(TIMEOUT_S)
        if code is None:
            os.killpg(self.pid, signal.SIGKILL)
            code = self.wait(2 * TIMEOUT_S)
        seconds = time.monotonic() - self._start
        return Ended(-signal.SIGKILL if code is None else code, self._log.read_text(errors="replace"), seconds)

    def remaining(self) -> list[str]:
        """Return the processes of the session that do not end within `EXIT_S`, and kill them."""
        deadline = time.monotonic() + EXIT_S
        while (found := list(_session(self.pid))) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in found:
            process.kill()
        return [f"process {process.pid} is left" for process in found]


def _become(arguments: Sequence[str], directory: Path, environment: dict[str, str], log: Path, fresh: bool) -> None:
    """Turn a fork into the command: ``-m MODULE ARGUMENTS...``."""
    code = 70
    try:
        os.setsid()
        os.chdir(directory)
        for stream, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
            path = log if stream else os.devnull
            os.dup2(os.open(path, mode | (os.O_CREAT | os.O_APPEND if stream else 0)), stream)
        if fresh:
            os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606  # no shell wanted
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None
        sys.argv = list(arguments[1:])
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115  # inherited
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _session(leader: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                yield process
