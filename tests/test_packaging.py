"""The wheel and the source distribution hold what their users need."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from email.parser import BytesParser
from pathlib import Path

import pytest

import segcore
from segcore.results.store import load_run
from tests.support.processes import ALONE

ROOT = Path(__file__).parents[1]
QUICK = ("--benchmark-max-time=0.05", "--benchmark-min-rounds=2", "--segcore-processes=1", "--segcore-wait=0")

COPIED = ("action.yml", "cases/offline.yaml", "templates/segcore.yml")
MODEL = "source: {python: net:make}\nlabels: voc\n"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both."""
    pytest.importorskip("hatchling", reason="builds the package")
    directory = tmp_path_factory.mktemp("built")
    arguments = ["hatchling", "build", "-d", str(directory), "-t", "wheel", "-t", "sdist"]
    subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, and a finder that hides scikit-image."""
    directory = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(directory)
    (directory / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'skimage': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    return directory


def run(installed: Path, there: Path, words: Sequence[str], code: int = 0) -> str:
    """Run a module of the installed wheel in a repository; return what it printed."""
    environment = {**os.environ, **ALONE, "PYTHONPATH": str(installed), "SEGCORE_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=there, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_the_wheel(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        assert {name.partition("/")[0] for name in names} == {"segcore", f"segcore-{segcore.__version__}.dist-info"}
        for name in (*ROOT.glob("bench/test_*.py"), *(ROOT / name for name in COPIED)):
            copy = f"segcore/start/{name.relative_to(ROOT).as_posix()}"
            assert wheel.read(copy) == name.read_bytes(), copy
        tracked = {file.relative_to(ROOT).as_posix() for file in (ROOT / "segcore").rglob("*") if file.is_file()}
        assert {name for name in tracked if "__pycache__" not in name} <= names
        metadata = wheel.read(f"segcore-{segcore.__version__}.dist-info/METADATA")
    found = BytesParser().parsebytes(metadata)
    assert found["Version"] == segcore.__version__
    assert found["Author"]
    readme = found.get_payload()
    assert isinstance(readme, str)
    assert "# segcore" in readme
    assert set(re.findall(r"\]\((?!https?:|#)([^)]*)\)", readme)) == set()


def test_the_source_distribution_has_all_that_its_tests_and_its_wheel_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "noxfile.py", "pyproject.toml"),
        *("bench", "cases", "docs", "examples", "segcore", "tests", "tools", "training"),
    ]
    for name in wanted:
        inside = [ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*.*"))
        assert inside, name
        files = {path.relative_to(ROOT).as_posix() for path in inside if path.is_file() and not _is_made(path)}
        assert files <= names


def _is_made(path: Path) -> bool:
    """Return whether git ignores a file."""
    return bool({"__pycache__", ".pytest_cache", "reports", "segmented"} & set(path.parts)) or path.suffix == ".onnx"


def test_an_empty_directory_becomes_a_gated_repository(installed: Path, tmp_path: Path) -> None:
    """With the wheel alone: no clone, no network, no scikit-image."""
    there = tmp_path / "repository"
    there.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=there, check=True)
    assert "wrote .github/workflows/segcore.yml" in run(installed, there, ["segcore", "init", "--ci", "github"])
    (there / "net.py").write_text(
        "from segcore.inference.embedded import load_embedded\n\n\ndef make():\n    return load_embedded()\n"
    )
    (there / "models" / "mine.yaml").write_text(MODEL)
    text = (there / "pyproject.toml").read_text()
    (there / "pyproject.toml").write_text(text.replace('["embedded"]', '["mine"]'))
    run(installed, there, ["pytest", "bench/", "-k", "chelsea and not throughput", "--benchmark-save=before", *QUICK])
    before = load_run(next(there.glob("reports/runs/*/*_before.json")))
    found = {(outcome.kind, outcome.outcome) for outcome in before.record.outcomes}
    assert found == {("accuracy", "passed"), ("latency", "passed")}

    (there / "models" / "mine.yaml").write_text(MODEL + "input: {scale: 1}\n")  # the change: pixels are not scaled
    accuracy = ["pytest", "bench/test_accuracy.py", "-k", "chelsea", "--benchmark-save=after"]
    run(installed, there, accuracy, code=1)
    rows = json.loads(run(installed, there, ["segcore", "gate", "before", "after", "--json"], code=1))["rows"]
    assert "regressed" in {row["verdict"] for row in rows if row["item"].startswith("accuracy")}
