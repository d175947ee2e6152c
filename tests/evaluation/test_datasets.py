from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF  # its usual name

from segcore.core.errors import OutputError, RecordError, SegcoreError, UsageError
from segcore.core.labels import VOC, ClassMap, LabelSet, numbered
from segcore.core.records import DatasetRecord
from segcore.core.scores import MEANS, class_scores, score_names
from segcore.evaluation.datasets import Evaluation, ScoringOptions, evaluate, published_figures
from segcore.evaluation.metrics import boundary_counts, class_totals, confusion_matrix
from segcore.evaluation.protocols import PROTOCOLS, choose
from segcore.evaluation.scoring import ImageScore, ScoringTask, score_chunks, score_pair, split_counts
from segcore.evaluation.tally import REPLICATES, Tally
from segcore.inference.pipeline import Segmenter
from segcore.inputs.datasets import Dataset, open_dataset
from segcore.inputs.datasets.pairs import FileReader
from tests.support.figures import mean_iou, scores
from tests.support.networks import TinyNet
from tests.support.pairs import PaletteNet, make_mask, make_voc, save_mask

BOTH = ("voc-original", "per-image")


def tiny(size: int = 32) -> Segmenter:
    return Segmenter(TinyNet(), device="cpu", size=size)


@pytest.fixture
def voc(tmp_path: Path) -> Dataset:
    make_voc(tmp_path / "voc", 10)
    return open_dataset("voc", tmp_path / "voc")


def photo_of(dataset: Dataset, name: str) -> Path:
    assert isinstance(dataset.reader, FileReader)
    return dataset.reader.photos / f"{name}.jpg"


def mask_of(dataset: Dataset, name: str) -> Path:
    return photo_of(dataset, name).parents[1] / "SegmentationClass" / f"{name}.png"


def same_figures(one: Evaluation, other: Evaluation) -> None:
    assert one.results == other.results
    assert one.fractions == other.fractions


def test_figures_equal_those_of_a_plain_loop(voc: Dataset) -> None:
    segmenter = tiny()
    found = evaluate(segmenter, voc, protocols=BOTH)
    matrices = []
    for index in range(len(voc)):
        photo, target = voc.load(index)
        matrices.append(confusion_matrix(target, segmenter(photo).class_map))
    assert found["voc-original"].scores["miou"] == mean_iou(sum(matrices, np.zeros((21, 21), np.int64)))
    assert np.array_equal(found["voc-original"].matrix or (), sum(matrices, np.zeros((21, 21), np.int64)))
    mean = float(np.mean([mean_iou(matrix) for matrix in matrices]))
    assert found["per-image"].scores["miou"] == pytest.approx(mean, abs=1e-11)
    assert found["per-image"].scores["miou"] != pytest.approx(found["voc-original"].scores["miou"], abs=1e-3)
    ranked = sorted(zip([mean_iou(matrix) for matrix in matrices], voc.names, strict=True))
    assert [(record.miou, record.name) for record in found["voc-original"].worst] == ranked
    assert sum(found.fractions.values()) == pytest.approx(1)


def test_every_figure_carries_its_protocol_and_dataset(voc: Dataset) -> None:
    found = evaluate(tiny(), voc.first(2), protocols=BOTH)
    assert [(result.protocol, result.name, result.images) for result in found.results] == [
        ("voc-original", "voc-val", 2),
        ("per-image", "voc-val", 2),
    ]
    assert found["per-image"].matrix is None
    with pytest.raises(UsageError, match="not scored under 'torchvision-references', but voc-original, per-image"):
        found["torchvision-references"]


def test_a_perfect_model_scores_one_everywhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    for number in range(4):
        mask = make_mask(rng, 40, 50)
        save_mask(mask, tmp_path / "masks" / f"{number}.png")
        Image.open(tmp_path / "masks" / f"{number}.png").convert("RGB").save(tmp_path / "images" / f"{number}.png")
    found = evaluate(Segmenter(PaletteNet(), device="cpu", size=40), open_dataset("folder", tmp_path), protocols=BOTH)
    for result in found.results:
        assert set(result.scores.values()) == {1.0}
        assert set(result.intervals.values()) == {(1.0, 1.0)}


