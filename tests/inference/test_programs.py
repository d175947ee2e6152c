from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segcore.core.errors import DeviceError, ModelError, ProgramError
from segcore.core.labels import LabelSet
from segcore.core.model_spec import MASK, PHOTO, ModelSpec, Source
from segcore.evaluation.backends import available_backends
from segcore.inference.devices import Device
from segcore.inference.programs import Program, ProgramSpec
from segcore.inference.runtimes import open_session
from segcore.inference.runtimes.program import ProgramModel, ProgramSession
from segcore.inputs.model_files import check_model_file

if os.name != "posix":
    pytest.skip("programs as models need process groups", allow_module_level=True)

PROGRAMS = Path(__file__).parents[1] / "support" / "programs"
PYTHON = (sys.executable, "-I", "-S", str(PROGRAMS / "segment.py"))

Make = Callable[..., Program]


def noise(seed: int = 0, height: int = 24, width: int = 31) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def truth(photo: np.ndarray) -> np.ndarray:
    return (photo[:, :, 0] > 127).astype(np.uint8)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Program] = []

    def program(*command: str, classes: int = 2, **fields: Any) -> Program:
        settings: dict[str, Any] = {"photos": "ppm", "directory": tmp_path, "timeout_s": 120.0}
        made.append(Program(ProgramSpec(command, **settings | fields), classes))
        return made[-1]

    yield program
    for each in made:
        each.close()
        assert not each._state.directory.exists()


