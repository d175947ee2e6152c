"""Runs in memory for tests of what judges them: one line each, with whatever is to differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segcore.core.records import AccuracyRecord, Benchmark, BenchmarkRecord, Run, RunRecord, WeightsRecord
from tests.support.factories import make_machine


def steady(seconds: float = 0.05, rounds: int = 40, seed: int = 0, sd: float = 0.005) -> tuple[float, ...]:
    """Samples around a time, as quiet as a dedicated machine's."""
    return tuple((seconds * np.exp(np.random.default_rng(seed).normal(0, sd, rounds))).tolist())


def an_item(samples: Sequence[float] = steady(), **fields: Any) -> Benchmark:
    """A latency item of the embedded model; `fields` are those of `BenchmarkRecord`."""
    kind = fields.get("kind", "latency")
    info = BenchmarkRecord.model_validate(
        {
            "kind": kind,
            "case": "cat",
            "model": "embedded",
            "weights": WeightsRecord(kind="pretrained", name="v1", sha256="ab" * 32),
            "device": "cpu",
            "size": 320,
            "input_shape": (1, 3, 320, 320),
            "preprocess": "as ever",
            "accuracy": AccuracyRecord(dominant="cat", fractions={"cat": 0.4}) if kind == "accuracy" else None,
            **fields,
        }
    )
    return Benchmark(name=info.key, samples=tuple(samples), info=info)


def a_run(*items: Benchmark, name: str = "run", **fields: Any) -> Run:
    """A complete run on one imaginary machine; `fields` are those of `RunRecord`."""
    record = RunRecord.model_validate(
        {
            "name": name,
            "started": "2026-01-01T00:00:00+00:00",
            "duration_s": 1.0,
            "complete": True,
            "command": ("pytest",),
            "machine": make_machine(),
            "versions": {},
            **fields,
        }
    )
    return Run(path=Path(f"{name}.json"), record=record, benchmarks=items)
