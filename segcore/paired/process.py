"""A worker process, as seen by the gate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, Any, Protocol

from segcore.core.errors import ArmError, NoCodeError
from segcore.paired.arms import Arm
from segcore.paired.cleanup import deferred_interrupts, temporary_directory

TIMEOUT_S = 600.0
"""Longest wait for one answer: an import, a download of weights, a compilation, or one turn of a slow model."""


@dataclass(frozen=True)
class WorkerItem:
    """A benchmark item that is ready to be measured."""

    name: str
    max_slowdown: float | None = None
    """Limit of its case; None if the case has none."""
    cold_start_s: float | None = None
    """See `segcore.core.records.ProcessRecord`; None also for an item that is not segcore's."""


@dataclass(frozen=True)
class Rounds:
    """What a process of a bench run has measured."""

    times_s: tuple[float, ...]
    reference_s: tuple[float, ...]
    """Of the reference task before each call."""
    cpu_s: float
    """Processor time that the process used meanwhile."""


class WorkerClient(Protocol):
    """What the gate asks of a worker. Every method raises ArmError if the arm fails."""

    def item(self) -> WorkerItem | None:
        """Wait for the next item; return None after the last."""

    def measure(self, calls: int) -> list[int]:
        """Call the item that many times; return the nanoseconds of each call."""

    def next_item(self) -> None:
        """Go on to the next item."""


class RoundsClient(WorkerClient, Protocol):
    """What a bench run asks of a further process."""

    def measure_rounds(self, calls: int, device: str) -> Rounds:
        """Call the item that many times, each after the reference task on a device."""


@contextmanager
def start_worker(arm: Arm, items: tuple[str, ...] | None = None) -> Iterator[RoundsClient]:
    """Start a process of an arm that measures the given items, by default all; kill it at the end."""
    with temporary_directory() as directory, (directory / "log").open("a+b") as log, ExitStack() as cleanup:
        with deferred_interrupts():
            worker = _Worker(arm, log)
            cleanup.callback(worker.kill)
        worker.send(
            # Machine calibration is not needed here, and the user's storage gets no run file.
            args=(*arm.args, "--benchmark-disable", f"--benchmark-storage=file://{directory}"),
            items=items,
            code=str(arm.code) if arm.code else None,
            own_bench=arm.own_bench,
            forbidden=[str(path) for path in arm.forbidden],
        )
        yield worker


class _Worker:
    """A running process.

    Once its first item is ready, it is stopped whenever it is not measuring: its OpenMP threads would otherwise spin on
    the cores that the other arm needs. (OMP_WAIT_POLICY=PASSIVE would slow down the calls themselves.)
    """

    def __init__(self, arm: Arm, log: IO[bytes]) -> None:
        self._name, self._log = arm.name, log
        self._connection, theirs = Pipe()
        with theirs:
            self._process = _start(arm, theirs, log)

    def item(self) -> WorkerItem | None:
        answer = self._receive()
        if "finished" in answer:
            return None
        self._process.send_signal(signal.SIGSTOP)
        return WorkerItem(answer["item"], answer["max_slowdown"], answer.get("cold_start_s"))

    def measure(self, calls: int) -> list[int]:
        return self._times(self._ask(measure=calls), "times_ns", calls)

    def measure_rounds(self, calls: int, device: str) -> Rounds:
        answer = self._ask(measure=calls, device=device)
        times, reference = (self._times(answer, name, calls) for name in ("times_ns", "reference_ns"))
        return Rounds(tuple(t / 1e9 for t in times), tuple(t / 1e9 for t in reference), answer["cpu_ns"] / 1e9)

    def _ask(self, **message: object) -> dict[str, Any]:
        self._process.send_signal(signal.SIGCONT)
        self.send(**message)
        answer = self._receive()
        self._process.send_signal(signal.SIGSTOP)
        return answer

    def _times(self, answer: dict[str, Any], name: str, calls: int) -> list[int]:
        times = answer[name]
        if len(times) != calls or not all(isinstance(t, int) and t > 0 for t in times):
            raise ArmError(f"{self._name} arm: wanted {calls} positive times, found {times}")
        return list(times)

    def next_item(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self.send(next_item=True)

    def send(self, **message: object) -> None:
        try:
            self._connection.send_bytes(json.dumps(message).encode())
        except OSError:
            raise self._failure("it ended") from None

    @deferred_interrupts()
    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()

    def _receive(self) -> dict[str, Any]:
        try:
            if not self._connection.poll(TIMEOUT_S):
                raise self._failure(f"no answer for {TIMEOUT_S:.0f} s")
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            raise self._failure("it ended") from None
        if message.get("no_code"):
            raise NoCodeError(str(self._failure(message["error"])))
        if "error" in message:
            raise self._failure(message["error"])
        return message

    def _failure(self, what: str) -> ArmError:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return ArmError(f"{self._name} arm: {what}; last lines of its log: {' | '.join(lines[-4:]) or 'none'}")


def _start(arm: Arm, connection: Connection, log: IO[bytes]) -> subprocess.Popen[bytes]:
    code = [str(p) for p in (arm.code / "src", arm.code) if p.is_dir()] if arm.code else []
    path = [*code, *arm.path, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        return subprocess.Popen(
            [arm.python, "-P", *arm.program, str(connection.fileno())],
            cwd=arm.cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)} if path else None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[connection.fileno()],
            process_group=0,  # Ctrl-C in the terminal reaches the gate only
        )
    except OSError as error:
        raise ArmError(f"{arm.name} arm: {arm.python} cannot be started: {error.strerror}") from None
