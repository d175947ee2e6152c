"""What two run files leave undecided: whether measuring in turns can decide it (``--settle``), or another command.

In turns only medians of latency and throughput are measured, at the commits and with the options of the runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from segcore.core.limits import Limits
from segcore.core.records import GitRecord, MachineRecord, Run
from segcore.judgement.gate.comparable import machine_differences
from segcore.judgement.gate.rules import limits_of
from segcore.judgement.gate.verdict import GateResult, Row

BUDGET_S = 600.0
"""Default time for all items that are settled."""
_WITH_VALUE = (
    *("--benchmark-json", "--benchmark-storage", "--benchmark-compare-fail"),
    *("--segcore-baseline", "--segcore-settle-budget", "--segcore-profile", "--junitxml", "--junit-xml"),
)
_MAY_HAVE_VALUE = ("--benchmark-save", "--benchmark-compare", "--benchmark-histogram")
_ALONE = (
    *("--benchmark-autosave", "--benchmark-save-data", "--segcore-settle", "--segcore-accept-changed-limits"),
    *("-x", "--exitfirst"),
)


@dataclass(frozen=True)
class OpenItem:
    """An item whose median is undecided and can be measured in turns."""

    key: str
    head_node: str
    """Node id of the test in the current run."""
    limit: float
    """Largest allowed slowdown."""


@dataclass(frozen=True)
class Settlement:
    """What can be measured in turns, and what cannot."""

    items: tuple[OpenItem, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)
    """By item that has to stay undecided: why."""


def undecided(result: GateResult) -> list[Row]:
    """Return the rows that measuring in turns could decide: the medians of latency and throughput items."""
    return [row for row in result.rows if row.verdict == "inconclusive" and _takes_turns(row)]


def _takes_turns(row: Row) -> bool:
    return (row.aspect, row.unit) == ("median", "ms") and row.item.startswith(("latency[", "throughput["))


def why_not(baseline: Sequence[Run], current: Sequence[Run], here: MachineRecord) -> str:
    """Return why these runs cannot be measured again on this machine (`here`), in a few words; empty if they can.

    A side without runs, which are yet to be measured, can.
    """
    for runs, which in ((baseline, "baseline"), (current, "current run")):
        for run in runs:
            first = runs[0].record.git
            git: GitRecord | None = run.record.git
            if git is None or first is None:
                return f"the {which} {run.name} names no commit"
            if git.dirty:
                return f"the {which} {run.name} had uncommitted changes, which no commit holds"
            if git.commit != first.commit:
                return f"the processes of the {which} are of two commits, {first.commit[:10]} and {git.commit[:10]}"
            if differences := machine_differences(run.record.machine, here):
                return f"the {which} {run.name} is of another machine: {differences[0]}"
    return ""


def settlement(
    result: GateResult,
    baseline: Sequence[Run],
    current: Sequence[Run],
    defaults: Limits,
    lost: Callable[[Run, str], str],
    *,
    accept: bool = False,
) -> Settlement:
    """Return which of the undecided items can be measured in turns.

    `lost` returns why an item (a run and a key) cannot be measured again, or an empty string; for `accept` see `judge`.
    """
    runs = (baseline[0], current[0])
    old, new = ({benchmark.info.key: benchmark.info for benchmark in run.benchmarks} for run in runs)
    items, left = [], {}
    for row in undecided(result):
        nodes = [node_of(run, row.item) for run in runs]
        problem = next(filter(None, (lost(run, row.item) for run in runs)), "")
        if problem or not all(nodes):
            left[row.item] = problem or "the run files do not name its test"
            continue
        limits = limits_of(old[row.item], new[row.item], defaults, accept=accept)
        items.append(OpenItem(row.item, nodes[1], limits.slowdowns[0.5]))
    return Settlement(tuple(items), left)


def node_of(run: Run, key: str) -> str:
    """Return the node id of the test that measured an item; empty if the run does not say."""
    return next((outcome.item for outcome in run.record.outcomes if outcome.key == key), "")


def arm_arguments(run: Run, nodes: Sequence[str]) -> tuple[str, ...]:
    """Return pytest's arguments that select the items of a run again: the bench first, then the options of the run.

    Left out is what saves and judges.
    """
    files = list(dict.fromkeys(node.partition("::")[0] for node in nodes))
    folders = {file.rpartition("/")[0] for file in files}
    bench = folders.pop() if len(folders) == 1 and "" not in folders else files[0]
    return (bench, *_kept(run.record.command[1:]))


def _kept(words: Sequence[str]) -> Iterator[str]:
    skip = False
    for word, following in zip(words, (*words[1:], "-"), strict=True):
        name, equals, _ = word.partition("=")
        if skip:
            skip = False
        elif name in _WITH_VALUE:
            skip = not equals
        elif name in _MAY_HAVE_VALUE:  # a path is no name, see `segcore.plugin.arguments.separate_paths`
            skip = not equals and not following.startswith("-") and "/" not in following
        elif name not in _ALONE:
            yield word


def settled(result: GateResult, turns: Mapping[str, Row], left: Mapping[str, str], how: str) -> GateResult:
    """Return a result with the rows of the `turns`, by key, in place of its undecided ones.

    `left` says by key why others were not measured, and `how` what was measured, for how long.
    """
    rows, open_rows = [], {row.item for row in undecided(result)}
    for row in result.rows:
        if row.item in open_rows and row.aspect == "median":
            if row.item in turns:
                found = turns[row.item]
                row = replace(found, item=row.item, reason=f"measured in turns: {found.reason}")
            elif row.item in left:
                row = replace(row, reason=f"{row.reason}; not settled: {left[row.item]}")
        rows.append(row)
    notes = (f"{how}; all other verdicts rest on the run files",) if turns else ()
    return replace(result, rows=tuple(rows), notes=(*result.notes, *notes))


def remedies(
    result: GateResult, baseline: Sequence[Run], current: Sequence[Run], defaults: Limits, options: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return a command for each kind of undecided row; none for what no command can decide.

    Args:
        result: of judging the runs.
        baseline: the runs of one side.
        current: the runs of the other.
        defaults: limits of items whose case sets none.
        options: of ``segcore gate`` that the runs were judged with.
    """
    turns = _turns(result, baseline, current, defaults, options)
    return tuple(filter(None, (turns, *_more(result, baseline[0], current[0]))))


def settle_command(
    baseline: Sequence[Run], current: Sequence[Run], options: Sequence[str] = (), *, budget_s: float | None = None
) -> str:
    """Return the command that measures in turns what two runs, judged with some options, leave undecided."""
    words = ["segcore", "gate", _reference(baseline), _reference(current), *options, "--settle"]
    return shlex.join(words + (["--budget", f"{budget_s:.0f}"] if budget_s else []))


def against_command(commit: str, arguments: str, limit: float) -> str:
    """Return the command that measures a commit and the working tree in turns, with pytest's arguments and a limit."""
    return shlex.join(["segcore", "gate", "--against", commit[:12], "--args", arguments, f"--max-slowdown={limit:g}"])


def _turns(
    result: GateResult, baseline: Sequence[Run], current: Sequence[Run], defaults: Limits, options: Sequence[str]
) -> str:
    items = [row.item for row in undecided(result)]
    nodes = [node for item in items if (node := node_of(current[0], item))]
    old, new = baseline[0].record.git, current[0].record.git
    if not nodes or old is None or old.dirty:
        return ""
    if new is not None and not new.dirty:
        return settle_command(baseline, current, options)
    return against_command(old.commit, shlex.join(arm_arguments(current[0], nodes)), defaults.slowdowns[0.5])


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
