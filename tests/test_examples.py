"""The repository in ``examples/`` works as its README says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segcore.results.store import load_run
from tests.support.processes import ALONE

EXAMPLES = Path(__file__).parent.parent / "examples"
RUN = (
    "--benchmark-save=before",
    "--benchmark-max-time=0.05",
    "--benchmark-min-rounds=2",
    "--segcore-processes=1",
    "--segcore-wait=0",
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="its program needs process groups")]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with its model made."""
    pytest.importorskip("onnx", reason="its model is an ONNX file: pip install segcore[onnxruntime]")
    there = tmp_path_factory.mktemp("fields") / "fields"
    shutil.copytree(EXAMPLES, there, ignore=shutil.ignore_patterns("*.onnx", "reports", "segmented", "__pycache__"))
    run(there, "make_model.py")
    return there


def run(there: Path, *words: str) -> str:
    done = call(there, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def call(there: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ALONE}
    return subprocess.run(
        [sys.executable, *words], cwd=there, env=environment, capture_output=True, text=True, check=False
    )


def test_the_first_table(repository: Path) -> None:
    photos = [f"cases/{name}.jpg" for name in ("meadow", "field", "path")]
    for model in ("fields", "shipped"):
        found = json.loads(run(repository, "-m", "segcore", "segment", *photos, "--model", model, "--json"))
        assert [each["dominant"] for each in found["photos"]] == ["grass", "sky", "sky"]
    assert "class 2" in run(repository, "-m", "segcore", "models", "--inspect", "models/fields.onnx")
    run(repository, "-m", "segcore", "cases", "--check")


def test_bench_report_and_gate(repository: Path) -> None:
    run(repository, "-m", "pytest", "bench/", *RUN)
    before = load_run(next(repository.glob("reports/runs/*/*_before.json")))
    assert {outcome.outcome for outcome in before.record.outcomes} == {"passed"}
    records = {benchmark.name: benchmark.info for benchmark in before.benchmarks}
    assert len(records) == 8
    for name, info in records.items():
        if "shipped" not in name:
            continue
        assert info.runtime == "program"
        assert info.gmacs is None
        assert info.peak_memory_bytes is None
        if info.accuracy is not None:
            assert info.accuracy.checks[-1].name == "pixels unlike fields"
            assert info.accuracy.checks[-1].passed
    run(repository, "-m", "segcore", "report", "before", "--quiet")


def test_a_program_that_is_wrong_fails(repository: Path) -> None:
    """Sky and grass exchanged: the case fails, and so does parity; a program that ends early is an error."""
    there = repository.parent / "wrong"
    shutil.copytree(repository, there)
    program = (there / "segment.py").read_text()
    for change, words in (
        (
            ("2 * blue - red - 0.5 * green, 2 * green - red - blue", "2 * green - red - blue, 2 * blue - red - green"),
            ("pixels unlike fields", "fraction of sky"),
        ),
        (
            ('if __name__ == "__main__":', 'if __name__ == "__main__":\n    sys.exit("no network")'),
            ("ProgramError", "exit code 1; it said: no network"),
        ),
    ):
        assert change[0] in program
        (there / "segment.py").write_text(program.replace(*change))
        arguments = ["-m", "pytest", "bench/test_accuracy.py", "-k", "meadow and shipped", *RUN]
        done = call(there, *arguments)
        assert done.returncode == 1
        for word in words:
            assert word in done.stdout
