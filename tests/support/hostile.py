"""Values that a run file from a stranger may hold, every place where it may hold them, and all that shows them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.judgement.compare import compare
from segcore.judgement.gate.files import judge_runs
from segcore.judgement.history import history
from segcore.report import gate
from segcore.report.comment import render_comment
from segcore.report.comparison import cells_table, comparison_table, history_table
from segcore.report.model import build_report
from segcore.report.table import print_table, terminal_text, to_csv
from segcore.report.terminal import print_report

Path = tuple[str | int, ...]
CI_COMMAND = re.compile(r"^\s*::[\w-]+( [^:\n]*)?::|##\w*\[", re.MULTILINE)
UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

NUMBERS: tuple[object, ...] = (
    10**400,
    -(10**400),
    10**30,
    -1,
    0,
    5e-324,
    1e-300,
    1e300,
    1.5,
    float("nan"),
    float("inf"),
    -float("inf"),
)
TEXTS = (
    "",
    "::error::owned",
    "::stop-commands::token",
    "##[error]owned",
    "##vso[task.setvariable variable=a]b",
    "\x1b[2J\x1b]0;title\x07",
    "\u202egnp.exe",
    "a\r\n::error::b",
    '=HYPERLINK("http://x")',
    "[a](http://x) @all #1 GH-1 <script>alert(1)</script>",
    "\ud800",
    "x" * 100_000,
    "cpu:x",
    "../../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "9" * 400,
    "{{7*7}}",
)
OTHERS: tuple[object, ...] = (None, True, [], {}, [None], {"a": 1})
VALUES: tuple[object, ...] = (*NUMBERS, *TEXTS, *OTHERS)


def places(value: object, at: Path = ()) -> Iterator[Path]:
    """Yield the path of every value inside a JSON value; of a list, the first and the last item."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for index in dict.fromkeys((0, len(value) - 1)) if value else ():
            yield from places(value[index], (*at, index))


def changed(document: dict[str, Any], at: Path, value: object) -> dict[str, Any]:
    """Return a copy of a document with another value at one place."""
    found = copy.deepcopy(document)
    parent: Any = found
    for key in at[:-1]:
        parent = parent[key]
    parent[at[-1]] = value
    return found


LOAD: dict[str, Any] = {
    "kind": "load",
    "scenario": "server",
    "batch": 1,
    "threads": 2,
    "build_s": 1.0,
    "tags": ["a"],
    "warnings": [{"code": "spread", "value": 0.5, "text": "x"}],
    "limits": {"max_slowdown": {"p50": 0.1, "p99": 0.2}, "max_latency_ms": {"p50": 100.0}, "min_throughput": 1.0},
    "runtime_options": {"threads": "2"},
    "energy": {"joules": 5.0, "calls": 8, "counter": "RAPL"},
    "load": {
        "seed": 1,
        "rate": 5.0,
        "max_p99_ms": 100.0,
        "validity": "valid",
        "queries": 8,
        "over": 0,
        "images_per_s": 5.0,
        "bounds_s": {"p50": 0.1, "p90": 0.2},
        "highest_rate": 5.0,
        "lowest_failed_rate": 6.0,
        "trials": [{"rate": 5.0, "validity": "valid", "latencies_s": [0.1, 0.2]}],
    },
}
DATASET: dict[str, Any] = {
    "name": "voc-val",
    "sha256": "ab",
    "images": 5,
    "failed": {"a": "b"},
    "protocol": "voc-original",
    "scores": {"miou": 0.5, "iou cat": 0.5},
    "intervals": {"miou": [0.4, 0.6], "iou cat": [0.1, 0.9]},
    "published": {"miou": 0.6},
    "matrix": [[1] * 21] * 21,
    "worst": [{"name": "a", "miou": 0.1, "picture": None}],
}


def full_document(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a run from `make_run` with one item of each kind, and a value at every place."""
    latency, throughput, accuracy = (document["benchmarks"][n] for n in (0, 4, -1))
    load, dataset = copy.deepcopy(throughput), copy.deepcopy(accuracy)
    load["extra_info"]["segcore"] |= LOAD
    scored = dataset["extra_info"]["segcore"]
    scored |= {"kind": "dataset", "dataset": DATASET}
    scored["accuracy"] |= {"iou": {"cat": 0.5}, "miou": 0.5, "pixel_accuracy": 0.5, "metric": "voc-original"}
    head = document["segcore"]
    machine = {"gpus": [{"name": "g", "driver": "d", "memory_bytes": 5}], "thread_settings": {"OMP": "1"}}
    return document | {
        "benchmarks": [latency, throughput, accuracy, load, dataset],
        "segcore": {
            **head,
            "outcomes": head["outcomes"][:1],
            "machine": {**head["machine"], **machine, "cgroup_cpus": 1.5},
            "selection": {"case": ["a"]},
            "deselected": ["x"],
            "warnings": [{"code": "other-load", "value": 0.3, "text": "busy"}],
        },
    }


def show_everything(baseline: Run, run: Run) -> str:
    """Return what the commands print, in text for terminals and logs."""
    result = judge_runs([baseline], [run], Limits(), run.path.parent / "none")
    report = build_report([run], baseline, result)
    text = terminal_text(lambda console: print_report(report, console), width=80)
    text += gate.render(result, width=80)
    comparison = compare([baseline, run])
    text += terminal_text(lambda console: print_table(comparison_table(comparison), console), width=80)
    for series in history([baseline, run]):
        text += terminal_text(lambda console, s=series: print_table(history_table(s), console), width=80)  # type: ignore[misc]
    render_comment(report)
    json.dumps(gate.as_json(result), allow_nan=False)
    for cell in re.split(r"[,\n]", to_csv(cells_table(comparison))):
        assert not cell.lstrip('" ').startswith(("=", "@"))
    return text
