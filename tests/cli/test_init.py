"""``segcore init``: what it writes is this repository's own bench, and it never writes over a file."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from segcore import __version__
from segcore.cli import cli
from segcore.cli.init import CI_FILES, JUDGE
from segcore.core.configuration import find_configuration
from segcore.inputs.cases import load_cases

ROOT = Path(__file__).parents[2]
COPIES = [
    *(f"bench/test_{name}.py" for name in ("accuracy", "latency", "load", "throughput")),
    "cases/offline.yaml",
]
SCHEMAS = {
    "cases/case.schema.json": "cases/case.schema.json",
    "models/model.schema.json": "examples/models/model.schema.json",
}


def init(*words: str) -> Result:
    return CliRunner().invoke(cli, ["init", *words])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_what_is_written_is_our_own_bench(here: Path) -> None:
    result = init()
    assert result.exit_code == 0, result.output
    written = files(here)
    assert set(written) == {*COPIES, *SCHEMAS, "reports/.gitignore", "pyproject.toml"}
    for name in COPIES:
        assert written[name] == (ROOT / name).read_bytes()
    for name, ours in SCHEMAS.items():
        assert json.loads(written[name]) == json.loads((ROOT / ours).read_bytes())
    assert set(COPIES[:4]) == {f"bench/{file.name}" for file in (ROOT / "bench").glob("test_*.py")}
    assert len(load_cases(here / "cases")) == 3
    assert written["cases/offline.yaml"].startswith(b"# yaml-language-server: $schema=./case.schema.json\n")
    found = find_configuration(here)
    assert found is not None
    assert {setting.key: setting.values for setting in found.shared()} == {"model": ("embedded",), "size": ("320",)}


def test_a_dry_run_writes_nothing_and_says_the_same(here: Path) -> None:
    said = init("--dry-run", "--ci", "github").stdout
    assert files(here) == {}
    assert said.replace("would write", "wrote") == init("--ci", "github").stdout


def test_what_exists_is_kept(here: Path) -> None:
    own = {
        "bench/test_latency.py": b"mine",
        "cases/case.schema.json": b"{}",
        "pyproject.toml": b"[tool.segcore]\nsize = 1",
        ".gitlab-ci.yml": b"mine",
    }
    for name, data in own.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(data)
    (here / "reports").symlink_to(here / "elsewhere")
    (here / "elsewhere").mkdir()
    said = init("--ci", "gitlab").stdout
    assert files(here).items() >= own.items()
    assert all(f"kept {name}: " in said for name in own)
    before = files(here)
    assert "wrote" not in init("--ci", "gitlab").stdout
    assert files(here) == before


def test_own_cases_get_no_others_beside_them(here: Path) -> None:
    (here / "cases" / "deep").mkdir(parents=True)
    (here / "cases" / "deep" / "chelsea.yml").write_text("name: chelsea\nimage: {resource: 'segcore:chelsea.png'}")
    assert "kept cases/offline.yaml: not written" in init().stdout
    assert not (here / "cases" / "offline.yaml").exists()


@pytest.mark.parametrize(
    "text",
    ["# mine\r\n[project]\r\nname = 'x'  # so\r\n", "[tool.ruff]\nx = 1", "tool.ruff.x = 1\n", "", "[tool.ruff]\n\n\n"],
    ids=["crlf", "no newline", "dotted", "empty", "blank lines"],
)
def test_the_rest_of_pyproject_stays_as_it_is(text: str, here: Path) -> None:
    (here / "pyproject.toml").write_bytes(text.encode())
    assert init().exit_code == 0
    data = (here / "pyproject.toml").read_bytes()
    assert data.startswith(text.encode())
    assert data.count(b"\n") - data.count(b"\r\n") in (0, data.count(b"\n"))
    assert tomllib.loads(data.decode())["tool"]["segcore"]["size"] == [320]


@pytest.mark.parametrize(
    "text", ["[tool", "tool = {ruff = 1}", "tool = 3", "\udcff"], ids=["x", "inline", "no table", "bytes"]
)
def test_a_pyproject_that_takes_no_table_is_said_before_anything_is_written(text: str, here: Path) -> None:
    (here / "pyproject.toml").write_text(text, errors="surrogateescape")
    result = init()
    assert result.exit_code == 2
    assert result.stderr.startswith("segcore: pyproject.toml: ")
    assert len(result.stderr.splitlines()) == 1
    assert set(files(here)) == {"pyproject.toml"}


def test_a_place_that_cannot_be_written_is_bad_input(here: Path) -> None:
    (here / "bench").write_text("a file")
    result = init()
    assert result.exit_code == 2
    assert "bench" in result.stderr


class Installed:
    """Stands for `importlib.metadata.distribution`."""

    def __init__(self, recorded: object) -> None:
        self.recorded = recorded

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.recorded is None else json.dumps(self.recorded)


WHEEL = f"wheels/segcore-{__version__}-py3-none-any.whl[report]"
GIT = {"url": "https://example.com/a/segcore.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
SOURCES = {
    "index": (None, [f"segcore[report]=={__version__}"]),
    "git": (GIT, ["segcore[report] @ git+https://example.com/a/segcore.git@abc"]),
    "archive": ({"url": "https://example.com/s.whl"}, ["segcore[report] @ https://example.com/s.whl"]),
    "file": ({"url": "file:///x/segcore-0.1.0-py3-none-any.whl"}, [WHEEL]),
    "checkout": ({"url": "file:///x", "dir_info": {"editable": True}}, [WHEEL]),
}


@pytest.mark.parametrize("ci", CI_FILES)
@pytest.mark.parametrize("name", SOURCES)
def test_the_workflow_installs_segcore_from_where_it_is_from(
    name: str, ci: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, words = SOURCES[name]
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: Installed(recorded))
    said = init("--ci", ci).stdout
    assert installs(here, ci) == words
    assert ("for CI:" in said) == (words == [WHEEL])
    (here / CI_FILES[ci][0]).unlink()
    (here / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n")
    init("--ci", ci)
    assert installs(here, ci) == ["-e", ".", *words]


def installs(here: Path, ci: str) -> list[str]:
    """Return what the workflow passes to the part that it uses, which takes it as the words of a shell."""
    workflow, part, template = CI_FILES[ci]
    assert (here / part).read_bytes() == (ROOT / template).read_bytes()
    found = YAML(typ="safe").load((here / workflow).read_text())
    if ci == "github":
        (step,) = (step for step in found["jobs"]["segcore"]["steps"] if step.get("uses", "").startswith("./"))
        assert here / step["uses"] / "action.yml" == here / part
        inputs, declared = step["with"], YAML(typ="safe").load((here / part).read_text())["inputs"]
    else:
        (included,) = found["include"]
        assert here / included["local"].lstrip("/") == here / part
        inputs = included["inputs"]
        declared = next(iter(YAML(typ="safe").load_all((here / part).read_text())))["spec"]["inputs"]
    assert inputs.keys() <= declared.keys()
    return shlex.split(inputs["install"])


@pytest.mark.parametrize("name", SOURCES)
def test_requests_from_forks_are_judged_by_the_same_segcore_without_the_repository(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, words = SOURCES[name]
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: Installed(recorded))
    (here / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n")
    assert f"wrote {JUDGE}" in init("--ci", "github").stdout
    steps = YAML(typ="safe").load((here / JUDGE).read_text())["jobs"]["judge"]["steps"]
    (script,) = (step["run"] for step in steps if "pip install" in step.get("run", ""))
    *_, last = script.splitlines()
    assert shlex.split(last) == ["pip", "install", *words]
    assert (f"contents/{WHEEL.removesuffix('[report]')}" in script) == (words == [WHEEL])


def test_what_judges_follows_what_measures(here: Path) -> None:
    init("--ci", "github")
    measures, judges = (YAML(typ="safe").load((here / path).read_text()) for path in (CI_FILES["github"][0], JUDGE))
    action = YAML(typ="safe").load((here / CI_FILES["github"][1]).read_text())
    assert judges["on"]["workflow_run"]["workflows"] == [measures["name"]]
    (fetch,) = (step["run"] for step in judges["jobs"]["judge"]["steps"] if step.get("id") == "fetch")
    assert f"--workflow {measures['name']} " in fetch
    assert fetch.count(f"--name {action['inputs']['artifact']['default']} ") == fetch.count("gh run download") == 2
    (used,) = (step for step in measures["jobs"]["segcore"]["steps"] if step.get("uses", "").startswith("./"))
    assert "artifact" not in used["with"]


def test_workflows_belong_to_the_top_of_the_repository(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / ".git").mkdir()
    (here / "sub").mkdir()
    monkeypatch.chdir(here / "sub")
    result = init("--ci", "github")
    assert result.exit_code == 2
    assert f"in {here}" in result.stderr
    assert init().exit_code == 0