def test_torchvision_references_equal_torchvisions_own_evaluation(voc: Dataset) -> None:
    segmenter = tiny(520)
    found = evaluate(segmenter, voc.first(4), protocols=("torchvision-references", "voc-original"))
    total = torch.zeros(21, 21, dtype=torch.int64)
    for index in range(4):
        name = voc.names[index]
        image, target = Image.open(photo_of(voc, name)), Image.open(mask_of(voc, name))
        image = TF.resize(image, [520], interpolation=InterpolationMode.BILINEAR)
        target = TF.resize(target, [520], interpolation=InterpolationMode.NEAREST)
        batch = TF.normalize(TF.to_tensor(image), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None]
        truth = torch.from_numpy(np.array(target)).flatten().long()
        with torch.inference_mode():
            guess = segmenter.model(batch)["out"].argmax(1).flatten()
        valid = (truth >= 0) & (truth < 21)
        total += torch.bincount(21 * truth[valid] + guess[valid], minlength=441).reshape(21, 21)
    assert np.array_equal(found["torchvision-references"].matrix or (), total.numpy())
    assert found["torchvision-references"].scores["miou"] != found["voc-original"].scores["miou"]


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_batches_do_not_change_figures(voc: Dataset, batch: int) -> None:
    """A batched convolution may round differently; these small ones do not."""
    same_figures(evaluate(tiny(), voc), evaluate(tiny(), voc, options=ScoringOptions(batch=batch, workers=3)))


class Recorder:
    """A model that records the shapes of its batches."""

    size = 32
    labels: LabelSet = VOC

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self._inner = tiny()

    def prepare(self, photo: np.ndarray) -> torch.Tensor:
        return self._inner.prepare(photo)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append(tuple(batch.shape))
        return self._inner.forward(batch)


def test_photos_of_one_shape_are_batched(voc: Dataset) -> None:
    model = Recorder()
    evaluate(model, voc, options=ScoringOptions(batch=4))
    assert sorted(model.batches) == [(3, 3, 32, 48), (3, 3, 42, 32), (4, 3, 32, 48)]


def test_chunks_keep_their_borders_when_resuming(voc: Dataset) -> None:
    dataset = replace(voc, names=tuple(f"{n}" for n in range(40)))
    task = ScoringTask(dataset, ("photo",))
    assert [len(chunk) for chunk in task.chunks()] == [16, 16, 8]
    done = frozenset(str(n) for n in (*range(16), 17))
    assert task.chunks(done) == [(16, *range(18, 32)), tuple(range(32, 40))]


def spoil(dataset: Dataset, name: str, how: str) -> None:
    photo, mask = photo_of(dataset, name), mask_of(dataset, name)
    match how:
        case "photo cut off":
            photo.write_bytes(photo.read_bytes()[:200])
        case "mask missing":
            mask.unlink()
        case "mask of another size":
            save_mask(np.zeros((3, 4), np.uint8), mask)
        case "mask with an invalid value":
            save_mask(np.full((40, 60), 77, np.uint8), mask)


@pytest.mark.parametrize("how", ["photo cut off", "mask missing", "mask of another size", "mask with an invalid value"])
def test_a_bad_pair_is_named_and_the_rest_is_scored(voc: Dataset, how: str) -> None:
    bad = voc.names[4]
    spoil(voc, bad, how)
    found = evaluate(tiny(), voc)
    assert list(found.failed) == [bad]
    assert bad in found.failed[bad]
    good = replace(voc, names=tuple(name for name in voc.names if name != bad))
    assert found.images == 9
    assert found["voc-original"].scores == evaluate(tiny(), good)["voc-original"].scores


@pytest.mark.parametrize("options", [{"batch": 0}, {"workers": 0}, {"worst": -1}])
def test_options_that_are_too_small_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ScoringOptions(**options)


def test_an_exception_in_the_model_propagates(voc: Dataset) -> None:
    class Broken(Recorder):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError("broken")

    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError, match="broken"):
        evaluate(Broken(), voc)
    assert set(threading.enumerate()) <= before


def test_an_engine_that_loses_images_is_an_error(voc: Dataset) -> None:
    def loses(task: ScoringTask, chunks: Sequence[Sequence[int]]) -> Any:
        yield from score_chunks(tiny(), task, [chunks[0][:-1]])

    with pytest.raises(RuntimeError, match=r"10 images asked for, 9 \+ 0 came back"):
        evaluate(tiny(), voc, engine=loses)


