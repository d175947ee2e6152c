"""Environments that lack something usual: what needs none of it works, the rest says in one line what to set."""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from segcore.cli import cli
from segcore.inputs.images import resource_path
from segcore.measurement.conditions import describe, read_state
from segcore.measurement.machine import cgroup_cpus, cpu_model, fingerprint, git_commit, run_name, usable_cores

EMBEDDED = ["--model", "embedded", "--size", "32", "--device", "cpu"]

VARIABLES: dict[str, dict[str, str | None]] = {
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "home is a file": {"HOME": "/etc/passwd"},
    "home cannot be written": {"HOME": "/proc"},
    "no path": {"PATH": None},
    "empty path": {"PATH": ""},
    "no terminal type": {"TERM": None},
    "dumb terminal": {"TERM": "dumb"},
    "no columns": {"COLUMNS": "0"},
    "columns that are no number": {"COLUMNS": "garbage"},
    "a proxy that is no URL": {"http_proxy": "http://[", "https_proxy": "::::"},
    "no certificates": {"REQUESTS_CA_BUNDLE": "/nonexistent", "SSL_CERT_FILE": "/nonexistent"},
    "cache below a file": {"SEGCORE_CACHE": "/etc/passwd/cache"},
    "cache that cannot be written": {"SEGCORE_CACHE": "/proc/cache", "TORCH_HOME": "/proc/torch"},
    "variables that are set to nothing": dict.fromkeys(
        ("SEGCORE_CACHE", "SEGCORE_MIRRORS", "SEGCORE_ALLOW_HTTP", "SEGCORE_OFFLINE"), ""
    ),
    "git elsewhere": {"GIT_DIR": "/nonexistent", "GIT_CONFIG_GLOBAL": "/proc/nowhere"},
    "a hidden GPU": {"CUDA_VISIBLE_DEVICES": "garbage"},
    "a summary that cannot be written": {"GITHUB_STEP_SUMMARY": "/proc/summary"},
}


def segcore(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/proc")


@pytest.mark.parametrize("name", VARIABLES)
def test_what_needs_none_of_it_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in VARIABLES[name].items():
        monkeypatch.delenv(variable, raising=False) if value is None else monkeypatch.setenv(variable, value)
    if name == "no home":
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])  # a user without an entry: KeyError
    monkeypatch.setenv("SEGCORE_OFFLINE", "1")
    for words in (
        ["segment", resource_path("skimage:chelsea.png"), "--out", tmp_path / "out", "--no-overlay", *EMBEDDED],
        ["devices"],
        ["cases", Path(__file__).parents[2] / "cases", "--check"],
    ):
        result = segcore(*words)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
    assert run_name(tmp_path)
    fetch = segcore("fetch", "--model", "fcn_resnet50")  # needs the network
    assert (fetch.exit_code, fetch.stderr.count("\n")) == (2, 1)
    assert "SEGCORE_" in fetch.stderr


def test_a_sandbox_that_withholds_everything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cpu_times", "getloadavg", "sensors_battery", "virtual_memory"):
        monkeypatch.setattr(psutil, name, refuse, raising=False)
    monkeypatch.setattr("platform.node", lambda: "")
    state = read_state(tmp_path)
    assert describe(state, read_state(tmp_path))["other load"] == "unknown"
    assert (cgroup_cpus(tmp_path), git_commit(tmp_path)) == (None, None)
    assert fingerprint(tmp_path).memory_bytes == 0
    assert cpu_model(tmp_path)
    assert run_name(tmp_path) == "machine-unversioned"


def test_a_system_that_does_not_count_its_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    assert usable_cores() == 1
    assert fingerprint(tmp_path).cores_physical is None
    assert read_state(tmp_path).processors == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(
    ("before", "command", "code", "text"),
    [
        ("ulimit -v 1000000", "segment a.png --model embedded", 2, "ulimit -v"),
        ("export -n HOME LANG PATH", "cases --check CASES", 0, ""),
        ("export PYTHONOPTIMIZE=2 PYTHONSAFEPATH=1", "cases --check CASES", 0, ""),
        ("export LC_ALL=POSIX PYTHONUTF8=0 PYTHONCOERCECLOCALE=0", "cases CASES", 0, ""),
        ("export PYTHONWARNINGS=error", "cases --check CASES", 0, ""),
        ("mkdir gone; cd gone; rmdir ../gone", "--help", 0, ""),
        ("mkdir gone; cd gone; rmdir ../gone", "cases --check", 2, "cd "),
        ("exec <&- >&-", "cases --check CASES", 0, ""),
        ("ulimit -n 12", "cases --check CASES", 0, ""),
        ("ulimit -f 0", "cases --check CASES", 0, ""),
    ],
)
def test_a_process_with_less_than_usual(tmp_path: Path, before: str, command: str, code: int, text: str) -> None:
    words = command.replace("CASES", str(Path(__file__).parents[2] / "cases"))
    script = f"{before}; exec {sys.executable} -m segcore {words}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == bool(text)
    assert text in done.stderr
