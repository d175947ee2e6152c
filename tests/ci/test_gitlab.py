"""The script of the GitLab component, run in a shell with GitLab's variables and the network replaced."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from segcore.core.records import Run
from tests.support.ci_runner import Json, gitlab_job, run_gitlab, write_stubs
from tests.support.factories import make_run
from tests.support.measured import replace_pytest

ROOT = Path(__file__).parents[2]
CURL = """
import shutil, sys
from pathlib import Path
here = Path(sys.argv[0]).parent
assert sys.argv[-1] == "https://gitlab.example/api/v4/projects/3/jobs/artifacts/main/download?job=segcore", sys.argv
assert "JOB-TOKEN: t" in sys.argv
if not (here / "runs.zip").exists():
    sys.exit(22)
shutil.copy(here / "runs.zip", sys.argv[sys.argv.index("--output") + 1])
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    directory = tmp_path_factory.mktemp("runs")
    return {
        "same": make_run(directory, "same", models=("embedded",)),
        "worse": make_run(directory, "worse", models=("embedded",), seed=1, slower=2.0),
        "elsewhere": make_run(directory, "elsewhere", models=("embedded",), seed=2, cpu="Another CPU"),
    }


def run_job(tmp_path: Path, stubs: Path, branch: str, **inputs: object) -> subprocess.CompletedProcess[str]:
    job: Json = gitlab_job(ROOT / "templates" / "segcore.yml", **inputs)
    variables = {
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
        "CI_PROJECT_ID": "3",
        "CI_DEFAULT_BRANCH": "main",
        "CI_JOB_TOKEN": "t",
        "CI_COMMIT_BRANCH": branch,  # empty in a pipeline of a merge request
    }
    checkout = tmp_path / "checkout"
    if not checkout.exists():
        shutil.copytree(ROOT / "cases", checkout / "cases")
    return run_gitlab(job, checkout, stubs, **variables)


@pytest.mark.slow
@pytest.mark.parametrize(("measured", "code"), [("worse", 1), ("elsewhere", 3)])
def test_a_merge_request_is_judged_by_the_runs_of_the_default_branch(
    tmp_path: Path, runs: dict[str, Run], measured: str, code: int
) -> None:
    stubs, checkout = write_stubs(tmp_path / "stubs", curl=CURL), tmp_path / "checkout"
    replace_pytest(stubs, runs["same"])
    done = run_job(tmp_path, stubs, "main", **{"torch-index": "", "install": "-e '.[x]' other"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (stubs / "pip.log").read_text() == "pip install -e .[x] other\n"
    assert json.loads((checkout / "reports/quality.json").read_bytes()) == []
    shutil.copytree(runs["same"].path.parent, checkout / "reports/runs/box", dirs_exist_ok=True)
    shutil.make_archive(str(stubs / "runs"), "zip", checkout, "reports")
    shutil.rmtree(checkout / "reports")
    replace_pytest(stubs, runs[measured])
    done = run_job(tmp_path, stubs, "", bench="bench/ -k '$(touch owned)'", **{"gate-args": "--max-slowdown '0.2'"})
    assert done.returncode == code, done.stdout + done.stderr
    assert json.loads((stubs / "pytest.json").read_text())[1:] == ["bench/", "-k", "$(touch owned)"]
    quality = json.loads((checkout / "reports/quality.json").read_bytes())
    assert {entry["severity"] for entry in quality} == {"major" if code == 1 else "minor"}
    assert "change against base" in (checkout / "reports/verdicts.xml").read_text()
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 1, 2])
def test_without_a_baseline_the_tests_decide(tmp_path: Path, runs: dict[str, Run], code: int) -> None:
    stubs = write_stubs(tmp_path / "stubs", curl=CURL)
    replace_pytest(stubs, runs["same"], code)
    done = run_job(tmp_path, stubs, "")
    assert done.returncode == code, done.stdout + done.stderr
    assert (tmp_path / "checkout/reports/verdicts.xml").exists() == (code < 2)