# Journal


def test_resuming_scores_only_what_is_left(voc: Dataset, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    whole = evaluate(tiny(), voc, protocols=BOTH, options=ScoringOptions(journal=journal))
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 11
    journal.write_bytes(b"".join(lines[:6]) + lines[6][:25])  # five images, and one cut off in mid-line
    seen: list[int] = []
    resumed = evaluate(
        tiny(),
        voc,
        protocols=BOTH,
        options=ScoringOptions(journal=journal, resume=True),
        progress=lambda done, miou: seen.append(done),
    )
    same_figures(whole, resumed)
    assert (resumed.resumed, seen) == (5, [6, 7, 8, 9, 10])
    assert len(journal.read_bytes().splitlines()) == 11
    again = evaluate(tiny(), voc, protocols=BOTH, options=ScoringOptions(journal=journal, resume=True))
    same_figures(whole, again)
    assert again.resumed == 10


def test_without_resume_a_new_journal_is_started(voc: Dataset, tmp_path: Path) -> None:
    journal = tmp_path / "deep" / "journal.jsonl"
    evaluate(tiny(), voc.first(3), options=ScoringOptions(journal=journal))
    assert evaluate(tiny(), voc, options=ScoringOptions(journal=journal)).resumed == 0
    assert len(journal.read_text().splitlines()) == 11


def test_failed_images_are_scored_again_on_resume(voc: Dataset, tmp_path: Path) -> None:
    journal, name = tmp_path / "journal.jsonl", voc.names[4]
    whole = evaluate(tiny(), voc)
    photo = photo_of(voc, name)
    data = photo.read_bytes()
    photo.write_bytes(b"")
    assert list(evaluate(tiny(), voc, options=ScoringOptions(journal=journal)).failed) == [name]
    photo.write_bytes(data)
    resumed = evaluate(tiny(), voc, options=ScoringOptions(journal=journal, resume=True))
    assert resumed.resumed == 9
    same_figures(whole, resumed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("size", "journal of another evaluation .size differ."),
        ("weights", "weights differ"),
        ("images", "images differ"),
        ("protocol", "scales differ"),
        ("text", "its first line"),
        ("line", "jsonl:3: not an image score"),
        ("digit", "jsonl:3: not an image score .ValueError: its checksum differs"),
        ("directory", "journal cannot be written: it is not a regular file"),
        ("fifo", "journal cannot be written: it is not a regular file"),
    ],
)
def test_journals_of_other_evaluations_are_refused(voc: Dataset, tmp_path: Path, change: str, message: str) -> None:
    journal = tmp_path / "journal.jsonl"
    evaluate(tiny(520), voc.first(3), options=ScoringOptions(journal=journal))
    model, dataset, protocols = tiny(520), voc.first(3), ("voc-original",)
    match change:
        case "size":
            model = tiny(32)
        case "weights":
            model = Segmenter(TinyNet(seed=1), device="cpu", size=520)
        case "images":
            dataset = voc.first(4)
        case "protocol":
            protocols = ("torchvision-references",)
        case "text":
            journal.write_text("hello\n")
        case "line":
            lines = journal.read_text().splitlines()
            journal.write_text("\n".join([*lines[:2], '{"name": 3}', lines[3]]) + "\n")
        case "digit":
            lines = journal.read_text().splitlines(keepends=True)
            lines[2] = lines[2].replace('"photo": [[', '"photo": [[1')
            journal.write_text("".join(lines))
        case "directory":
            journal.unlink()
            journal.mkdir()
        case "fifo":
            journal.unlink()
            os.mkfifo(journal)
    with pytest.raises(SegcoreError, match=message) as caught:
        evaluate(model, dataset, protocols=protocols, options=ScoringOptions(journal=journal, resume=True))
    assert type(caught.value) is (OutputError if change in ("directory", "fifo") else RecordError)
    assert not journal.with_name("journal.jsonl.lock").exists()


def unfinished(voc: Dataset, journal: Path) -> bytes:
    """Write the journal of an evaluation that was interrupted after some images; return its contents."""

    def interrupted(task: ScoringTask, chunks: Sequence[Sequence[int]]) -> Any:
        yield from score_chunks(tiny(), task, [chunks[0][:4]])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny(), voc, options=ScoringOptions(journal=journal), engine=interrupted)
    return journal.read_bytes()


