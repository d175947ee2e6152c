from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from segcore.cli import cli
from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.judgement.gate import judge
from segcore.results.store import load_run
from tests.support.pairs import make_coco, make_voc

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = ("--model", "lraspp_mobilenet_v3_large", "--weights", "random", "--size", "64", "--device", "cpu")


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_voc(tmp_path / "voc", 6)
    return tmp_path / "voc"


def test_writes_a_run_file_a_journal_and_pictures(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "here.json"
    both = ("--protocol", "voc-original", "--protocol", "per-image")
    result = run("--dataset", "voc", "--root", root, *MODEL, *both, "--worst", 2, "--out", out)
    assert result.exit_code == 0, result.output
    for wanted in ("voc-original", "per-image", "boundary", "weights are random", "6 images"):
        assert wanted in result.output
    assert "published" not in result.output
    found = load_run(out)
    assert [benchmark.info.case for benchmark in found.benchmarks] == ["voc-val.voc-original", "voc-val.per-image"]
    info = found.benchmarks[0].info
    assert info.dataset is not None
    assert info.accuracy is not None
    assert info.accuracy.miou == info.dataset.scores["miou"]
    assert info.accuracy.iou is not None
    assert len(info.dataset.worst) == 2
    for record in info.dataset.worst:
        with (
            Image.open(out.parent / str(record.picture)) as picture,
            Image.open(root / "JPEGImages" / f"{record.name}.jpg") as photo,
        ):
            assert picture.size == (3 * photo.width + 16, photo.height)
    assert len((tmp_path / "runs" / "here.journal.jsonl").read_text().splitlines()) == 7


@pytest.mark.slow
def test_resume_and_json(root: Path, tmp_path: Path) -> None:
    arguments = ("--dataset", "voc", "--root", root, *MODEL, "--out", tmp_path / "a.json")
    whole = json.loads(run(*arguments, "--json").output)
    result = run(*arguments, "--resume", "--json")
    assert json.loads(result.output) == whole
    assert whole[0]["images"] == 6
    assert "6 of the images" in run(*arguments, "--resume").output


def test_a_corrupt_pair_is_named_at_the_end_and_the_exit_code_says_so(root: Path, tmp_path: Path) -> None:
    (root / "JPEGImages" / "2007_000003.jpg").write_bytes(b"not a photo")
    out = tmp_path / "a.json"
    result = run("--dataset", "voc", "--root", root, *MODEL, "--out", out)
    assert result.exit_code == 2
    assert "2007_000003.jpg" in result.stderr.splitlines()[-2]
    assert result.stderr.splitlines()[-1] == "segcore: 1 of 6 images could not be scored"
    assert "5 images" in result.stdout
    outcomes = load_run(out).record.outcomes
    assert [(outcome.item, outcome.outcome) for outcome in outcomes if outcome.outcome != "passed"] == [
        ("voc-val: 2007_000003", "error")
    ]


def test_nothing_that_can_be_scored_is_no_result(root: Path, tmp_path: Path) -> None:
    for photo in (root / "JPEGImages").iterdir():
        photo.write_bytes(b"")
    result = run("--dataset", "voc", "--root", root, *MODEL, "--out", tmp_path / "a.json")
    assert result.exit_code == 2
    assert "none of 6 images could be scored; the first: " in result.stderr
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("name", ["a.json", "a.journal.jsonl"])
def test_a_name_that_is_taken_is_one_line(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    result = run("--dataset", "voc", "--root", root, *MODEL, "--out", tmp_path / "a.json")
    assert result.exit_code == 2
    assert name in result.stderr
    assert "Traceback" not in result.output


def test_pictures_that_cannot_be_written_do_not_cost_the_figures(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.worst").touch()
    result = run("--dataset", "voc", "--root", root, *MODEL, "--worst", 2, "--out", tmp_path / "a.json")
    assert result.exit_code == 2
    assert "6 images" in result.stdout
    assert [line.count("a.worst") for line in result.stderr.splitlines()] == [1, 1]
    dataset = load_run(tmp_path / "a.json").benchmarks[0].info.dataset
    assert dataset is not None
    assert [record.picture for record in dataset.worst] == [None, None]
    assert run("--dataset", "voc", "--root", root, *MODEL, "--worst", 0, "--out", tmp_path / "a.json").exit_code == 0


def test_names_near_the_limit_of_the_file_system(root: Path, tmp_path: Path) -> None:
    name = "é" * 125
    for directory, ending in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        (root / directory / f"2007_000000{ending}").rename(root / directory / f"{name}{ending}")
    (root / "ImageSets/Segmentation/val.txt").write_text(f"{name}\n", encoding="utf-8")
    result = run("--dataset", "voc", "--root", root, *MODEL, "--out", tmp_path / "a.json")
    assert result.exit_code == 0, result.output
    (picture,) = (tmp_path / "a.worst").iterdir()
    assert name.startswith(picture.stem.removeprefix("01-"))


def test_names_that_cannot_be_printed(tmp_path: Path) -> None:
    names = [b"caf\xe9", b"two\nlines", b"\x1b[31mred", "\u202egpj".encode(), b"::error::a", b"a:b*c?", b" b "]
    for directory, kind, mode, ending in (("images", "JPEG", "RGB", ".jpg"), ("masks", "PNG", "L", ".png")):
        (tmp_path / directory).mkdir()
        for name in names:
            Image.new(mode, (60, 40)).save(tmp_path / directory / os.fsdecode(name + ending.encode()), kind)
    (tmp_path / "images" / os.fsdecode(names[0] + b".jpg")).write_bytes(b"")
    result = run("--dataset", "folder", "--root", tmp_path, *MODEL, "--out", tmp_path / "a.json")
    assert result.exit_code == 2
    assert [line.rpartition(": ")[2] for line in result.stderr.splitlines()[:1]] == ["is empty (0 bytes)"]
    dataset = load_run(tmp_path / "a.json").benchmarks[0].info.dataset
    assert dataset is not None
    assert dataset.images == len(list((tmp_path / "a.worst").iterdir())) == len(names) - 1
    assert all((tmp_path / str(record.picture)).is_file() for record in dataset.worst)


def test_a_device_is_written_through_and_has_nothing_beside_it(root: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor() as pool:
        received = pool.submit(fifo.read_bytes)
        assert run("--dataset", "voc", "--root", root, *MODEL, "--limit", 1, "--out", fifo).exit_code == 0
    assert json.loads(received.result())["segcore"]["complete"] is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "voc"]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # of pycocotools
def test_coco_and_limit(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="COCO is an extra: pip install segcore[coco]")
    make_coco(tmp_path)
    result = run("--dataset", "coco", "--root", tmp_path, *MODEL, "--limit", 1, "--out", tmp_path / "a.json", "--json")
    assert [(entry["name"], entry["images"]) for entry in json.loads(result.output)] == [("coco-val", 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "vok"), "unknown dataset 'vok'"),
        (("--dataset", "voc", "--split", "test"), "splits there are: val"),
        (("--dataset", "voc", "--protocol", "torchvision-references"), "defined at size 520, not 64"),
        (("--dataset", "voc", "--runtime", "abacus"), "unknown runtime 'abacus'"),
    ],
)
def test_bad_options_are_one_line(root: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("--root", root, *MODEL, "--out", tmp_path / "a.json", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


# Through the gate


def evaluated(root: Path, out: Path, *arguments: str) -> Run:
    assert run("--dataset", "voc", "--root", root, *MODEL, "--out", out, *arguments).exit_code == 0
    return load_run(out)


def test_the_gate_judges_miou_and_classes(root: Path, tmp_path: Path) -> None:
    before = evaluated(root, tmp_path / "a.json")
    assert judge([before], [before], Limits()).exit_code == 0
    benchmark = before.benchmarks[0]
    accuracy = benchmark.info.accuracy
    assert accuracy is not None
    assert accuracy.miou is not None
    worse = accuracy.model_copy(update={"miou": accuracy.miou - 0.03})
    info = benchmark.info.model_copy(update={"accuracy": worse})
    after = before.model_copy(update={"benchmarks": (benchmark.model_copy(update={"info": info}),)})
    assert judge([before], [after], Limits(max_miou_drop=0.02)).exit_code == 1
    assert judge([before], [after], Limits(max_miou_drop=0.04)).exit_code == 0


@pytest.mark.parametrize("other", [("--protocol", "per-image"), ("--limit", "3")])
def test_figures_of_another_protocol_or_other_images_are_not_compared(
    root: Path, tmp_path: Path, other: tuple[str, ...]
) -> None:
    before, after = evaluated(root, tmp_path / "a.json"), evaluated(root, tmp_path / "b.json", *other)
    result = judge([before], [after], Limits())
    assert result.exit_code != 0
    assert {row.verdict for row in result.rows} <= {"missing", "incomparable"}
