"""A child process that cannot hang, flood or outlive us, whatever it does.

It leads a process group, which is killed when the child has ended, has taken too long, or when we end, even by SIGKILL.
Its output is read as it comes, up to a limit, by the thread that waits for it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from segcore.core.errors import ProgramError

MAX_OUTPUT = 16 << 20
"""Bytes that a program may write to its standard output and error for one photo."""
MAX_LINE = 1 << 16
"""Bytes of a line on standard output."""
_KEPT = 2000
"""Bytes of the end of its messages that are kept for an error."""
_TICK_S = 0.05
"""Pause between looks at whether the child has ended, if something else holds its output open."""
_GRACE_S = 0.5
"""Time for children of the child to end after it, and for a server to end when its input is closed."""


class Watchdog:
    """A shell that cleans up when this process ends, in whatever way.

    It kills the process group that it was told of last, and removes a directory.
    """

    _SCRIPT = 'g=0; while read -r n; do g=$n; done; [ "$g" -gt 1 ] && kill -s KILL -- "-$g"; rm -rf -- "$0"'

    def __init__(self, directory: Path) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", self._SCRIPT, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def watch(self, group: int) -> None:
        """Kill this group at our end; 0 for none."""
        assert self._shell.stdin is not None
        with contextlib.suppress(OSError):  # someone killed the shell
            self._shell.stdin.write(f"{group}\n".encode())
            self._shell.stdin.flush()

    def close(self) -> None:
        """End the shell, which kills the group that it watches and removes the directory."""
        assert self._shell.stdin is not None
        with contextlib.suppress(OSError):
            self._shell.stdin.close()
        self._shell.wait()


class Child:
    """A running process with its output, which the watchdog kills if we are killed.

    If it is serving, it reads lines on its standard input; otherwise that is empty.

    Raises:
        ProgramError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], directory: Path, watchdog: Watchdog, serving: bool) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.PIPE if serving else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ProgramError(f"cannot be started in {directory}: {reason}") from None
        self._watchdog = watchdog
        watchdog.watch(self._process.pid)
        self._unread = b""
        """Of standard output."""
        self._messages = b""
        """The end of standard error."""
        self._written = 0
        self._open: dict[int, IO[bytes]] = {}
        self._selector = selectors.DefaultSelector()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)
            self._open[stream.fileno()] = stream

    def finish(self, deadline: float) -> None:
        """Wait until the process has ended with exit code 0 and has left none behind.

        Raises:
            ProgramError: it took too long, wrote too much, failed, or left a process behind.
        """
        self._await_end(deadline)
        self._read_rest()
        code = self._process.wait()
        left = self._left_behind()
        if code != 0:
            raise ProgramError(f"{_ending(code)}{self.said()}")
        if left:
            raise ProgramError(f"left {left} behind when it ended: let it wait for its children")

    def _await_end(self, deadline: float) -> None:
        while not self._has_ended():
            self._read(deadline)
            self._unread = self._unread[-_KEPT:]

    def ask(self, line: str, deadline: float) -> str:
        """Write a line to standard input and return the line of standard output that answers it.

        Raises:
            ProgramError: it answered before it was asked, answered more than one line or none in time, wrote too much,
                or ended.
        """
        self._written = 0
        self._read_rest()
        if self._unread:
            raise ProgramError(f"wrote a line that no photo asked for: {shown(self._unread)}")
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # told below, with its exit code
            self._process.stdin.write(line.encode(errors="surrogateescape") + b"\n")
            self._process.stdin.flush()
        while b"\n" not in self._unread:
            if len(self._unread) > MAX_LINE:
                raise ProgramError(f"wrote a line of more than {MAX_LINE:,} bytes: {shown(self._unread[:200])}")
            if self._process.stdout.fileno() not in self._open or self._has_ended():  # type: ignore[union-attr]  # is a pipe
                self._read_rest()
                if b"\n" not in self._unread:
                    raise self._no_answer(deadline)
                break
            self._read(deadline)
        answer, _, self._unread = self._unread.partition(b"\n")
        if self._unread:
            raise ProgramError(f"answered one photo with more than one line: {shown(answer)}, {shown(self._unread)}")
        return answer.removesuffix(b"\r").decode(errors="surrogateescape")

    def _no_answer(self, deadline: float) -> ProgramError:
        half = f" after half a line, {shown(self._unread)}," if self._unread else ""
        try:
            self._await_end(deadline)
        except ProgramError:
            return ProgramError(f"closed its standard output{half} without an answer{self.said()}")
        self._read_rest()
        return ProgramError(f"{_ending(self._process.wait())}{half} without an answer{self.said()}")

    def _read(self, deadline: float) -> None:
        """Read what there is, waiting for it for at most a moment."""
        left = deadline - time.monotonic()
        if left <= 0:
            half = f"; half a line came, {shown(self._unread)}" if self._unread else ""
            raise ProgramError(f"took too long{half}{self.said()}; raise `timeout` if it may")
        if not self._open:
            time.sleep(0.0002)
            return
        for key, _ in self._selector.select(min(_TICK_S, left)):
            self._read_from(key.fd)

    def _read_rest(self) -> None:
        """Read what there is now, without waiting."""
        for descriptor in list(self._open):
            while descriptor in self._open and self._read_from(descriptor):
                pass

    def _read_from(self, descriptor: int) -> int:
        """Read from one stream; return how many bytes came."""
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return 0
        stream = self._open[descriptor]
        if not data:
            self._selector.unregister(stream)
            del self._open[descriptor]
        elif stream is self._process.stdout:
            self._unread += data
        else:
            self._messages = (self._messages + data)[-_KEPT:]
        self._written += len(data)
        if self._written > MAX_OUTPUT:
            raise ProgramError(f"wrote more than {MAX_OUTPUT >> 20} MiB to its standard output and error")
        return len(data)

    def _has_ended(self) -> bool:
        """Return whether the process has ended; it is not reaped, so that no other takes its number."""
        if self._process.returncode is not None or not hasattr(os, "waitid"):  # macOS has it from Python 3.13 on
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _left_behind(self) -> str:
        """Kill what is left of the group, which may need a moment to end by itself; return what that was."""
        until = time.monotonic() + _GRACE_S
        while _exists(self._process.pid) or self._open:
            self._read_rest()
            if time.monotonic() > until:
                break
            time.sleep(0.002)
        else:
            return ""
        if _exists(self._process.pid):
            _kill(self._process.pid)
            return "a running process"
        return "a process in another session, which holds its output open"

    def said(self) -> str:
        """Return the last lines of its standard error, for an error; empty if there are none."""
        lines = [line.strip() for line in self._messages.decode(errors="replace").splitlines() if line.strip()]
        return f"; it said: {' | '.join(lines[-3:])[-500:]}" if lines else ""

    def close(self, kindly: bool = False) -> None:
        """End the whole group: kindly after a moment for a server to notice that its input has ended."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if kindly:
            with contextlib.suppress(ProgramError):
                self._await_end(time.monotonic() + _GRACE_S)
        _kill(self._process.pid)
        self._process.wait()
        self._watchdog.watch(0)
        self._selector.close()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return True
    return True


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def shown(data: bytes) -> str:
    """Return output of a program for a message: one line, shortened."""
    text = data.decode(errors="replace").rstrip("\r\n")
    return repr(text if len(text) <= 120 else text[:117] + "...")
