"""What the machines of runs are called where several runs are shown together."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import TypeVar

from segcore.core.records import Run
from segcore.core.system import machine_name
from segcore.results.naming import pulled_from

_K = TypeVar("_K")


def full_names(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the name of each run, as ``MACHINE/NAME`` if any of them is another machine's."""
    machines = [pulled_from(run.path) for run in runs]
    if not any(machines):
        return tuple(run.name for run in runs)
    return tuple(f"{name or machine_name()}/{run.name}" for run, name in zip(runs, machines, strict=True))


def distinct_names(runs: Sequence[Run], numbered: str) -> list[str]:
    """Return `full_names`; where several runs have one name, `numbered` is formatted with the name and a number."""
    names = full_names(runs)
    times, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if times[name] == 1 else numbered.format(name, seen[name]))
    return found


def told_apart(texts: Mapping[_K, str]) -> dict[_K, str]:
    """Return texts by key; where several keys have one text, all but the first with a number."""
    found: dict[_K, str] = {}
    taken: set[str] = set()
    numbers: dict[str, Iterator[int]] = defaultdict(lambda: count(2))
    for key, text in texts.items():
        found[key] = text
        while found[key] in taken:
            found[key] = f"{text} #{next(numbers[text])}"
        taken.add(found[key])
    return found


def machine_labels(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return what the machine of each run is called: equal for runs of one machine alone.

    Other machines have the name under which their runs were pulled. Runs that were not are told apart by their
    hardware, which also names them, unless all are of one machine beside others: then that is this one.
    """
    pulled = [pulled_from(run.path) for run in runs]
    here = {_hardware(run): _title(run) for run, name in zip(runs, pulled, strict=True) if not name}
    if any(pulled) and len(here) == 1:
        here = dict.fromkeys(here, machine_name())
    labels = told_apart(here)
    return tuple(name or labels[_hardware(run)] for run, name in zip(runs, pulled, strict=True))


def _hardware(run: Run) -> tuple[object, ...]:
    """Return what stays the same whatever is installed on a machine and set for a run."""
    machine = run.record.machine
    return machine.cpu, machine.cores_physical, machine.memory_bytes, tuple(gpu.name for gpu in machine.gpus)


def _title(run: Run) -> str:
    """Return the product that computes: accelerators or processor, without its stepping."""
    machine = run.record.machine
    return " + ".join(gpu.name for gpu in machine.gpus) or re.sub(r" \([^()]* [^()]*\)$", "", machine.cpu)
