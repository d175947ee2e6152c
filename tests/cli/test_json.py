"""What every command prints with ``--json``: one document, its keys in snake_case and explained in docs/json.md."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from segcore.cli import COMMANDS, cli
from segcore.core.record_int8 import Int8Record, LayerRecord
from segcore.paired.audit import Audit, Level
from tests.support.colour_models import litert_file
from tests.support.factories import make_run
from tests.support.pairs import make_voc

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
MODEL = "--model embedded --size 32 --device cpu"
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
CALLS = {
    "segment": [f"photo.png missing.png {MODEL} --profile trace.json"],
    "evaluate": [f"--dataset voc --root voc {MODEL} --out a.json"],
    "gate": ["base head --storage runs"],
    "audit": ["--self-audit --budget 1"],
    "report": ["head --baseline base --storage runs", "base --storage runs"],
    "compare": ["base head a.json --storage runs"],
    "history": ["--storage runs"],
    "sync": ["place --storage runs"],
    "devices": [""],
    "models": ["", "own"],
    "models_check": ["own --check"],
    "inspect": ["--inspect own/colours.tflite"],
    "fetch": ["--model embedded --cases cases/a.yaml --offline"],
    "runtimes": ["--device cpu"],
    "best": [f"photo.png {MODEL} --runtime torch --precision fp32 --rounds 1"],
    "cases": ["cases"],
    "quantize": [f"{MODEL} --calibration photo.png"],
}
"""Arguments by document; the command is that of the document, or as in `COMMAND_OF`."""
NOT_SEEN = {"items[].build_s", "items[].joules_per_image"}
"""Keys of columns that are left out where no item has a value."""
COMMAND_OF = {"audit": "gate", "models_check": "models", "inspect": "models"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which every one of `CALLS` can run."""
    root = tmp_path_factory.mktemp("json")
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 48, 3)).astype(np.uint8)).save(root / "photo.png")
    (root / "cases").mkdir()
    shutil.copy(root / "photo.png", root / "cases")
    make_voc(root / "voc", 2)
    make_run(root / "runs", "base", models=("embedded",))
    make_run(root / "runs", "head", models=("embedded",), slower=1.5, shift=9, seed=1)
    (root / "own").mkdir()
    litert_file(root / "own" / "colours.tflite")
    (root / "own" / "colours.yaml").write_text("source: {litert: colours.tflite}\n")
    (root / "own" / "wrong.yaml").write_text("source: {litert: none.tflite}\nlables: voc\n")
    (root / "cases" / "a.yaml").write_text("name: a\nimage: {path: photo.png}\nexpect: {dominant: cat}\n")
    (root / "cases" / "b.yaml").write_text("name: b\nimage: {path: photo.png}\nexpect: {dominant: cta}\n")
    (root / "place").mkdir()
    return root


def asked(document: str, arguments: str) -> Any:
    """Return the document that a command prints."""
    command = COMMAND_OF.get(document, document)
    result = CliRunner().invoke(cli, [command, *arguments.split(), "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout, parse_constant=pytest.fail)  # NaN and Infinity are no JSON


def explained() -> dict[str, set[str]]:
    """Return the keys in the tables of docs/json.md, by heading."""
    found: dict[str, set[str]] = {"": set()}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
            found[heading] = set()
        elif line.startswith("| `"):
            found[heading] |= set(re.findall(r"`([^`]+)`", line.split(" | ")[0]))
    found["report"] = found["report"] - {"gate"} | {f"gate.{key}" for key in found["gate"]}
    return found


def keys(value: object, known: set[str], at: str = "") -> Iterator[str]:
    """Yield the path of every value, with ``*`` for keys that the page calls data, and what is below those."""
    if f"{at}.*" in known:
        yield f"{at}.*"
    elif isinstance(value, dict) and value:
        is_data = any(key.startswith(f"{at}.*") for key in known)
        for name, each in value.items():
            assert is_data or SNAKE_CASE.fullmatch(name), f"{at}.{name}"
            yield from keys(each, known, f"{at}.{'*' if is_data else name}".removeprefix("."))
    elif isinstance(value, list) and value:
        for each in value:
            yield from keys(each, known, f"{at}[]")
    elif below := {key for key in known if key.startswith((f"{at}.", f"{at}[]"))}:
        assert not value  # there is no such list or object in this document
        yield from below
    else:
        yield at


@pytest.fixture(autouse=True)
def _simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return at once what takes many minutes: the audit, and the search for layers that stay in fp32."""

    def audited(*_: object) -> Audit:
        level = Level(0.1, 2, {"regressed": 2}, 0.101, {"pass": 0.0, "regressed": 0.99, "inconclusive": 0.01})
        return Audit(0.05, (level,), 0.03, 0.04, 20, 0.05)

    about = dict.fromkeys(("model", "weights", "runtime", "calibration", "truth"), "x")
    layer = LayerRecord(name="x", kind="Conv", changed=0.1, halved=0.1, damage=0.1, classes={"cat": 0.1})
    figures = {"size": 32, "limit": 0.1, "plain_drop": 0.1, "drop": 0.1, "evaluations": 1}
    source = Mock(found=Mock(return_value=Int8Record.model_validate({**about, **figures, "layers": [layer]})))
    monkeypatch.setattr("segcore.inference.pipeline.Segmenter.int8_source", lambda *_: source)
    monkeypatch.setattr("segcore.paired.audit.audit", audited)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("document", CALLS)
def test_every_document_has_a_version_and_the_keys_that_are_explained(
    document: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    known, seen = explained()[document], set[str]()
    for arguments in CALLS[document]:
        found = asked(document, arguments)
        assert list(found)[:2] == ["document", "schema_version"]
        assert (found.pop("document"), found.pop("schema_version")) == (document, 1)
        seen |= set(keys(found, known))
    assert seen - known == set(), "docs/json.md does not explain them"
    assert known - seen - NOT_SEEN == set(), "docs/json.md explains what is not there"


def test_every_command_that_prints_json_is_listed_here_and_explained() -> None:
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in COMMANDS}
    with_json = {
        name for name, command in commands.items() if command and any("--json" in p.opts for p in command.params)
    }
    assert {COMMAND_OF.get(document, document) for document in CALLS} == with_json
    assert set(explained()) - {""} == set(CALLS)


def test_files_that_cannot_be_fetched_are_errors_of_the_document(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("SEGCORE_CACHE", str(place / "empty"))
    monkeypatch.setenv("TORCH_HOME", str(place / "empty"))
    result = CliRunner().invoke(
        cli, ["fetch", "--model", "embedded", "--model", "lraspp_mobilenet_v3_large", "--offline", "--json"]
    )
    found = json.loads(result.stdout)
    assert result.exit_code == 2
    assert [file["name"] for file in found["files"]] == ["embedded"]
    assert Path(found["files"][0]["path"]).stat().st_size == found["files"][0]["size_bytes"]
    (error,) = found["errors"]
    assert error in result.stderr
