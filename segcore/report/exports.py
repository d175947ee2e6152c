"""Verdicts and figures in the formats that other services read.

* JUnit XML: a suite for each item, and a test for each aspect that was judged. Undecided verdicts are skipped tests
  with their reason: JUnit knows no other outcome that is neither pass nor failure. Only what the schema of Jenkins has
  is written (junit-10.xsd of its xUnit plugin), so figures of a test are its output.
* GitLab's code quality report: what did not pass, at the line where its case is written. GitLab keeps one entry for
  each fingerprint, and shows the entries that the target branch does not have as new; so a fingerprint names what was
  judged, and neither figures nor lines. https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
* Bencher Metric Format, with the names of the built-in measures (`latency` in nanoseconds, `throughput` per second);
  other measures keep their name: times are in nanoseconds, shares from 0 to 1, sizes in bytes.
  https://bencher.dev/docs/reference/bencher-metric-format
* JSON of github-action-benchmark, with its tools ``customSmallerIsBetter`` and ``customBiggerIsBetter``.
  https://github.com/benchmark-action/github-action-benchmark#examples (`BenchmarkResult` in its src/extract.ts)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from xml.etree import ElementTree as ET

from segcore.core.records import CaseRecord, OutcomeKind, OutcomeRecord, Run
from segcore.judgement.gate.accuracy import judge_expectations
from segcore.judgement.gate.verdict import GateResult, Row, Verdict
from segcore.report.escape import plain_text
from segcore.report.gate import headline
from segcore.report.metrics import Metric, metrics, rounded
from segcore.report.wording import change_text, value_text

OUTCOMES: dict[Verdict, OutcomeKind] = {
    "pass": "passed",
    "improved": "passed",
    "regressed": "failed",
    "missing": "error",
    "inconclusive": "skipped",
    "incomparable": "skipped",
}
"""What readers that know four outcomes make of a verdict; the exit code of the gate fails a job that is undecided."""
_JUNIT_TAGS: dict[OutcomeKind, str] = {"failed": "failure", "error": "error", "skipped": "skipped"}
_MAX_BENCHMARK, _MAX_MEASURE = 1024, 64
"""Characters of a name in Bencher."""


def export_run(name: str, run: Run, baseline: Run | None = None, gate: GateResult | None = None) -> str:
    """Return a run in a format: its verdicts against the baseline, if there is one, or its figures."""
    if name in FIGURE_FORMATS:
        return FIGURE_FORMATS[name](metrics(run))
    if gate is not None and baseline is not None:
        return export_gate(name, gate, (baseline, run))
    cases = run.record.cases
    outcomes = (_of_outcome(outcome, cases) for outcome in run.record.outcomes)
    expected = (_of_row(row, cases) for benchmark in run.benchmarks for row in judge_expectations(benchmark.info))
    return VERDICT_FORMATS[name](run.name, (*outcomes, *expected))


def export_gate(name: str, result: GateResult, runs: Sequence[Run] = ()) -> str:
    """Return the verdicts of a gate in a format.

    `runs` are those that were judged; of a case in several of them, the last says where it is written.
    """
    cases: dict[str, CaseRecord] = {case.name: case for run in runs for case in run.record.cases}
    rows = [_of_row(row, tuple(cases.values())) for row in result.rows]
    return VERDICT_FORMATS[name](headline(result).line, rows)


@dataclass(frozen=True)
class _Judged:
    """The verdict on one aspect of one item, or how a test ended."""

    item: str
    aspect: str
    outcome: OutcomeKind
    verdict: str
    reason: str
    figures: tuple[tuple[str, str], ...]
    """Old, new, change and limit, as far as there are any."""
    file: str
    line: int

    @property
    def changes(self) -> list[str]:
        return [f"{name} {text}" for name, text in self.figures if name in ("change", "limit")]


def _of_outcome(found: OutcomeRecord, cases: Sequence[CaseRecord]) -> _Judged:
    item = found.key or found.item
    reason = f"{found.reason} ({found.where})" if found.where else found.reason
    return _Judged(item, "outcome", found.outcome, found.outcome, reason, (), *_place(item, cases))


def _of_row(row: Row, cases: Sequence[CaseRecord]) -> _Judged:
    figures = {
        "old": value_text(row.old, row.unit),
        "new": value_text(row.new, row.unit),
        "change": change_text(row.change, row.unit),
        "limit": row.limit,
    }
    known = tuple((name, text) for name, text in figures.items() if text)
    outcome, place = OUTCOMES[row.verdict], _place(row.item, cases)
    return _Judged(row.item, row.aspect, outcome, row.verdict, row.reason, known, *place)


def _place(item: str, cases: Sequence[CaseRecord]) -> tuple[str, int]:
    """Return file and line of an item's case; else the file of a test that is no item of ours, or the first case's."""
    rest = item.partition("[")[2]
    fitting = [case for case in cases if rest.startswith(f"{case.name}-")]
    if fitting:
        case = max(fitting, key=lambda case: len(case.name))
        return case.file, case.line
    if "::" in item:
        return item.partition("::")[0], 1
    return (cases[0].file, cases[0].line) if cases else ("bench", 1)


def _junit(title: str, rows: Sequence[_Judged]) -> str:
    root = ET.Element("testsuites", {"name": plain_text(title), **_counts(rows)})
    by_item: dict[str, list[_Judged]] = defaultdict(list)
    for row in rows:
        by_item[row.item].append(row)
    for item, same in by_item.items():
        counts = {**_counts(same), "skipped": str(sum(row.outcome == "skipped" for row in same))}
        suite = ET.SubElement(root, "testsuite", {"name": plain_text(item), **counts})
        for row in same:
            _add_test(suite, row)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(rows: Sequence[_Judged]) -> dict[str, str]:
    outcomes = Counter(row.outcome for row in rows)
    return {"tests": str(len(rows)), "failures": str(outcomes["failed"]), "errors": str(outcomes["error"])}


def _add_test(suite: ET.Element, row: _Judged) -> None:
    test = ET.SubElement(suite, "testcase", {"classname": plain_text(row.item), "name": plain_text(row.aspect)})
    if tag := _JUNIT_TAGS.get(row.outcome):
        changes = "".join(f" ({change})" for change in row.changes)
        ET.SubElement(test, tag, {"type": row.verdict, "message": plain_text(f"{row.verdict}{changes}: {row.reason}")})
    lines = [("verdict", row.verdict), *row.figures, ("reason", row.reason), ("case", f"{row.file}:{row.line}")]
    text = "\n".join(f"{name}: {plain_text(value)}" for name, value in lines if value)
    ET.SubElement(test, "system-out").text = text


def _gitlab(title: str, rows: Sequence[_Judged]) -> str:
    """Return what failed, is missing or undecided; skipped tests are no finding."""
    times = Counter[tuple[str, str]]()
    entries = []
    for row in rows:
        undecided = row.verdict in ("inconclusive", "incomparable")
        if undecided or row.outcome in ("failed", "error"):
            times[row.item, row.aspect] += 1
            identity = json.dumps([row.item, row.aspect, times[row.item, row.aspect]])
            changes = "".join(f", {change}" for change in row.changes)
            entry = {
                "description": plain_text(f"{row.aspect} of {row.item}: {row.verdict}{changes}: {row.reason}"),
                "check_name": f"segcore {row.verdict}",
                "fingerprint": hashlib.sha256(identity.encode()).hexdigest(),
                "severity": "minor" if undecided else "major",
                "location": {"path": plain_text(row.file), "lines": {"begin": row.line}},
            }
            entries.append(entry)
    return _json(entries)


def _bencher(metrics: Sequence[Metric]) -> str:
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for metric in metrics:
        factor = 1e9 if metric.unit == "s" else 1.0
        values = {"value": metric.value, "lower_value": metric.low, "upper_value": metric.high}
        slug = re.sub(r"[^a-z0-9]+", "-", metric.name.lower())[:_MAX_MEASURE].strip("-") or "unnamed"
        figures = {name: rounded(factor * value) for name, value in values.items() if value is not None}
        found[plain_text(metric.item)[:_MAX_BENCHMARK]][slug] = figures
    return _json(found)


def _action_benchmark(metrics: Sequence[Metric], *, smaller: bool) -> str:
    return _json([_action_entry(metric) for metric in metrics if metric.smaller_is_better == smaller])


def _action_entry(metric: Metric) -> dict[str, str | float]:
    shown, name = metric.shown, plain_text(f"{metric.item} {metric.name}")
    entry: dict[str, str | float] = {"name": name, "value": shown.value, "unit": shown.unit}
    if shown.low is not None and shown.high is not None:
        entry["range"] = f"{shown.low:g} to {shown.high:g}"
    if metric.about:
        entry["extra"] = plain_text(metric.about)
    return entry


def _json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


VERDICT_FORMATS: Mapping[str, Callable[[str, Sequence[_Judged]], str]] = {"junit": _junit, "gitlab": _gitlab}
"""Writers of a title and verdicts, by the name of their format."""
FIGURE_FORMATS: Mapping[str, Callable[[Sequence[Metric]], str]] = {
    "bencher": _bencher,
    "customSmallerIsBetter": partial(_action_benchmark, smaller=True),
    "customBiggerIsBetter": partial(_action_benchmark, smaller=False),
}
