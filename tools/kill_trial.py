"""Kill a command at random moments and check what remains: ``python -m tools.kill_trial segment --count 30``.

Each trial starts the command in a new directory, sends SIGKILL, SIGTERM or SIGINT (in turns) at a random moment, and
starts it again. It checks that no finished work is lost, repeated or half-written, that the second start ends with the
result of an undisturbed run, and that no process, temporary file or directory is left: immediately after SIGTERM and
SIGINT, and after the second start in the case of SIGKILL.

Commands run in a fork of this process, which has imported torch, so that a trial takes a second and the kill falls into
the work. With ``--fresh`` they run in a new interpreter.

With ``--at-once N``, nothing is killed: N processes with the same arguments run at once in one directory, and the
result must be that of a single one.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.trial_commands import COMMANDS, Command

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
NOT_OURS = {".git", ".gitignore", ".benchmarks", ".ses"}
"""Of git, pytest-benchmark and onnxruntime, which are also there after an undisturbed run."""


def leftovers(directory: Path) -> list[str]:
    """Return the temporary files and directories below the directory of a trial."""
    hidden = [path for path in directory.rglob(".*") if ".git" not in path.parts[:-1]]
    found = [*directory.with_name(f"{directory.name}.tmp").iterdir(), *hidden]
    found = [path for path in found if path.name not in NOT_OURS]
    return [f"{path.relative_to(directory.parent)} is left" for path in found]


def _problems(*checks: Callable[[], object]) -> list[str]:
    found = []
    for check in checks:
        try:
            check()
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def trial(command: Command, directory: Path, moment: float, number: int, reference: Any) -> list[str] | None:
    """Return what is wrong after one kill; None if the command had ended before."""
    directory.mkdir()
    command.prepare(directory)
    process = command.start(directory)
    if process.wait(moment) is not None:
        return None
    process.send(number)
    ended = process.end()
    problems = process.remaining()
    problems += _problems(lambda: command.check_killed(directory, ended.output, reference))
    if number != signal.SIGKILL:
        problems += [f"{left} after {ended.code}" for left in leftovers(directory)]
    again = command.start(directory, again=True)
    ended = again.end()
    problems += again.remaining()
    problems += leftovers(directory)
    if ended.code not in command.codes:
        problems.append(f"the second start ended with {ended.code}")
    problems += _problems(
        lambda: compare(command.result(directory), reference), lambda: command.check_again(directory, ended.output)
    )
    return problems


def at_once(command: Command, directory: Path, processes: int, reference: Any) -> list[str]:
    """Return what is wrong after several processes have run at once in one directory."""
    directory.mkdir()
    command.prepare(directory)
    started = [command.start(directory) for _ in range(processes)]
    codes = [process.end().code for process in started]
    problems = [problem for process in started for problem in process.remaining()] + leftovers(directory)
    return problems + _problems(
        lambda: command.check_at_once(directory, codes), lambda: compare(command.result(directory), reference)
    )


def compare(found: Any, wanted: Any) -> None:
    """Raise if the second start has another result than an undisturbed run."""
    assert found == wanted, f"another result: {found} instead of {wanted}"


def run(command: Command, root: Path, count: int, rng: random.Random, processes: int) -> int:
    """Make the trials of one command; return how many went wrong."""
    whole, name = root / "whole", type(command).__name__.lower()
    whole.mkdir()
    command.prepare(whole)
    undisturbed = command.start(whole).end()
    print(f"{name}: undisturbed {undisturbed.seconds:.1f} s, exit code {undisturbed.code}", flush=True)
    reference = command.result(whole)
    done: Counter[str] = Counter()
    late = wrong = 0
    while done.total() < count and late < 3 * count + 10:
        directory, number = root / f"trial-{done.total() + late}", SIGNALS[done.total() % len(SIGNALS)]
        moment = rng.uniform(0.0, undisturbed.seconds)
        problems: list[str] | None
        if processes:
            what, problems = f"{processes} at once", at_once(command, directory, processes, reference)
        else:
            what, problems = number.name, trial(command, directory, moment, number, reference)
        if problems is None:
            late += 1
        else:
            done[what] += 1
            wrong += bool(problems)
            after = "" if processes else f" after {moment:.2f} s"
            print(f"{name} {done.total()}: {what}{after}: {'; '.join(problems) or 'right'}", flush=True)
        if not problems:
            shutil.rmtree(directory)
    print(f"{name}: {', '.join(f'{n} {what}' for what, n in done.items())}; {wrong} wrong, {late} too late", flush=True)
    return wrong


def main() -> None:
    """Run the trials and exit with 1 if one of them went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.kill_trial", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=0, metavar="N", help="run N processes at once instead")
    parser.add_argument("--fresh", action="store_true", help="a new interpreter for each start")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    root = Path(tempfile.mkdtemp(prefix=f"kill-trial-{options.command}-")).resolve()
    command = COMMANDS[options.command](root / "inputs", options.fresh)
    for module in () if options.fresh else command.imports:
        importlib.import_module(module)
    rng = random.Random(f"{options.command} {options.seed}")
    wrong = run(command, root, options.count, rng, options.at_once)
    if wrong:
        print(f"see {root}")
    else:
        shutil.rmtree(root)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
