"""The commands that would decide what a gate left undecided, complete, to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from segcore.core.records import Run
from segcore.judgement.gate.settle import arm_arguments, node_of, undecided
from segcore.judgement.gate.verdict import GateResult


def remedies(result: GateResult, baseline: Sequence[Run], current: Sequence[Run]) -> tuple[str, ...]:
    """Return a command for each kind of undecided row; none for what no command can decide.

    Args:
        result: the verdicts.
        baseline: at least one run.
        current: at least one run.
    """
    return tuple(filter(None, (_turns(result, baseline, current), *_more(result, baseline[0], current[0]))))


def settle_command(baseline: Sequence[Run], current: Sequence[Run], *, budget_s: float | None = None) -> str:
    """Return the command that measures in turns what two runs leave undecided."""
    words = ["segcore", "gate", _reference(baseline), _reference(current), "--settle"]
    return shlex.join(words + (["--budget", f"{budget_s:.0f}"] if budget_s else []))


def _turns(result: GateResult, baseline: Sequence[Run], current: Sequence[Run]) -> str:
    items = [row.item for row in undecided(result)]
    nodes = [node for item in items if (node := node_of(current[0], item))]
    old, new = baseline[0].record.git, current[0].record.git
    if not nodes or old is None or old.dirty:
        return ""
    if new is not None and not new.dirty:
        return settle_command(baseline, current)
    arguments = shlex.join(arm_arguments(current[0], nodes))
    return shlex.join(["segcore", "gate", "--against", old.commit[:12], "--args", arguments])


def _more(result: GateResult, old: Run, new: Run) -> Iterator[str]:
    """Yield the commands for more rounds of the current run, and for more images."""
    rows = [row for row in result.rows if row.verdict == "inconclusive"]
    rounds = max((row.rounds for row in rows if row.rounds), default=0)
    nodes = [node for row in rows if row.rounds and (node := node_of(new, row.item))]
    if nodes:
        options = (f"--benchmark-min-rounds={rounds}", f"--benchmark-save={new.name}")
        yield shlex.join(["pytest", *arm_arguments(new, nodes), *options])
    words = new.record.command
    if "--limit" in words and any(row.item.startswith("dataset[") for row in rows):
        position = words.index("--limit")
        others = [word for word in (*words[:position], *words[position + 2 :]) if word != "--resume"]
        yield shlex.join(others)


def _reference(runs: Sequence[Run]) -> str:
    path = runs[0].path
    return str(path if len(runs) == 1 else path.parent)