def test_an_unfinished_journal_is_not_replaced(voc: Dataset, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    before = unfinished(voc, journal)
    with pytest.raises(RecordError, match=r"scores of 4 images of an evaluation that did not finish.*--resume.*delete"):
        evaluate(tiny(), voc, options=ScoringOptions(journal=journal))
    assert journal.read_bytes() == before
    assert evaluate(tiny(), voc, options=ScoringOptions(journal=journal, resume=True)).resumed == 4
    assert evaluate(tiny(), voc, options=ScoringOptions(journal=journal)).resumed == 0


def test_an_evaluation_whose_result_could_not_be_saved_is_not_finished(voc: Dataset, tmp_path: Path) -> None:
    options = ScoringOptions(journal=tmp_path / "journal.jsonl")

    def full(evaluation: Evaluation) -> None:
        raise OutputError("the disk is full")

    with pytest.raises(OutputError):
        evaluate(tiny(), voc, options=options, save=full)
    with pytest.raises(RecordError, match="scores of 10 images"):
        evaluate(tiny(), voc, options=options)
    saved: list[Evaluation] = []
    found = evaluate(tiny(), voc, options=replace(options, resume=True), save=saved.append)
    assert (saved, found.resumed) == ([found], 10)


def test_a_journal_without_an_image_is_replaced(voc: Dataset, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    unfinished(voc, journal)
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    assert evaluate(tiny(), voc, options=ScoringOptions(journal=journal)).images == 10


@pytest.mark.parametrize("resume", [False, True])
def test_a_journal_is_written_by_one_evaluation_at_a_time(voc: Dataset, tmp_path: Path, resume: bool) -> None:
    options = ScoringOptions(journal=tmp_path / "journal.jsonl")

    def second(evaluation: Evaluation) -> None:
        with pytest.raises(RecordError, match="another evaluation is writing it"):
            evaluate(tiny(), voc, options=replace(options, resume=resume))

    assert evaluate(tiny(), voc, options=options, save=second).images == 10
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["journal.jsonl"]


def test_an_image_that_is_in_the_journal_twice_counts_once(voc: Dataset, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    whole = evaluate(tiny(), voc, options=ScoringOptions(journal=journal))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines, *lines[3:5]]))
    resumed = evaluate(tiny(), voc, options=ScoringOptions(journal=journal, resume=True))
    assert resumed.resumed == 10
    same_figures(whole, resumed)


KILLED = """
import os, sys, time
from pathlib import Path
from segcore.inputs.datasets import open_dataset
from segcore.evaluation.datasets import ScoringOptions, evaluate
from segcore.inference.pipeline import Segmenter
from tests.support.networks import TinyNet

class Counted(TinyNet):
    def forward(self, x):
        with open(sys.argv[2], "ab") as file:
            file.write(b".")
        while len(sys.argv) > 4 and os.path.getsize(sys.argv[2]) > int(sys.argv[4]):
            time.sleep(0.01)  # waits to be killed
        return super().forward(x)

dataset = open_dataset("voc", sys.argv[1])
segmenter = Segmenter(Counted(), device="cpu", size=32)
found = evaluate(segmenter, dataset, options=ScoringOptions(journal=Path(sys.argv[3]), resume=True))
print(found.resumed, found.results[0].model_dump_json())
"""


