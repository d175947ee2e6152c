"""A worker process as the gate sees it: started, asked, and always ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from segcore.core.errors import ArmError
from segcore.paired.arms import Arm
from segcore.paired.interrupts import deferred_interrupts

WORKER = Path(__file__).with_name("worker.py")
PATIENCE_S = 600.0
"""Longest wait for one answer: an import, a download of weights, a compilation or one turn of a slow model."""


@dataclass(frozen=True)
class WorkerItem:
    """An item that is loaded and can be run."""

    name: str
    limit: float | None = None
    """Largest slowdown that its case allows, None where it leaves that open."""


class WorkerClient(Protocol):
    """What the gate asks of a worker."""

    def item(self) -> WorkerItem | None:
        """Wait for the next item that is loaded and can be run; None when there are no more."""

    def run(self, calls: int) -> list[int]:
        """Call the item that many times; return the nanoseconds of each call."""

    def next(self) -> None:
        """Go on to the next item."""


class Worker:
    """One process of one arm. Use it in a ``with`` statement: at its end the process is gone, whatever happened.

    From its first item on it is stopped while it is not asked to run: threads of its OpenMP would otherwise spin for a
    while on the cores of the one that is measured. (OMP_WAIT_POLICY=PASSIVE would make the calls themselves slower.)
    """

    def __init__(self, arm: Arm, only: tuple[str, ...] | None = None) -> None:
        self.arm = arm
        self._only = only
        self._buffer = b""
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Worker:
        with contextlib.ExitStack() as opened:
            with deferred_interrupts():
                self._log = opened.enter_context(tempfile.TemporaryFile())
                scratch = opened.enter_context(tempfile.TemporaryDirectory(prefix="segcore-worker-"))
                self._process = self._started()
                opened.callback(self._end)
            self._send(
                # Calibration is not wanted here, and no run file in the user's store.
                args=(*self.arm.args, "--benchmark-disable", f"--benchmark-storage=file://{scratch}"),
                only=self._only,
                slowdown=self.arm.slowdown,
                code=str(self.arm.code) if self.arm.code else None,
                forbidden=[str(path) for path in self.arm.forbidden],
            )
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred_interrupts():
            self._closing.close()

    def _started(self) -> subprocess.Popen[bytes]:
        path = [str(p) for p in (self.arm.code / "src", self.arm.code) if p.is_dir()] if self.arm.code else []
        if os.environ.get("PYTHONPATH"):
            path.append(os.environ["PYTHONPATH"])
        try:
            return subprocess.Popen(
                [self.arm.python, "-P", str(WORKER)],
                cwd=self.arm.cwd,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)} if path else None,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                # A group of its own, out of reach of the terminal's Ctrl-C, but in our session: should we be killed,
                # the kernel wakes and ends a group that is left behind stopped.
                process_group=0,
            )
        except OSError as error:
            raise ArmError(f"{self.arm.name} arm: {self.arm.python} cannot be started: {error.strerror}") from None

    def _end(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # stdin may hold a line that nobody will read
                if stream:
                    stream.close()

    def _signal(self, kind: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, kind)

    def item(self) -> WorkerItem | None:
        """Wait for the next item that is loaded and can be run; None when there are no more.

        Raises:
            ArmError: the arm failed, with what it said.
        """
        answer = self._receive()
        if "done" in answer:
            return None
        self._signal(signal.SIGSTOP)
        return WorkerItem(answer["item"], answer["limit"])

    def run(self, calls: int) -> list[int]:
        """Call the item that many times; return the nanoseconds of each call."""
        self._signal(signal.SIGCONT)
        self._send(run=calls)
        times = self._receive()["ns"]
        self._signal(signal.SIGSTOP)
        if len(times) != calls or not all(isinstance(t, int) and t > 0 for t in times):
            raise ArmError(f"{self.arm.name} arm: wanted {calls} positive times, found {times}")
        return list(times)

    def next(self) -> None:
        """Let the worker go on to its next item."""
        self._signal(signal.SIGCONT)
        self._send(next=True)

    def _send(self, **message: object) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._failure("it ended") from None

    def _receive(self) -> dict[str, Any]:
        line = self._line(time.monotonic() + PATIENCE_S)
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._failure(f"it answered {line[:200]!r}") from None
        if "error" in message:
            raise self._failure(message["error"])
        return message

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._failure(f"no answer for {PATIENCE_S:.0f} s")
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self._failure("it ended")
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _failure(self, what: str) -> ArmError:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return ArmError(f"{self.arm.name} arm: {what}; its last lines: {' | '.join(lines[-4:]) or 'none'}")
