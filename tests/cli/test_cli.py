from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from segcore import __version__
from segcore.cli import COMMANDS, cli
from segcore.core.files import sha256_file
from segcore.core.image_files import load_indexed_png
from segcore.core.labels import NUM_CLASSES, VOC_PALETTE
from segcore.inference.pipeline import Segmenter
from segcore.inputs.images import resource_path
from tests.support.http_server import MisbehavingServer, Reply

FAST = ["--model", "lraspp_mobilenet_v3_large", "--weights", "random", "--size", "64", "--device", "cpu"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def widest_line_in_a_terminal(*arguments: object) -> int:
    """Return the width of what is printed to a terminal of 80 columns."""
    runner = CliRunner(env={"COLUMNS": "80", "FORCE_COLOR": "1"})
    printed = click.unstyle(runner.invoke(cli, [str(argument) for argument in arguments], color=True).stdout)
    return max(map(len, printed.splitlines()))


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    """Looks at what was imported, not at the clock."""
    script = (
        "import sys; from segcore.cli import cli; cli(['--help'], standalone_mode=False);"
        "heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'pydantic', 'rich', 'requests', 'scipy', 'pytest'};"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_importing_segcore_loads_nothing_heavy() -> None:
    script = "import sys, segcore; print(sorted({'torch', 'numpy', 'PIL', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_matches_its_place_in_the_list(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert f"Usage: cli {name}" in result.output


@pytest.mark.parametrize(
    ("error", "code", "traceback"),
    [
        ("ZeroDivisionError('x')", 70, True),
        ("RecursionError('x')", 70, True),
        ("OSError(28, 'No space left on device', 'out.png')", 74, False),
        ("BrokenPipeError(32, 'Broken pipe')", 74, False),
        ("KeyboardInterrupt()", 130, False),
    ],
)
def test_a_failure_never_exits_with_the_code_of_a_verdict(error: str, code: int, traceback: bool) -> None:
    script = (
        "import segcore.cli, sys\n"
        f"def fail(*_): raise {error}\n"
        "segcore.cli.cli.get_command = fail\n"
        "sys.argv = ['segcore', 'gate', 'a', 'b']\n"
        "segcore.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("Traceback" in done.stderr) == traceback


def test_a_reader_that_is_gone_is_no_regression() -> None:
    command = f"{sys.executable} -m segcore gate --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.returncode in (0, 2)


def test_version() -> None:
    assert __version__ in run("--version").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmant", "x.jpg"], "did you mean 'segment'"),
        (["segment"], "Missing argument 'PHOTOS...'"),
        (["segment", "x.jpg", "--size", "0"], "0 is not in the range"),
        (["segment", "x.jpg", "--model", "fcn_resnet11"], "did you mean 'fcn_resnet101'"),
        (["segment", "x.jpg", "--device", "tpu", *FAST[:4]], "unknown device tpu"),
        (
            ["segment", "x.jpg", "--weights", "no.pth", "--model", "lraspp_mobilenet_v3_large"],
            "no checkpoint at no.pth",
        ),
        (["segment", "x.jpg", "--calibration", "photos", *FAST], "(photos) are for precision int8 alone, found fp32"),
        (
            ["segment", "x.jpg", "--calibration", "photos", "--precision", "int8", *FAST],
            "photos: there is no such file",
        ),
        (["segment", "--profile", "x.jpg", "y.jpg", *FAST], "--profile x.jpg"),
        (["best", "--calibration", "*.nothing", "--device", "cpu"], "*.nothing: there is no such file"),
        (["fetch"], "nothing to fetch"),
        (["fetch", "--model", "resnet"], "unknown model 'resnet'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_segment_writes_an_indexed_mask_and_an_overlay(tmp_path: Path) -> None:
    photo = resource_path("skimage:chelsea.png")
    result = run("segment", photo, "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 0, result.output
    assert "chelsea.png" in result.stdout
    assert "weights are random" in result.stdout
    with Image.open(tmp_path / "out" / "chelsea.mask.png") as mask, Image.open(photo) as original:
        assert mask.mode == "P"
        assert mask.size == original.size
        palette = mask.getpalette()
        assert palette is not None
        assert palette[: 3 * NUM_CLASSES] == VOC_PALETTE.ravel().tolist()
    assert load_indexed_png(tmp_path / "out" / "chelsea.mask.png").max() < NUM_CLASSES
    with Image.open(tmp_path / "out" / "chelsea.overlay.png") as overlay:
        assert overlay.width == 451
        assert overlay.height > 300  # the legend is below


def test_one_unreadable_photo_does_not_stop_the_others(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.jpg"
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(good)
    bad.write_text("this is no photo")
    result = run("segment", bad, good, tmp_path / "missing.jpg", "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 2
    assert (tmp_path / "out" / "good.mask.png").is_file()
    assert result.stderr.count("\n") == 2
    assert "bad.jpg" in result.stderr
    assert "missing.jpg" in result.stderr
    assert "1 of 3 photos" in result.stdout


@pytest.mark.slow
def test_segment_profiles_the_first_photo(tmp_path: Path) -> None:
    photo = resource_path("skimage:chelsea.png")
    result = run("segment", photo, "--out", tmp_path, *FAST, "--profile")
    assert result.exit_code == 0, result.output
    for wanted in ("forward", "aten::mkldnn_convolution", "chelsea.trace.json"):
        assert wanted in result.stdout.replace("\n", "")
    assert {event["name"] for event in json.loads((tmp_path / "chelsea.trace.json").read_text())["traceEvents"]} >= {
        "decode",
        "colorize",
        "aten::conv2d",
    }
    trace = tmp_path / "own.json"
    spoken = json.loads(run("segment", photo, "--out", tmp_path, *FAST, "--profile", trace, "--json").stdout)["profile"]
    assert spoken["trace"] == str(trace)
    assert trace.is_file()
    assert spoken["stage_ms"]["forward"] > 0
    assert spoken["operators"][0].keys() == {"operator", "kind", "calls", "total_ms", "share"}


def test_photos_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder, value in (("a", 0), ("b", 255)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(tmp_path / folder / "x.png")
    run("segment", tmp_path / "a/x.png", tmp_path / "b/x.png", "--out", tmp_path / "out", "--no-overlay", *FAST)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x-2.mask.png", "x.mask.png"]


def test_directories_and_patterns_stand_for_their_photos(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("b.png", "a.png", "deep/c.jpg", "notes.txt", ".hidden.png"):
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(path, "PNG")
    (tmp_path / "none").mkdir()
    where = [
        photos,
        f"{photos}/**/*.jpg",
        f"{photos}/a.png",
        "skimage:chelsea.png",
        tmp_path / "none",
        f"{photos}/*.tif",
    ]
    result = run("segment", *where, "--json", "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 2
    found = json.loads(result.stdout)["photos"]
    names = ["a.png", "b.png", "c.jpg", "chelsea.png", "none", "*.tif"]
    assert [Path(photo["photo"]).name for photo in found] == names
    assert [bool(photo["error"]) for photo in found] == [False] * 4 + [True] * 2
    assert "none: no photo in it" in found[4]["error"]
    assert not any(photo["includes_warm_up"] for photo in found)


def test_the_time_of_a_first_call_is_taken_of_no_photo_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Path] = []
    call = Segmenter.__call__

    def noted(self: Segmenter, photo: Path) -> object:
        called.append(photo)
        return call(self, photo)

    monkeypatch.setattr(Segmenter, "__call__", noted)
    one, two = (resource_path(f"skimage:{name}.png") for name in ("chelsea", "coffee"))
    both = run("segment", one, two, "--out", tmp_path, *FAST)
    assert called == [one, one, two]
    assert "warm-up" not in both.stdout
    files = "files: chelsea.mask.png, chelsea.overlay.png, coffee.mask.png, coffee.overlay.png"
    assert files in " ".join(both.stdout.split())  # folded to the width of the terminal
    called.clear()
    single = run("segment", one, "--out", tmp_path, *FAST)
    assert called == [one]
    assert "warm-up" in single.stdout


@pytest.mark.parametrize("stem", ["x" * 251, "é" * 125, "caf\udce9"])
def test_photos_of_any_name_are_segmented(tmp_path: Path, stem: str) -> None:
    photo = tmp_path / f"{stem}.png"
    with photo.open("wb") as file:
        Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(file, "PNG")
    result = run("segment", photo, "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert run("segment", f"{'x' * 300}.png", *FAST).exit_code == 2


def test_segment_speaks_json(tmp_path: Path) -> None:
    photo = resource_path("skimage:chelsea.png")
    result = run("segment", photo, tmp_path / "none.png", "--json", "--out", tmp_path, *FAST)
    assert result.exit_code == 2
    spoken = json.loads(result.stdout)
    assert spoken["weights"]["kind"] == "random"
    first, second = spoken["photos"]
    assert sum(first["fractions"].values()) == pytest.approx(1)
    assert Path(first["mask"]).is_file()
    assert first["error"] is None
    assert "none.png" in second["error"]


def test_devices_lists_all_three_kinds() -> None:
    result = run("devices")
    assert all(name in result.stdout for name in ("cuda", "mps", "cpu", "auto is"))
    assert "energy of cpu: " in result.stdout
    spoken = json.loads(run("devices", "--json").stdout)
    cpu = next(info for info in spoken["devices"] if info["name"] == "cpu")
    assert bool(cpu["energy_counter"]) != bool(cpu["why_no_energy"])
    assert [info["name"] for info in spoken["devices"] if info["available"]]


def test_models_says_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGCORE_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    rows = {row["model"]: row for row in json.loads(run("models", "--json", "--offline").stdout)["models"]}
    assert rows["embedded"]["path"]
    assert rows["fcn_resnet101"]["path"] is None
    assert rows["fcn_resnet101"]["gmacs"] == pytest.approx(222.747, abs=1e-3)
    table = run("models").stdout
    assert "segcore fetch --model NAME" in table
    assert widest_line_in_a_terminal("models") <= 80


def test_fetch_without_a_network_names_each_thing_it_could_not_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCORE_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    result = run("fetch", "--offline", "--model", "fcn_resnet101", "--model", "fcn_resnet50", "--model", "embedded")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
    assert "fcn_resnet101" in result.stderr
    assert result.stdout.startswith("embedded: ")


def test_fetch_fills_the_cache_from_a_mirror_and_then_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: MisbehavingServer
) -> None:
    photo = resource_path("skimage:chelsea.png")
    server.reply("/cat.png", Reply(photo.read_bytes()))
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "cat.yaml").write_text(
        f"name: cat\nimage: {{url: 'https://photos.example/cat.png', sha256: {sha256_file(photo)}}}\n"
        "expect: {dominant: cat}\n"
    )
    monkeypatch.setenv("SEGCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGCORE_MIRRORS", f"https://photos.example/={server.url('/')}")
    for arguments in ([], ["--offline"]):
        result = run("fetch", "--cases", tmp_path / "cases", *arguments)
        assert result.exit_code == 0, result.output
        assert Path(result.stdout.removeprefix("cat: ").strip()).read_bytes() == photo.read_bytes()
    assert len(server.headers_of("/cat.png")) == 1


SHIPPED = Path(__file__).parents[2] / "cases"
REFERENCE_PHOTOS = SHIPPED.parent.parent / "shared" / "reference-images"


@pytest.mark.skipif(not REFERENCE_PHOTOS.is_dir(), reason="the reference photos are not beside the checkout")
def test_every_shipped_photo_arrives_through_a_mirror_with_its_pinned_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: MisbehavingServer
) -> None:
    mirrors = []
    for entry in json.loads((REFERENCE_PHOTOS / "manifest.json").read_text()):
        server.reply(f"/{entry['file']}", Reply((REFERENCE_PHOTOS / entry["file"]).read_bytes()))
        mirrors.append(f"{entry['url']}={server.url('/' + entry['file'])}")
    monkeypatch.setenv("SEGCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGCORE_MIRRORS", "\n".join(mirrors))
    result = run("fetch", "--cases", SHIPPED)
    assert result.exit_code == 0, result.output
    assert len(server.asked) == len(mirrors) == 7
    assert "fcn-demo mask: " in result.stdout


def test_cases_lists_what_is_shipped() -> None:
    result = run("cases", SHIPPED)
    assert result.exit_code == 0
    for name in ("astronaut", "camera", "chelsea", "motorcycle", "fcn-demo", "hub-samoyed"):
        assert f"\n{name} " in result.stdout
    assert widest_line_in_a_terminal("cases", SHIPPED) <= 80
    assert run("cases", SHIPPED, "--check").stdout.startswith("10 cases")
    spoken = json.loads(run("cases", SHIPPED, "--json").stdout)
    assert spoken["problems"] == []
    assert len(spoken["cases"]) == 10


def test_cases_reports_every_problem_with_its_place(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: one\nimage: {resource: 'skimage:chelsea.png'}\nexpcet: {}\nsizes: [0]\n")
    result = run("cases", tmp_path, "--check")
    assert result.exit_code == 2
    assert f"{bad}:3:1: " in result.stderr
    assert "expect" in result.stderr
    assert f"{bad}:4:" in result.stderr
    spoken = json.loads(run("cases", tmp_path, "--json").stdout)
    assert {problem["line"] for problem in spoken["problems"]} == {3, 4}


def segcore(*arguments: object, stdout: int | IO[bytes] = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, because it is about that process's standard output."""
    words = [sys.executable, "-m", "segcore", *map(str, arguments)]
    return subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["cases", str(SHIPPED)], ["cases", str(SHIPPED), "--json"]])
def test_standard_output_that_cannot_be_written_is_one_line_and_exit_code_2(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        on_full_disk = segcore(*arguments, stdout=full)
    reading, writing = os.pipe()
    os.close(reading)
    into_closed_pipe = segcore(*arguments, stdout=writing)
    os.close(writing)
    for done, reason in ((on_full_disk, "No space left on device"), (into_closed_pipe, "Broken pipe")):
        assert done.returncode == 2
        assert done.stderr == f"segcore: standard output cannot be written: {reason}\n"


def test_a_directory_that_cannot_be_made_is_one_line() -> None:
    """Under ``/proc`` not even root can write."""
    result = run("segment", resource_path("skimage:chelsea.png"), "--out", "/proc/nowhere", *FAST)
    assert result.exit_code == 2
    assert "/proc/nowhere/chelsea.mask.png: cannot be written" in result.stderr


def test_a_mask_that_cannot_be_written_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "out" / "chelsea.mask.png").mkdir(parents=True)
    photos = [resource_path(f"skimage:{name}.png") for name in ("chelsea", "coffee")]
    result = run("segment", *photos, "--json", "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    first, second = json.loads(result.stdout)["photos"]
    assert (first["mask"], bool(first["fractions"]), bool(first["error"])) == (None, True, True)
    assert Path(second["mask"]).is_file()
    assert Path(second["overlay"]).is_file()


def test_a_mask_is_listed_though_its_overlay_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out" / "chelsea.overlay.png").mkdir(parents=True)
    result = run("segment", resource_path("skimage:chelsea.png"), "--json", "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 2
    (photo,) = json.loads(result.stdout)["photos"]
    assert Path(photo["mask"]).is_file()
    assert (photo["overlay"], bool(photo["error"])) == (None, True)


@pytest.mark.parametrize(("limit", "lines"), [(1 << 22, 0), (64 * 64, 1)])
def test_a_photo_that_takes_long_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, lines: int
) -> None:
    monkeypatch.setattr("segcore.inference.preprocess.LARGE_PIXELS", limit)
    result = run("segment", resource_path("skimage:chelsea.png"), "--out", tmp_path, *FAST)
    assert result.exit_code == 0
    assert result.stderr.count("\n") == lines
    assert ("96x64" in result.stderr) == bool(lines)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "out of memory; "),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "OMP_NUM_THREADS"),
    ],
    ids=repr,
)
def test_what_the_system_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, text: str) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("segcore.inference.devices.find_devices", fail)
    result = run("devices")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


@pytest.mark.parametrize("taken", ["out", "out/chelsea.mask.png/", "out/chelsea.overlay.png/"])
def test_a_name_that_is_taken_is_one_line(tmp_path: Path, taken: str) -> None:
    path = tmp_path / taken
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if taken.endswith("/") else path.touch()
    result = run("segment", resource_path("skimage:chelsea.png"), "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 2
    assert str(path) in result.stderr
    assert "Traceback" not in result.output


def test_the_schema_is_json() -> None:
    assert json.loads(run("cases", "--schema").stdout)["$schema"].startswith("https://json-schema.org/")
