"""Run the command line many times with real file descriptors: each time in a fork of a process that has imported it.

As a program, it reads a list of cases as JSON from standard input and prints a list of results.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Stdout = Literal["pipe", "terminal", "full", "closed", "gone"]
"""Gone is a pipe whose reader has left; full is a device without space."""


@dataclass(frozen=True)
class Case:
    """One call of ``segcore``."""

    words: tuple[str, ...]
    stdout: Stdout = "pipe"
    environment: dict[str, str] = field(default_factory=dict)
    """On top of one without variables that concern terminals."""
    encoding: str = "utf-8"
    """Of standard output."""


@dataclass(frozen=True)
class Outcome:
    """What a call wrote and how it ended."""

    code: int
    stdout: str
    stderr: str


WITH_TORCH = ("best", "devices", "evaluate", "fetch", "quantize", "runtimes", "segment")
"""Commands that may load it. A fork of a process that has loaded it takes ten times as long as of one that has not."""
TORCH = ("segcore.inference.pipeline", "segcore.evaluation.datasets")
WITHOUT_TORCH = ("segcore.report.html",)
ABOUT_TERMINALS = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "COLORTERM", "CI", "GITHUB_ACTIONS")


def outcomes(cases: list[Case], directory: Path) -> list[Outcome]:
    """Return the outcome of each case, called in a directory."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.forked"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "FORKED_IN": str(directory)},
        input=json.dumps([asdict(case) for case in cases]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Outcome(**result) for result in json.loads(done.stdout)]


def _run(case: Case) -> Outcome:
    """Run a case in a child and collect what it writes."""
    with tempfile.TemporaryFile() as errors:
        read, write = os.openpty() if case.stdout == "terminal" else os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            _child(case, write, errors.fileno())
        os.close(write)
        text = bytearray()
        reader = threading.Thread(target=_read, args=(read, text))
        if case.stdout == "gone":
            os.close(read)
        else:
            reader.start()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if case.stdout != "gone":
            reader.join()
            os.close(read)
        errors.seek(0)
        return Outcome(code, text.decode(case.encoding, errors="replace"), errors.read().decode(errors="replace"))


def _read(descriptor: int, text: bytearray) -> None:
    with contextlib.suppress(OSError):  # a terminal ends with an error
        while data := os.read(descriptor, 1 << 16):
            text += data


def _child(case: Case, output: int, errors: int) -> None:
    """Become ``segcore`` with the streams of a case; never return."""
    try:
        for name in ABOUT_TERMINALS:
            os.environ.pop(name, None)
        os.environ.update(case.environment)
        os.dup2(os.open("/dev/full", os.O_WRONLY) if case.stdout == "full" else output, 1)
        os.dup2(errors, 2)
        os.close(output)
        _streams(case)
        code = _main(case)
        try:  # as the interpreter does when it ends
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except Exception as error:
            os.write(2, f"Exception ignored while flushing: {error!r}".encode())
            code = 120
    except BaseException as error:
        os.write(2, f"Traceback of the test's own: {error!r}".encode())
        code = 99
    os._exit(code)


def _streams(case: Case) -> None:
    """Open the standard streams as the interpreter does when it starts."""
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True)
    if case.stdout == "closed":
        os.close(1)
        sys.stdout = None  # as Python does
        return
    raw = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(raw, case.encoding, "strict", line_buffering=raw.isatty())


def _main(case: Case) -> int:
    from segcore.cli import main

    sys.argv = ["segcore", *case.words]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


if __name__ == "__main__":
    import importlib

    from segcore.cli import COMMANDS

    for module in (*COMMANDS, "output", "gate"):
        importlib.import_module(f"segcore.cli.{module}")
    cases = [Case(**{**case, "words": tuple(case["words"])}) for case in json.load(sys.stdin)]
    os.chdir(os.environ.pop("FORKED_IN"))
    found: dict[int, Outcome] = {}
    with_torch = {n for n, case in enumerate(cases) if case.words[0] in WITH_TORCH}
    for modules, numbers in ((WITHOUT_TORCH, set(range(len(cases))) - with_torch), (TORCH, with_torch)):
        for heavy in modules if numbers else ():
            importlib.import_module(heavy)
        gc.freeze()  # a collection in a child would copy every page
        found |= {n: _run(cases[n]) for n in sorted(numbers)}
    sys.__stdout__.write(json.dumps([asdict(found[n]) for n in range(len(cases))]))  # type: ignore[union-attr]
