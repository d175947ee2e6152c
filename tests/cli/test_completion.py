"""What shells complete, asked as they ask: through click's protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from segcore.cli import COMMANDS, cli, completion
from segcore.inputs.cases import load_cases
from segcore.inputs.model_files import open_model_files

ROOT = Path(__file__).parents[2]
SCRIPT = (
    "import sys; from segcore.cli import main\n"
    "try: main()\n"
    "finally: print('HEAVY', sorted({'torch', 'torchvision', 'numpy', 'PIL', 'rich', 'scipy'} & set(sys.modules)))"
)


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a model file, two cases, and three runs, one of which is another machine's."""
    monkeypatch.chdir(tmp_path)
    for file, text in {
        "models/a.yaml": "source: {onnx: a.onnx}\nname: roadnet\n",
        "models/deep/river.yml": "source: {onnx: a.onnx}\nlabels: {names: [a, b]}\n",
        "cases/first.yaml": "- name: 'one'\n  image: {path: a.png}\n- image: {path: a.png}\n  # name: none\n",
        "cases/second.yaml": "name: two # words\nimage: {path: a.png}\n",
        "reports/runs/Linux/0001_main.json": "{}",
        "reports/runs/Linux/0002_main.json": "{}",
        "reports/runs/Linux/unsaved.json": "{}",
        "reports/runs/machines/laptop/0007_main.json": "{}",
        "elsewhere/0001_old.json": "{}",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def completed(line: str) -> tuple[set[str], bool]:
    """Return the words that complete the last one of a line, and whether files may, too."""
    *words, incomplete = line.split(" ")
    items = ShellComplete(cli, {}, "segcore", "_SEGCORE_COMPLETE").get_completions(words, incomplete)
    return {item.value for item in items if item.type == "plain"}, any(item.type == "file" for item in items)


RUNS = {"latest", "main", "laptop/main"}


@pytest.mark.parametrize(
    ("line", "words", "files"),
    [
        ("", set(COMMANDS), False),
        ("ga", {"gate"}, False),
        ("segment --model ro", {"roadnet"}, True),
        ("segment --model riv", {"river"}, True),
        ("segment --model fcn", {"fcn_resnet101", "fcn_resnet50"}, True),
        ("segment --models nowhere --model r", set(), True),
        ("evaluate --model roa", {"roadnet"}, True),
        ("best --model emb", {"embedded"}, True),
        ("fetch --model emb", {"embedded"}, False),
        ("segment --device cp", {"cpu"}, False),
        ("runtimes --device a", {"auto"}, False),
        ("gate ", RUNS, True),
        ("gate main la", {"latest", "laptop/main"}, True),
        ("gate --storage elsewhere ", {"latest", "old"}, True),
        ("report main --baseline l", {"latest", "laptop/main"}, True),
        ("compare main ", RUNS, True),
        ("evaluate --against lap", {"laptop/main"}, True),
        ("history ", {"main", "laptop/main", "one", "two"}, False),
    ],
)
def test_names_are_completed(line: str, words: set[str], files: bool) -> None:
    assert completed(line) == (words, files)


def test_every_option_for_a_model_device_or_run_is_completed() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            wanted = {"--model", "--device"} & set(parameter.opts) and parameter.name not in ("models", "devices")
            if wanted or parameter.metavar in ("RUN", "RUN..."):
                assert parameter._custom_shell_complete is not None, f"{name} {parameter.opts}"


def test_devices_are_told_from_the_files_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = click.Context(cli)
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "platform", "linux")
    assert completion.devices(context, tmp_path) == ["auto", "cpu", "cuda", "cuda:0", "cuda:2", "cuda:10"]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert completion.devices(context, tmp_path / "none") == ["auto", "cpu", "mps"]


@pytest.mark.parametrize(("kind", "directory"), [("cases", ROOT / "cases"), ("models", ROOT / "examples" / "models")])
def test_names_are_those_that_reading_the_files_gives(
    kind: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not directory.is_dir():
        pytest.skip(f"there is no {directory}")
    if kind == "cases":
        expected = {case.name for case in load_cases(directory)}
        shutil.rmtree(tmp_path / "cases")
        shutil.copytree(directory, tmp_path / "cases")
        found = completed("history ")[0] - RUNS
    else:
        expected = set(open_model_files(directory).names)
        built_in = completed("fetch --models nowhere --model ")[0]
        found = completed(f"fetch --models {directory} --model ")[0] - built_in
    assert found == expected


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), **more}


@pytest.mark.parametrize("line", ["segcore ", "segcore segment --model ", "segcore gate ", "segcore history "])
def test_completion_loads_neither_torch_nor_numpy(line: str) -> None:
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_SEGCORE_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'segcore'\n{SCRIPT}"],
        env=environment(**asked),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("HEAVY []\n")
    assert done.stdout.count("\n") > 2
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_every_shell_asks_segcore(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'segcore'\n{SCRIPT}"],
        env=environment(_SEGCORE_COMPLETE=f"{shell}_source"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_SEGCORE_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_a_model(tmp_path: Path) -> None:
    segcore = tmp_path / "bin" / "segcore"
    segcore.parent.mkdir()
    segcore.write_text(f"#!{sys.executable}\nfrom segcore.cli import main\nmain()\n")
    segcore.chmod(0o755)
    script = (
        'eval "$(_SEGCORE_COMPLETE=bash_source segcore)"; COMP_WORDS=(segcore segment --model road); COMP_CWORD=3; '
        '_segcore_completion segcore road --model; echo "${COMPREPLY[@]}"'
    )
    path = f"{segcore.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=environment(PATH=path), capture_output=True, text=True, check=True
    )
    assert done.stdout == "roadnet\n"
