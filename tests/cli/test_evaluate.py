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
from segcore.judgement.gate.comparable import item_differences
from segcore.results.store import load_run
from tests.support.pairs import make_cityscapes, make_coco, make_voc

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
    assert whole["results"][0]["images"] == 6
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
    assert [(entry["name"], entry["images"]) for entry in json.loads(result.output)["results"]] == [("coco-val", 1)]


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


def test_the_gate_compares_the_images(root: Path, tmp_path: Path) -> None:
    before = evaluated(root, tmp_path / "a.json")
    assert before.benchmarks[0].info.dataset
    assert len(before.benchmarks[0].info.dataset.counts) == 6
    assert judge([before], [before], Limits()).exit_code == 0


def against(root: Path, baseline: Path, out: Path, *arguments: object) -> Result:
    words = ("--dataset", "voc", "--root", root, *MODEL, "--out", out, "--against", baseline, "--worst", 0)
    return run(*words, *arguments)


@pytest.mark.slow
def test_against_a_run_stops_as_soon_as_it_is_decided(tmp_path: Path) -> None:
    make_voc(tmp_path / "voc", 80)
    evaluated(tmp_path / "voc", tmp_path / "a.json")
    result = against(tmp_path / "voc", tmp_path / "a.json", tmp_path / "b.json", "--json")
    assert result.exit_code == 0, result.output
    gate = json.loads(result.stdout)
    assert (gate["verdict"], gate["baseline"], gate["current"]) == ("pass", "a", "b")
    assert gate["notes"] == ["decided after 20 of 80 images, the others were not scored"]
    found = load_run(tmp_path / "b.json").benchmarks[0].info.dataset
    assert found is not None
    assert (found.images, len(found.counts)) == (20, 20)
    assert against(tmp_path / "voc", tmp_path / "a.json", tmp_path / "b.json", "--resume").exit_code == 0
    assert judge([load_run(tmp_path / "a.json")], [load_run(tmp_path / "b.json")], Limits()).exit_code == 3


@pytest.mark.slow
def test_against_a_run_of_another_model_is_judged_by_limits(tmp_path: Path) -> None:
    make_voc(tmp_path / "voc", 40)
    evaluated(tmp_path / "voc", tmp_path / "a.json")
    other = ("--size", 48, "--max-iou-drop", 1, "--max-miou-drop", 1)
    assert against(tmp_path / "voc", tmp_path / "a.json", tmp_path / "b.json", *other).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "a.json"), "this is the baseline, which would be replaced"),
        (("--against", "nothing"), "no such file"),
        (("--protocol", "per-image"), "no scores of voc-val under per-image"),
        (("--limit", 6), "1 of 6 images are not in it: 2007_000005"),
    ],
)
def test_a_baseline_that_cannot_be_compared_is_refused_at_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluated(root, tmp_path / "a.json", "--limit", "5")
    result = against(root, tmp_path / "a.json", tmp_path / "b.json", *arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr


def test_limits_without_a_baseline_are_refused(root: Path) -> None:
    assert "add --against RUN" in run("--dataset", "voc", "--root", root, *MODEL, "--max-miou-drop", 0.1).stderr


@pytest.mark.parametrize("other", [("--protocol", "per-image"), ("--limit", "3")])
def test_figures_of_another_protocol_or_other_images_are_not_compared(
    root: Path, tmp_path: Path, other: tuple[str, ...]
) -> None:
    before, after = evaluated(root, tmp_path / "a.json"), evaluated(root, tmp_path / "b.json", *other)
    result = judge([before], [after], Limits())
    assert result.exit_code != 0
    assert {row.verdict for row in result.rows} <= {"missing", "incomparable"}


def test_a_dataset_with_other_classes_needs_a_map_and_the_run_file_holds_it(tmp_path: Path) -> None:
    make_cityscapes(tmp_path / "streets")
    arguments = ("--dataset", "cityscapes", "--root", tmp_path / "streets", *MODEL, "--out", tmp_path / "a.json")
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "--map FILE" in refused.stderr
    street = tmp_path / "street.yaml"
    street.write_text("{classes: {rider: persn}, by_name: true, others: background}")
    broken = run(*arguments, "--map", street)
    assert broken.exit_code == 2
    assert f"{street}:1:19: classes.rider: the model's unknown class 'persn'" in broken.stderr
    street.write_text("{classes: {rider: person}, by_name: true, others: background}")
    assert run(*arguments, "--map", street).exit_code == 0
    found = load_run(tmp_path / "a.json").benchmarks[0].info.dataset
    assert found is not None
    assert found.label_map["rider"] == "person"
    assert found.label_map["motorcycle"] == "motorbike"
    assert found.label_map["sky"] == "background"
    street.write_text("{classes: {rider: background}, by_name: true, others: background}")
    against = run(*arguments[:-1], tmp_path / "b.json", "--map", street, "--against", tmp_path / "a.json")
    assert against.exit_code == 2
    assert "another --map" in against.stderr
    other = found.model_copy(update={"label_map": found.label_map | {"rider": "background"}})
    before = load_run(tmp_path / "a.json").benchmarks[0].info
    after = before.model_copy(update={"dataset": other})
    assert item_differences(before, after, speed=False) == ("rider was person, is background",)
