"""What other services read: one golden file for each format, accepted by its reader or its published schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import junitparser
import pytest
from jsonschema import Draft7Validator

from segcore.core.limits import Limits
from segcore.core.record_accuracy import AccuracyRecord, CheckRecord, DatasetRecord
from segcore.core.records import EnergyRecord, LoadRecord, OutcomeRecord, Run
from segcore.judgement.gate import GateResult, judge
from segcore.report.exports import FIGURE_FORMATS, VERDICT_FORMATS, export_run
from tests.support.factories import make_hostile, make_run
from tests.support.judged_runs import a_run, an_item, steady

GOLDEN = Path(__file__).parent / "golden"
FILES = {
    "junit": "junit.xml",
    "gitlab": "gitlab.json",
    "bencher": "bencher.json",
    "customSmallerIsBetter": "smaller.json",
    "customBiggerIsBetter": "bigger.json",
}

# https://bencher.dev/bmf.json; every name has a value, and a service that keeps histories wants no other keys.
_METRIC = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
    "required": ["value"],
    "additionalProperties": False,
}
_MEASURES = {"type": "object", "minProperties": 1, "additionalProperties": _METRIC}
BENCHER = {"type": "object", "additionalProperties": _MEASURES}
# What GitLab's parser wants (app/validators/json_schemas/codeclimate.json), and the severities that its page lists.
GITLAB = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string"},
            "check_name": {"type": "string"},
            "fingerprint": {"type": "string"},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string"},
                    "lines": {"type": "object", "required": ["begin"], "properties": {"begin": {"type": "integer"}}},
                },
            },
        },
    },
}
# `BenchmarkResult` in src/extract.ts of github-action-benchmark, whose reader refuses an empty array.
_RESULT = {
    "type": "object",
    "required": ["name", "value", "unit"],
    "properties": {
        "value": {"type": "number"},
        **{name: {"type": "string"} for name in ("name", "unit", "range", "extra")},
    },
    "additionalProperties": False,
}
ACTION_BENCHMARK = {"type": "array", "minItems": 1, "items": _RESULT}


def cat(passed: bool = True) -> AccuracyRecord:
    check = CheckRecord(name="dominant", wanted="cat", found="cat" if passed else "dog", passed=passed)
    return AccuracyRecord(
        dominant="cat",
        fractions={"cat": 0.4},
        checks=(check,),
        miou=0.71 if passed else 0.42,
        pixel_accuracy=0.9,
        iou={"cat": 0.75},
        metric="voc",
    )


def run(name: str, *, worse: bool) -> Run:
    """A run with an item of each kind; the worse one regressed, lacks an item, and leaves one undecided."""
    scored = DatasetRecord(
        name="voc-val",
        sha256="ab" * 32,
        images=20,
        protocol="dataset",
        scores={"miou": 0.6, "iou cat": 0.7},
        intervals={"miou": (0.55, 0.65), "iou cat": (0.6, 0.8)},
    )
    load = LoadRecord(seed=1, queries=900, images_per_s=24.5, bounds_s={"p99": 0.081}, max_p99_ms=90.0, highest_rate=20)
    energy = EnergyRecord(joules=82.0, calls=40, counter="RAPL package-0")
    items = [
        an_item(steady(0.08 if worse else 0.05), peak_memory_bytes=312_000_000, energy=energy),
        an_item(steady(0.0513 if worse else 0.05, 8, sd=0.02), case="cat-2"),
        an_item(steady(0.2), kind="throughput", batch=4),
        an_item(steady(0.04, 900), kind="load", scenario="server", load=load),
        an_item(kind="accuracy", accuracy=cat(not worse)),
        an_item(kind="dataset", case="voc-val", dataset=scored, accuracy=AccuracyRecord(dominant="cat", fractions={})),
    ]
    items += [] if worse else [an_item(kind="latency", case="dog")]
    ends = [
        OutcomeRecord(item="test_accuracy[cat]", kind="accuracy", outcome="failed", reason="dominant: found dog"),
        OutcomeRecord(item="test_latency[dog]", kind="latency", outcome="error", reason="no photo", key=DOG),
        OutcomeRecord(item="test_latency[sea]", kind="latency", outcome="skipped", reason="tide", where="sea.jpg"),
    ]
    cases = [
        {"name": "cat", "file": "cases/pets.yaml", "line": 3},
        {"name": "cat-2", "file": "cases/pets.yaml", "line": 9},
        {"name": "dog", "file": "cases/dogs.yaml", "line": 1},
    ]
    return a_run(*items, name=name, cases=cases, outcomes=ends if worse else [])


DOG = "latency[dog-embedded-torch-cpu-320]"


@pytest.fixture(scope="module")
def judged() -> tuple[Run, Run, GateResult]:
    old, new = run("main", worse=False), run("change", worse=True)
    return old, new, judge([old], [new], Limits())


@pytest.mark.parametrize("name", [*VERDICT_FORMATS, *FIGURE_FORMATS])
def test_golden_files(judged: tuple[Run, Run, GateResult], name: str) -> None:
    """To accept a change: `python -m tests.report.test_exports`, then read the difference."""
    old, new, result = judged
    assert export_run(name, new, old, result) == (GOLDEN / FILES[name]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("bencher", BENCHER),
        ("gitlab", GITLAB),
        ("customSmallerIsBetter", ACTION_BENCHMARK),
        ("customBiggerIsBetter", ACTION_BENCHMARK),
    ],
)
def test_published_schemas_accept_what_is_written(name: str, schema: dict[str, Any]) -> None:
    Draft7Validator.check_schema(schema)
    found = json.loads((GOLDEN / FILES[name]).read_text(encoding="utf-8"))
    assert found
    Draft7Validator(schema).validate(found)


def read_junit(text: str) -> dict[tuple[str, str], junitparser.TestCase]:
    parsed = junitparser.JUnitXml.fromstring(text.encode())
    return {(suite.name, case.name): case for suite in parsed for case in suite}


def test_junitparser_reads_every_verdict(judged: tuple[Run, Run, GateResult]) -> None:
    old, new, result = judged
    text = export_run("junit", new, old, result)
    found = read_junit(text)
    kinds: dict[str, type[Any] | None] = {
        "pass": None,
        "improved": None,
        "regressed": junitparser.Failure,
        "missing": junitparser.Error,
        "inconclusive": junitparser.Skipped,
        "incomparable": junitparser.Skipped,
    }
    assert set(result.counts) >= {"regressed", "missing", "inconclusive", "pass"}
    assert len(found) == len(result.rows)
    for row in result.rows:
        ends = found[row.item, row.aspect].result
        assert [type(end) for end in ends] == [kind for kind in [kinds[row.verdict]] if kind]
        assert all(row.reason in end.message for end in ends)
    parsed = junitparser.JUnitXml.fromstring(text.encode())
    parsed_counts = parsed.tests, parsed.failures, parsed.errors
    parsed.update_statistics()  # type: ignore[no-untyped-call]  # junitparser does not say its type
    assert parsed_counts == (parsed.tests, parsed.failures, parsed.errors)


def test_without_a_baseline_outcomes_and_expectations_are_the_verdicts() -> None:
    found = read_junit(export_run("junit", run("change", worse=True)))
    ends = {name: [type(end) for end in case.result] for name, case in found.items()}
    assert ends == {
        ("test_accuracy[cat]", "outcome"): [junitparser.Failure],
        (DOG, "outcome"): [junitparser.Error],
        ("test_latency[sea]", "outcome"): [junitparser.Skipped],
        ("accuracy[cat-embedded-torch-cpu-320]", "dominant"): [junitparser.Failure],
    }


def test_findings_of_gitlab_are_at_the_line_of_their_case(judged: tuple[Run, Run, GateResult]) -> None:
    old, new, result = judged
    found = json.loads(export_run("gitlab", new, old, result))
    places = {(e["location"]["path"], e["location"]["lines"]["begin"], e["severity"]) for e in found}
    assert places == {
        ("cases/pets.yaml", 3, "major"),
        ("cases/pets.yaml", 3, "minor"),  # regressed, and inconclusive
        ("cases/pets.yaml", 9, "minor"),
        ("cases/dogs.yaml", 1, "major"),  # missing: only the baseline has it
    }
    assert len({entry["fingerprint"] for entry in found}) == len(found)


def test_fingerprints_depend_on_what_is_judged_and_not_on_figures_or_lines(
    judged: tuple[Run, Run, GateResult],
) -> None:
    old, new, result = judged
    moved = [case.model_copy(update={"line": case.line + 40}) for case in new.record.cases]
    slower = a_run(
        *(b.model_copy(update={"samples": tuple(2 * s for s in b.samples)}) for b in new.benchmarks),
        name="other",
        cases=moved,
        outcomes=new.record.outcomes,
    )
    before = {e["description"].partition(":")[0]: e for e in json.loads(export_run("gitlab", new, old, result))}
    after = json.loads(export_run("gitlab", slower, old, judge([old], [slower], Limits())))
    same = [entry for entry in after if entry["description"].partition(":")[0] in before]
    assert len(same) >= 3
    for entry in same:
        earlier = before[entry["description"].partition(":")[0]]
        assert entry["fingerprint"] == earlier["fingerprint"]
        assert entry["location"]["lines"]["begin"] == earlier["location"]["lines"]["begin"] + 40
    assert {e["description"] for e in same} != {e["description"] for e in before.values()}


def test_each_figure_is_in_one_file_of_github_action_benchmark() -> None:
    new = run("change", worse=True)
    smaller, bigger = (
        {e["name"]: (e["value"], e["unit"]) for e in json.loads(export_run(name, new))}
        for name in ("customSmallerIsBetter", "customBiggerIsBetter")
    )
    assert not smaller.keys() & bigger.keys()
    assert smaller["latency[cat-embedded-torch-cpu-320] energy per image"] == (2.05, "J")
    assert smaller["latency[cat-embedded-torch-cpu-320] peak memory"] == (312.0, "MB")
    assert bigger["accuracy[cat-embedded-torch-cpu-320] mIoU"] == (42.0, "%")
    assert bigger["throughput[cat-embedded-torch-cpu-320-b4] throughput"][0] == pytest.approx(20, rel=0.01)
    assert bigger["load[cat-embedded-torch-cpu-320-server] highest rate"] == (20.0, "queries/s")
    assert not any("iter/sec" in unit for _, unit in (smaller | bigger).values())


def test_bencher_has_latency_in_nanoseconds_within_its_bounds() -> None:
    found = json.loads(export_run("bencher", run("change", worse=True)))
    latency = found["latency[cat-embedded-torch-cpu-320]"]["latency"]
    assert latency["lower_value"] < latency["value"] < latency["upper_value"]
    assert latency["value"] == pytest.approx(8e7, rel=0.01)


@pytest.mark.parametrize("name", [*VERDICT_FORMATS, *FIGURE_FORMATS])
def test_hostile_names_are_text(tmp_path: Path, name: str) -> None:
    """Whatever a run file of somebody else says: the file stays one of its format, without control characters."""
    honest = make_run(tmp_path, "base", models=("embedded",))
    hostile = make_hostile(honest)
    texts = [export_run(name, hostile)] if name != "gitlab" else []  # without a baseline, nothing failed
    texts += [export_run(name, honest, hostile, judge([hostile], [honest], Limits()))]  # everything is missing
    for text in texts:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
        if text.startswith("<?xml"):
            assert "<script" not in text
            assert len(read_junit(text)) > 1
        else:
            assert json.loads(text)


if __name__ == "__main__":
    before, after = run("main", worse=False), run("change", worse=True)
    for kind, file in FILES.items():
        (GOLDEN / file).write_text(
            export_run(kind, after, before, judge([before], [after], Limits())), encoding="utf-8"
        )