def alive(word: str) -> list[int]:
    """Return the processes whose command line has a word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            running = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if running and word in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def c_program(directory: Path) -> tuple[str, ...]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc)")
    subprocess.run([compiler, "-O1", "-o", str(directory / "segment"), str(PROGRAMS / "segment.c")], check=True)
    return ("./segment",)


def node_program(_: Path) -> tuple[str, ...]:
    if shutil.which("node") is None:
        pytest.skip("there is no Node (node)")
    return ("node", str(PROGRAMS / "segment.js"))


LANGUAGES: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "python": lambda _: (*PYTHON, ""),
    "node": node_program,
    "c": c_program,
}
SERVERS: dict[str, tuple[str, ...]] = {"python": (*PYTHON, "serve", ""), "node": ("serve",), "c": ()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_programs_of_three_languages_are_run_for_each_photo(make: Make, tmp_path: Path, language: str) -> None:
    program = make(*LANGUAGES[language](tmp_path), PHOTO, MASK)
    for photo in (noise(1), noise(2, 5, 70)):
        answer = program.segment(photo)
        np.testing.assert_array_equal(answer.class_map, truth(photo))
        assert answer.class_map.dtype == np.uint8
        assert answer.own_seconds is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_programs_of_three_languages_serve(make: Make, tmp_path: Path, language: str) -> None:
    command = SERVERS[language] if language == "python" else (*LANGUAGES[language](tmp_path), *SERVERS[language])
    program = make(*command, serve=True)
    for seed in range(4):
        photo, start = noise(seed, 20 + seed, 30), time.monotonic()
        answer = program.segment(photo)
        seconds = time.monotonic() - start
        np.testing.assert_array_equal(answer.class_map, truth(photo))
        assert (answer.own_seconds is not None) == (language == "node")
        assert answer.own_seconds is None or 0 < answer.own_seconds < seconds
    assert not list(program._state.directory.iterdir())


ONCE = {
    "hang": ("took too long", 0.5),
    "closed-output": ("took too long", 0.5),
    "crash": ("exit code 3; it said: no such layer", 120),
    "crash-after": ("exit code 1", 120),
    "killed": ("was ended by SIGABRT", 120),
    "flood": ("more than 16 MiB", 120),
    "flood-errors": ("more than 16 MiB", 120),
    "no-mask": ("wrote no mask", 120),
    "not-a-png": ("not an image of PNG", 120),
    "empty": ("is empty", 120),
    "fifo": ("not a regular file", 120),
    "wrong-size": ("mask of 15x24 pixels for a photo of 31x24", 120),
    "unknown-id": ("unknown class ids 7, 255: the classes are 0 to 1", 120),
    "colour": ("mode RGB", 120),
    "leave-child": ("left a running process", 120),
    "leave-daemon": ("process in another session", 120),
}


@pytest.mark.parametrize("how", ONCE)
def test_what_a_program_does_wrong_is_an_error_of_its_photo(make: Make, tmp_path: Path, how: str) -> None:
    words, timeout_s = ONCE[how]
    started = time.monotonic()
    with pytest.raises(ProgramError, match=words):
        make(*PYTHON, how, PHOTO, MASK, timeout_s=timeout_s).segment(noise())
    assert time.monotonic() - started < 60
    if how == "leave-daemon":  # which nobody but its own session can end
        for process in alive(str(tmp_path)):
            os.kill(process, signal.SIGKILL)
    assert not alive(str(tmp_path))


SERVED = {
    "hang": ("took too long", 0.5),
    "half-line": ("took too long; half a line came, '.{8}'", 2),
    "half-line-crash": ("exit code 3 after half a line, '.{8}', without an answer", 120),
    "endless-line": ("a line of more than 65,536 bytes|more than 16 MiB", 120),
    "crash": ("exit code 3 without an answer; it said: no such layer", 120),
    "killed": ("was ended by SIGABRT", 120),
    "no-mask": ("exit code 0 without an answer", 120),
    "closed-output": ("closed its standard output", 2),
    "two-lines": ("more than one line", 120),
    "old": ("not written anew", 120),
    "again": ("not written anew", 120),
    "missing": ("No such file", 120),
    "chatter": ("answered 'done': wanted the path of a .png", 120),
    "empty-line": ("answered ''", 120),
    "too-many-ms": ("says it took 99999 ms", 120),
    "wrong-size": ("mask of 15x24", 120),
    "unknown-id": ("unknown class ids 7, 255", 120),
}


@pytest.mark.parametrize("how", SERVED)
def test_what_a_server_does_wrong_is_an_error_of_its_photo_and_the_next_starts_it_anew(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    words, timeout_s = SERVED[how]
    monkeypatch.setenv("KEPT_MASK", str(tmp_path / "kept.png"))
    program = make(*PYTHON, "serve", how, serve=True)
    first = noise(1)
    np.testing.assert_array_equal(program.segment(first).class_map, truth(first))
    if how == "again":
        program.segment(first)
    if how == "old":
        shutil.copy(PROGRAMS / "segment.py", tmp_path / "kept.png")
        os.utime(tmp_path / "kept.png", (1e9, 1e9))
    object.__setattr__(program.spec, "timeout_s", timeout_s)
    with pytest.raises(ProgramError, match=words):
        program.segment(noise(2))
    object.__setattr__(program.spec, "timeout_s", 120.0)
    third = noise(3)
    np.testing.assert_array_equal(program.segment(third).class_map, truth(third))


def test_lines_that_nobody_asked_for_do_not_answer_the_next_photo(make: Make, tmp_path: Path) -> None:
    code = f"""
        import sys
        sys.argv = ["segment.py", "serve", ""]
        sys.path.insert(0, {str(PROGRAMS)!r})
        print("model loaded", flush=True)
        import segment
        segment.serve("")
    """
    (tmp_path / "chatty.py").write_text(textwrap.dedent(code))
    program = make(sys.executable, "chatty.py", serve=True)
    with pytest.raises(ProgramError, match="answered 'model loaded'"):
        program.segment(noise())


def test_milliseconds_of_its_own_are_kept_and_carriage_returns_are_not(make: Make) -> None:
    assert make(*PYTHON, "serve", "own-time", serve=True).segment(noise()).own_seconds == 1e-5
    program = make(*PYTHON, "serve", "crlf", serve=True)
    for seed in range(2):
        np.testing.assert_array_equal(program.segment(noise(seed)).class_map, truth(noise(seed)))


def test_masks_of_16_bits_and_more_than_256_classes(make: Make) -> None:
    for classes, dtype in ((256, np.uint8), (257, np.uint16)):
        found = make(*PYTHON, "deep", PHOTO, MASK, classes=classes).segment(noise()).class_map
        np.testing.assert_array_equal(found, truth(noise()))
        assert found.dtype == dtype


def test_a_program_that_is_not_there(make: Make) -> None:
    with pytest.raises(ProgramError, match=r"^\./segment .*cannot be started in .*: No such file"):
        make("./segment", PHOTO, MASK).segment(noise())


def test_another_build_is_another_model(tmp_path: Path) -> None:
    spec = ProgramSpec(("./segment", "weights.bin", PHOTO, MASK), tmp_path)
    found = {spec.sha256()}
    for name, data in (("segment", "1"), ("weights.bin", "1"), ("segment", "2")):
        (tmp_path / name).write_text(data)
        found.add(spec.sha256())
    assert len(found) == 4


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="lists processes in /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_program_ends_with_us_however_we_end(tmp_path: Path, end: signal.Signals) -> None:
    stubborn = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("up", file=open("up", "w"), flush=True)
        time.sleep(600)
    """
    ours = f"""
        import numpy as np
        from pathlib import Path
        from segcore.inference.programs import Program, ProgramSpec
        spec = ProgramSpec(({sys.executable!r}, {str(tmp_path / "stubborn.py")!r}), Path({str(tmp_path)!r}), serve=True)
        Program(spec, 2).segment(np.zeros((2, 2, 3), np.uint8))
    """
    (tmp_path / "stubborn.py").write_text(textwrap.dedent(stubborn))
    (temporary := tmp_path / "tmp").mkdir()
    command, environment = [sys.executable, "-c", textwrap.dedent(ours)], {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "up").exists():
            assert process.poll() is None
            time.sleep(0.02)
        assert alive(str(tmp_path / "stubborn.py"))
        assert list(temporary.iterdir())
        process.send_signal(end)
        process.wait(60)
    until = time.monotonic() + 60
    while (alive(str(tmp_path / "stubborn.py")) or any(temporary.iterdir())) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(str(tmp_path / "stubborn.py"))
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        ('command: [a, "{photo}"]', ["wanted {mask} among the arguments, or `serve: true`"]),
        ("command: [a]", ["wanted {photo} and {mask} among the arguments"]),
        ('{command: [a, "{photo}"], serve: true}', ["omit {photo}"]),
        ("{onnx: a.onnx, serve: true, photos: ppm}", ["photos needs command", "serve needs command"]),
        ('{command: [a, "--in={photo}", "{mask}"], timeout: 0, photos: bmp}', ["photos", "timeout"]),
        ('{command: [a, "--in={photo}", "{mask}"], timeout: 2.5, photos: ppm}', []),
        ("{command: [a, b], serve: true}", []),
        ("{command: [a], serve: true}\ninput: {resize: {fixed: [8, 8]}, fill: [1, 2, 3]}", []),
        ("{command: [a], serve: true}\ninput: {layout: nhwc}\noutput: {kind: logits}", ["input.layout", "output.kind"]),
    ],
)
def test_model_files_of_programs(tmp_path: Path, source: str, problems: list[str]) -> None:
    file = tmp_path / "shipped.yaml"
    file.write_text(f"source: {source}\n" if source[0] == "{" else f"source:\n  {source}\n")
    spec, found = check_model_file(file)
    assert len(found) == len(problems)
    for problem, words in zip(sorted(found, key=lambda each: each.what), problems, strict=True):
        assert words in problem.what
        assert problem.line == (1 if source[0] == "{" and "put." not in words else 2 + words.startswith("output"))
    assert (spec is None) == bool(problems)
    if spec is not None:
        assert (spec.source.location, spec.source.kind) == ("a", "command")
        assert spec.source.serve == ("serve" in source)


