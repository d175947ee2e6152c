from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segcore.core.labels import CITYSCAPES
from segcore.core.records import MARGIN_PNG_STEP, AccuracyRecord, LabelsRef, Run
from segcore.judgement.drift import NOISE_MARGIN, Drift, pixel_drift, run_drift
from tests.support.judged_runs import a_run, an_item

SURE, UNSURE = 255, int(NOISE_MARGIN / MARGIN_PNG_STEP) - 1
KEY = "accuracy[cat-embedded-torch-cpu-320]"
maps = arrays(np.uint8, (4, 6), elements=st.integers(0, 20))
margins = arrays(np.uint8, (2, 3))


def full(value: int, shape: tuple[int, int] = (2, 2)) -> npt.NDArray[np.uint8]:
    return np.full(shape, value, np.uint8)


@pytest.mark.parametrize(
    ("old_margin", "new_margin", "numeric"),
    [
        (full(UNSURE), full(UNSURE), 0.25),
        (full(SURE), full(UNSURE), 0.0),
        (full(UNSURE), full(SURE), 0.0),
        (full(UNSURE + 1), full(0), 0.0),
        (None, full(0), 0.0),
        (full(0), None, 0.0),
        (full(0, (1, 1)), full(0, (1, 1)), 0.25),
    ],
)
def test_a_change_is_noise_only_where_both_runs_were_unsure(
    old_margin: npt.NDArray[np.uint8] | None, new_margin: npt.NDArray[np.uint8] | None, numeric: float
) -> None:
    old, new = full(0), full(0)
    new[0, 1] = 8
    assert pixel_drift(old, new, old_margin, new_margin) == Drift(0.25, numeric, 0.25 - numeric)


@given(old=maps, new=maps, before=margins, after=margins)
def test_shares_add_up_and_do_not_depend_on_the_order(
    old: npt.NDArray[np.uint8],
    new: npt.NDArray[np.uint8],
    before: npt.NDArray[np.uint8],
    after: npt.NDArray[np.uint8],
) -> None:
    found = pixel_drift(old, new, before, after)
    assert found.changed == np.mean(old != new)
    assert 0 <= found.numeric <= found.changed
    assert found.real == found.changed - found.numeric
    assert found == pixel_drift(new, old, after, before)
    assert pixel_drift(old, old, before, after) == Drift(0.0, 0.0, 0.0)


def stored(directory: Path, image: Image.Image | None, margin: Image.Image | None = None, **fields: str) -> Run:
    directory.mkdir(exist_ok=True)
    if image:
        image.save(directory / "map.png")
    if margin:
        margin.save(directory / "margin.png")
        fields["margin_map"] = "margin.png"
    accuracy = AccuracyRecord.model_validate(
        {"dominant": "cat", "fractions": {"cat": 0.4}, "class_map": "map.png", **fields}
    )
    run = a_run(an_item(kind="accuracy", accuracy=accuracy))
    return run.model_copy(update={"path": directory / "run.json"})


def test_stored_maps_are_read_beside_their_run_files(tmp_path: Path) -> None:
    indexed = Image.fromarray(full(8, (10, 10))).convert("L")
    indexed.putpalette([0] * 768)
    changed = full(8, (10, 10))
    changed[0, :5] = 12
    sure, unsure = Image.fromarray(full(SURE)), Image.fromarray(full(UNSURE))
    old = stored(tmp_path / "old", indexed, unsure)
    assert run_drift(old, stored(tmp_path / "new", Image.fromarray(changed), unsure)) == {KEY: Drift(0.05, 0.05, 0.0)}
    assert run_drift(old, stored(tmp_path / "sure", Image.fromarray(changed), sure)) == {KEY: Drift(0.05, 0.0, 0.05)}


def test_maps_of_16_bits(tmp_path: Path) -> None:
    old, new = (np.full((10, 10), 300, np.uint16) for _ in range(2))
    new[0, :5] = 256 + 44 + 1
    runs = [stored(tmp_path / name, Image.fromarray(each)) for name, each in (("old", old), ("new", new))]
    assert run_drift(*runs) == {KEY: Drift(0.05, 0.0, 0.05)}


def test_maps_of_different_labels_are_not_compared(tmp_path: Path) -> None:
    old, new = (stored(tmp_path / name, Image.fromarray(full(8))) for name in ("old", "new"))
    other = an_item(kind="accuracy", accuracy=new.benchmarks[0].info.accuracy, labels=LabelsRef.of(CITYSCAPES))
    found = run_drift(old, new.model_copy(update={"benchmarks": (other,)}))[KEY]
    assert "different labels: voc (21 classes" in str(found)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.fromarray(full(8, (9, 10))), "was 10x10 pixels, is 10x9"),
        (Image.new("RGB", (10, 10)), "found mode RGB"),
        (None, "is missing; keep the folder beside the run file"),
    ],
)
def test_maps_that_cannot_be_compared_give_the_reason(tmp_path: Path, image: Image.Image | None, words: str) -> None:
    old = stored(tmp_path / "old", Image.fromarray(full(8, (10, 10))))
    found = run_drift(old, stored(tmp_path / "new", image))[KEY]
    assert isinstance(found, str)
    assert words in found


def test_drift_needs_a_class_map_in_the_baseline(tmp_path: Path) -> None:
    without = a_run(an_item(kind="accuracy"))
    with_map = stored(tmp_path, Image.fromarray(full(8)))
    assert run_drift(without, with_map) == {}
    assert run_drift(with_map, a_run()) == {}
    assert "the current run did not" in str(run_drift(with_map, without)[KEY])


@pytest.mark.parametrize("whose", ["baseline", "current"])
@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "link.png", "big.png", "fifo.png"])
def test_maps_are_read_below_the_run_file_alone(tmp_path: Path, whose: str, name: str) -> None:
    outside = tmp_path / "outside.png"
    good = Image.fromarray(full(8, (10, 10)))
    good.save(outside)
    fine = stored(tmp_path / "fine", good)
    bad = stored(tmp_path / "bad", good, class_map=name if name[0] != "/" else str(outside))
    (tmp_path / "bad" / "link.png").symlink_to(outside)
    os.mkfifo(tmp_path / "bad" / "fifo.png")
    data = bytearray(outside.read_bytes())  # a bomb: 60,000 x 60,000 pixels in a few bytes
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "bad" / "big.png").write_bytes(data)
    found = run_drift(bad, fine) if whose == "baseline" else run_drift(fine, bad)
    assert isinstance(found[KEY], str)
    assert "\n" not in str(found[KEY])