@pytest.mark.slow
def test_a_killed_evaluation_resumes_and_scores_no_image_twice(voc: Dataset, tmp_path: Path) -> None:
    root, calls, journal = tmp_path / "voc", tmp_path / "calls", tmp_path / "journal.jsonl"
    command = [sys.executable, "-c", KILLED, str(root), str(calls), str(journal)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([*command, "6"], env=environment)  # the seventh forward pass never ends
    while not calls.exists() or calls.stat().st_size < 7 or journal.read_bytes().count(b"\n") < 1 + 6:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    resumed, _, record = output.partition(" ")
    assert int(resumed) == 6
    names = [json.loads(line)["name"] for line in journal.read_text().splitlines()[1:]]
    assert sorted(names) == sorted(voc.names)  # each once
    assert calls.stat().st_size == 10 + 1  # forward passes: one per image, and the one that was killed
    assert DatasetRecord.model_validate_json(record) == evaluate(tiny(), voc).results[0]


# Sums and intervals


def image_scores(count: int, pixels: int = 400) -> list[ImageScore]:
    """Images with about 80 % of the pixels right, each with its own share."""
    rng = np.random.default_rng(3)
    found = []
    for number in range(count):
        target = rng.integers(0, 3, (20, pixels // 20)).astype(np.uint8)
        wrong = rng.random(target.shape) < rng.uniform(0, 0.4)
        logits = nn.functional.one_hot(torch.from_numpy(np.where(wrong, (target + 1) % 3, target)).long(), 21)
        found.append(ImageScore(f"{number}", {"photo": score_pair(target, logits.permute(2, 0, 1).float(), "photo")}))
    return found


@pytest.mark.parametrize("protocol", BOTH)
def test_figures_do_not_depend_on_the_order_of_images(protocol: str) -> None:
    images = image_scores(60)
    tallies = Tally(choose([protocol], 1), 5), Tally(choose([protocol], 1), 5)
    for image in images:
        tallies[0].add(image)
    for index in np.random.default_rng(4).permutation(60):
        tallies[1].add(images[index])
    np.testing.assert_array_equal(tallies[0].sums[0].scores(), tallies[1].sums[0].scores())
    np.testing.assert_array_equal(tallies[0].sums[0].intervals(), tallies[1].sums[0].intervals())
    assert tallies[0].worst == tallies[1].worst


@pytest.mark.parametrize("protocol", BOTH)
def test_intervals_agree_with_the_ordinary_bootstrap(protocol: str) -> None:
    images = image_scores(150)
    tally = Tally(choose([protocol], 1), 0)
    for image in images:
        tally.add(image)
    low, high = tally.sums[0].intervals()[:, MEANS.index("miou")]
    counts = np.stack([image.counts["photo"] for image in images])
    rng, replicates = np.random.default_rng(5), []
    for _ in range(REPLICATES):
        drawn = counts[rng.integers(0, len(images), len(images))]
        if protocol == "voc-original":
            replicates.append(scores(*split_counts(drawn.sum(axis=0)))[0])
        else:
            replicates.append(scores(*split_counts(drawn))[:, 0].mean())
    expected = np.percentile(replicates, [2.5, 97.5])
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.15)
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.15 * (expected[1] - expected[0]))


def test_memory_does_not_grow_with_the_number_of_images(voc: Dataset) -> None:
    """At most a chunk of photos is held, and the sums have a fixed size."""
    alive = peak = 0
    lock = threading.Lock()

    def gone() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    class Counting:
        def read(self, name: str) -> tuple[Any, Any]:
            nonlocal alive, peak
            photo, mask = voc.load(0)
            weakref.finalize(mask, gone)
            with lock:
                alive += 1
                peak = max(peak, alive)
            return photo, mask

    many = Dataset("many", tuple(f"{n}" for n in range(120)), Counting())
    model = Recorder()
    assert evaluate(model, many, options=ScoringOptions(worst=3)).images == 120
    assert 1 < peak <= 16
    gc.collect()
    assert alive == 0


def test_the_next_photos_are_decoded_while_the_model_runs(voc: Dataset) -> None:
    read = threading.Semaphore(0)

    class Signalling:
        def read(self, name: str) -> tuple[Any, Any]:
            read.release()
            return voc.reader.read(name)

    class Waiting(Recorder):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if len(self.batches) < len(voc) - 1:  # its own photo, and one more in the first call
                assert all(read.acquire(timeout=60) for _ in range(2 if not self.batches else 1))
            return super().forward(batch)

    assert evaluate(Waiting(), replace(voc, reader=Signalling())).images == len(voc)


# Published figures


@pytest.mark.parametrize(
    ("weights", "count", "protocol", "expected"),
    [
        ("pretrained", 5000, "torchvision-references", {"miou": 0.637, "pixel_accuracy": 0.919}),
        ("pretrained", 4999, "torchvision-references", {}),
        ("pretrained", 5000, "voc-original", {}),
        ("checkpoint", 5000, "torchvision-references", {}),
    ],
)
def test_published_figures_are_given_only_where_they_apply(
    weights: Literal["pretrained", "checkpoint"], count: int, protocol: str, expected: dict[str, float]
) -> None:
    segmenter = tiny()
    segmenter.model_name = "fcn_resnet101"
    segmenter.weights = segmenter.weights.model_copy(update={"kind": weights})
    dataset = Dataset("coco-val", tuple(map(str, range(count))), FileReader(Path(), Path()))
    found = published_figures(segmenter, dataset, PROTOCOLS[protocol])
    assert found == pytest.approx(expected)


# Other label sets


@pytest.mark.parametrize("count", [4, 300])
def test_a_dataset_with_other_classes(tmp_path: Path, count: int) -> None:
    labels = numbered(count)
    rng = np.random.default_rng(count)
    truth = rng.choice([*range(count), labels.ignore], (3, 32, 40)).astype(np.uint16)

    class Known(Recorder):
        """Sees the class that the red channel (and the green one, for the high byte) says."""

        def __init__(self) -> None:
            super().__init__()
            self.labels = labels

        def prepare(self, photo: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(photo).permute(2, 0, 1).float()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot((batch[:, 0] + 256 * batch[:, 1]).long(), count).permute(0, 3, 1, 2).float()

    class Read:
        def read(self, name: str) -> tuple[np.ndarray, ClassMap]:
            seen = rng_of(name).integers(0, count, (32, 40))
            return np.stack([seen % 256, seen // 256, seen * 0], axis=-1).astype(np.uint8), truth[int(name)]

    def rng_of(name: str) -> np.random.Generator:
        return np.random.default_rng(int(name) + 100)

    dataset = Dataset("own", ("0", "1", "2"), Read())
    options = ScoringOptions(journal=tmp_path / "j.jsonl")
    first = evaluate(Known(), dataset, protocols=BOTH, options=options)
    again = evaluate(Known(), dataset, protocols=BOTH, options=replace(options, resume=True))
    assert again.resumed == 3
    assert [result.scores for result in again.results] == [result.scores for result in first.results]
    seen = np.stack([rng_of(name).integers(0, count, (32, 40)) for name in dataset.names]).astype(np.uint16)
    totals = class_totals(truth.reshape(96, 40), seen.reshape(96, 40), labels)
    expected = dict(zip(score_names(labels.names), class_scores(totals), strict=True))
    found = first["voc-original"]
    assert {name: found.scores[name] for name in ("miou", "pixel_accuracy", "iou class 3")} == {
        name: expected[name] for name in ("miou", "pixel_accuracy", "iou class 3")
    }
    assert (found.matrix is None) == (count > 256)
    assert sum(first.fractions.values()) == pytest.approx(1)
    assert set(first.fractions) <= set(labels.names)


def test_intervals_do_not_depend_on_how_many_classes_there_are() -> None:
    """Classes that no image has take neither memory nor part."""
    few, many = numbered(4), numbered(65_535)
    rng = np.random.default_rng(1)
    tallies = [Tally(choose(BOTH, 1), 0, labels) for labels in (few, many)]
    for number in range(12):
        target, seen = (rng.integers(0, 3, (8, 9)).astype(np.uint16) for _ in range(2))
        for labels, tally in zip((few, many), tallies, strict=True):
            parts = class_totals(target, seen, labels), boundary_counts(target, seen, labels)
            first = confusion_matrix(target, seen, labels) if labels is few else parts[0]
            counts = np.concatenate([first.ravel(), parts[1].ravel()])
            tally.add(ImageScore(f"{number}", {"photo": counts}))
    for sums in zip(*(tally.sums for tally in tallies), strict=True):
        one, other = (each.intervals()[:, : len(MEANS) + 4] for each in sums)
        np.testing.assert_allclose(other, one, rtol=1e-12)
        assert np.isnan(one[:, -1]).all()
        assert sums[1].matrix() is None


def test_a_journal_of_other_classes_is_not_resumed(voc: Dataset, tmp_path: Path) -> None:
    options = ScoringOptions(journal=tmp_path / "j.jsonl")
    evaluate(Recorder(), voc, options=options)
    other = Recorder()
    other.labels = LabelSet("own", VOC.names)
    with pytest.raises(RecordError, match=r"another evaluation \(labels differ\)"):
        evaluate(other, voc, options=replace(options, resume=True))