def test_a_session_runs_photos_one_by_one_and_refuses_what_does_not_apply(tmp_path: Path) -> None:
    source = Source("command", PYTHON[0], (*PYTHON[1:], "serve", "own-time"), serve=True, photos="ppm")
    labels = LabelSet("two", ("dark", "bright"))
    model = ProgramModel(ModelSpec("shipped", source, labels, root=tmp_path))
    session = open_session("program", model, Device("cpu"))
    batch = torch.from_numpy(np.stack([noise(1), noise(2)])).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(session.forward(batch).numpy(), np.stack([truth(noise(1)), truth(noise(2))]))
    assert isinstance(session, ProgramSession)
    assert session.own_seconds == 2e-5
    assert session.options == {"start": "once", "photos": "ppm"}
    session.close()
    for runtime, device, precision, words in (
        ("onnxruntime", "cpu", "fp32", "it runs no command models, which run on program"),
        ("program", "cpu", "int8", "only fp32"),
        ("program", "cuda", "fp32", "--device cpu"),
    ):
        with pytest.raises(DeviceError, match=words):
            open_session(runtime, model, Device(device), precision)
    with pytest.raises(DeviceError, match="it runs command models only"):
        open_session("program", torch.nn.Identity(), Device("cpu"))
    assert "program" not in {runtime for runtime, _ in available_backends(Device("cpu"))}
    with pytest.raises(ModelError, match="add `labels:`"):
        ProgramModel(ModelSpec("shipped", source, root=tmp_path))
