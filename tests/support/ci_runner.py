"""Run the shell of workflows as their services do: expressions filled in, variables set, the network replaced.

Of GitHub: steps in order, ``if``, ``env``, outputs, the step summary, and a runner that stops at the first failure but
for ``always()``. Steps with ``uses`` are noted. Of GitLab: the interpolation of a component's inputs, and one shell for
the script.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.processes import ALONE

Json = dict[str, Any]
_PATH = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+)+")
_TOKEN = re.compile(r"'(?:[^']|'')*'|&&|\|\||==|!=|!|\(|\)|,|[A-Za-z_][\w-]*(?:\.[\w-]+)*|\s+")
_OPERATORS = {"&&": " and ", "||": " or ", "!": " not ", "==": "==", "!=": "!=", "(": "(", ")": ")", ",": ","}


def read_yaml(path: Path) -> list[Any]:
    """Return the documents of a file."""
    return list(YAML(typ="safe").load_all(path))


def evaluate(expression: str, contexts: Mapping[str, Any], *, failed: bool = False, cwd: Path = Path()) -> Any:
    """Return the value of a GitHub expression: literals, contexts, operators, ``always()`` and ``hashFiles()``."""
    parts, position = [], 0
    while position < len(expression):
        token = _TOKEN.match(expression, position)
        assert token, f"unknown to this runner: {expression[position:]}"
        parts.append(_as_python(token[0]))
        position = token.end()
    functions = {
        "always": lambda: True,
        "success": lambda: not failed,
        "hashFiles": lambda pattern: "1" if list(cwd.glob(pattern)) else "",
        "look": lambda name: _look(name, contexts),
    }
    return eval("".join(parts).strip(), {"__builtins__": {}}, functions)


def _as_python(token: str) -> str:
    if token in _OPERATORS or token.isspace():
        return _OPERATORS.get(token, " ")
    if token.startswith("'"):
        return repr(token[1:-1].replace("''", "'"))
    return f"look({token!r})" if _PATH.fullmatch(token) else token


def _look(name: str, contexts: Mapping[str, Any]) -> Any:
    value: Any = contexts
    for part in name.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value


def fill(text: object, contexts: Mapping[str, Any]) -> str:
    """Return a text with its ``${{ }}`` filled in."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(evaluate(found[1].strip(), contexts)), str(text))


@dataclass
class GitHub:
    """A runner in a directory, with what a job has said and done there."""

    workspace: Path
    temporary: Path
    stubs: Path
    """Directory that comes first on the PATH."""
    contexts: Json
    environment: dict[str, str] = field(default_factory=dict)
    log: str = ""
    used: list[tuple[str, Json]] = field(default_factory=list)
    """Steps with ``uses`` that ran, with their inputs."""
    ran: list[str] = field(default_factory=list)
    """Names of the other steps that ran."""
    failed: int = 0
    """Exit code of the first step that failed."""

    @property
    def summary(self) -> str:
        """What was appended to the step summary."""
        path = self.temporary / "summary.md"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def run(self, steps: Sequence[Json], environment: Mapping[str, str] | None = None) -> None:
        """Run the steps of a job or composite action."""
        self.contexts.setdefault("steps", {})
        for step in steps:
            condition = str(step.get("if", "success()"))
            condition = condition if "always()" in condition else f"success() && ({condition})"
            if evaluate(condition, self.contexts, failed=bool(self.failed), cwd=self.workspace):
                self._step(step, {**(environment or {})})

    def _step(self, step: Json, environment: dict[str, str]) -> None:
        if "uses" in step:
            given = {name: fill(value, self.contexts) for name, value in step.get("with", {}).items()}
            self.used.append((step["uses"], given))
            return
        self.ran.append(step.get("name", ""))
        output, script = self.temporary / "output", self.temporary / "script.sh"
        output.write_text("")
        script.write_text(step["run"], encoding="utf-8")
        assert "${{" not in step["run"], "an expression in a script is code of whoever chose its value"
        environment |= {name: fill(value, self.contexts) for name, value in step.get("env", {}).items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.workspace,
            env={**base_environment(self.stubs), **self._variables(output), **self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        self.log += done.stdout + done.stderr
        self.failed = self.failed or done.returncode
        if "id" in step:
            pairs = (line.partition("=") for line in output.read_text(encoding="utf-8").splitlines())
            self.contexts["steps"][step["id"]] = {"outputs": {name: value for name, _, value in pairs}}

    def _variables(self, output: Path) -> dict[str, str]:
        event = self.temporary / "event.json"
        event.write_text(json.dumps(self.contexts["github"].get("event", {})))
        return {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": str(self.contexts["github"].get("event_name", "")),
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.temporary / "summary.md"),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temporary),
        }


def base_environment(stubs: Path) -> dict[str, str]:
    """Return the environment of a runner: nothing of the CI service that runs these tests, stubs first on the PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "CI_", "GITLAB_"))}
    return {**kept, **ALONE, "PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}"}


def write_stubs(directory: Path, **scripts: str) -> Path:
    """Write commands: those given, as Python, and `python`, `segcore` and `pip`.

    pip only notes its arguments. `python -m pytest` runs the stub's ``pytest.py`` if there is one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pip = f"echo \"pip $*\" >> '{directory}/pip.log'"
    python = f"""
if [ "$2" = pip ]; then
  shift 2
  {pip}
  exit
fi
if [ "$2" = pytest ] && [ -f '{directory}/pytest.py' ]; then
  shift 2
  set -- '{directory}/pytest.py' "$@"
fi
exec '{sys.executable}' "$@"
"""
    for name, text in {"python": python, "pip": pip, "segcore": f"exec '{sys.executable}' -m segcore \"$@\""}.items():
        _write(directory / name, f"#!/bin/sh\n{text}\n")
    for name, text in scripts.items():
        _write(directory / name, f"#!{sys.executable}\n{text}")
    return directory


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def gitlab_job(path: Path, **inputs: object) -> Json:
    """Return the job of a component as GitLab includes it: inputs checked against its ``spec`` and filled in."""
    header, body = path.read_text(encoding="utf-8").split("\n---\n", 1)
    spec = YAML(typ="safe").load(header)["spec"]["inputs"]
    assert set(inputs) <= set(spec)
    values = {name: inputs.get(name, about["default"]) for name, about in spec.items()}
    filled = re.sub(r"\$\[\[ inputs\.([\w-]+) \]\]", lambda found: json.dumps(values[found[1]]), body)
    job: Json = YAML(typ="safe").load(filled)["segcore"]
    return job


def run_gitlab(job: Json, workspace: Path, stubs: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a job in one shell that stops at the first failure, with the variables of the job."""
    environment = {**base_environment(stubs), "CI": "true", "GITLAB_CI": "true", **job["variables"], **variables}
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
