"""Results are values: readable, written, copied and pickled without loss; a segmenter says why it is none."""

from __future__ import annotations

import copy
import io
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from segcore import Segmenter
from segcore.core.errors import OutputError
from segcore.core.image_files import load_indexed_png
from segcore.core.labels import VOC, ClassMap, LabelSet
from segcore.inference.devices import Device
from segcore.inference.result import SegmentationResult
from tests.support.networks import ConstantNet, TinyNet

PHOTO = np.random.default_rng(1).integers(0, 256, (24, 32, 3)).astype(np.uint8)
CLASS_MAPS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 20))
COPIES: dict[str, Callable[[SegmentationResult], SegmentationResult]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda result: pickle.loads(pickle.dumps(result)),
}


def result_of(class_map: ClassMap, labels: LabelSet = VOC) -> SegmentationResult:
    photo = np.full((*class_map.shape, 3), 200, dtype=np.uint8)
    colours = np.zeros_like(photo)
    return SegmentationResult(
        photo, class_map, colours, {"forward": 0.25}, (1, 3, *class_map.shape), labels=labels, _class_map=class_map
    )


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(TinyNet(), device=Device("cpu"), size=24)


def test_text_names_size_dominant_class_and_shares() -> None:
    class_map = np.zeros((4, 8), dtype=np.uint8)
    class_map[:, :3] = VOC.index("cat")
    assert repr(result_of(class_map)) == "<SegmentationResult 8x4, cat: background 62.5%, cat 37.5%>"
    many = repr(result_of(np.arange(7, dtype=np.uint8)[None]))
    assert many.count("%") == 5
    assert many.endswith(", 2 more>")


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("logits", [False, True])
def test_copies_hold_the_same(segmenter: Segmenter, how: str, logits: bool) -> None:
    result = segmenter.run([PHOTO], margins=True)[0] if logits else segmenter(Image.fromarray(PHOTO))
    found = COPIES[how](result)
    for name in ("photo", "class_map", "model_class_map", "model_color_mask"):
        np.testing.assert_array_equal(getattr(found, name), getattr(result, name))
    assert found.to_dict() == result.to_dict()
    assert found.labels == result.labels
    if logits:
        assert found.logits is not None
        np.testing.assert_array_equal(found.logits, result.logits)
        np.testing.assert_array_equal(found.margins, result.margins)
    np.testing.assert_array_equal(found.overlay(), result.overlay())


def test_results_of_one_list_share_no_timings(segmenter: Segmenter) -> None:
    first, second = segmenter([PHOTO, PHOTO])
    first.timings.clear()
    assert second.timings


@given(CLASS_MAPS)
def test_a_dictionary_is_json_and_agrees_with_the_class_map(class_map: ClassMap) -> None:
    result = result_of(class_map)
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found == result.to_dict()
    assert (found["height"], found["width"]) == class_map.shape
    counts = {name: int((class_map == VOC.index(name)).sum()) for name in VOC.names}
    expected = {name: count / class_map.size for name, count in counts.items() if count}
    assert found["fractions"] == pytest.approx(expected)
    assert found["dominant"] == result.dominant
    assert result.dominant in repr(result)


@pytest.mark.parametrize("labels", [VOC, LabelSet("many", tuple(f"class {i}" for i in range(300)))])
def test_files_hold_the_class_map_and_the_picture(tmp_path: Path, labels: LabelSet) -> None:
    class_map = np.arange(12, dtype=labels.dtype).reshape(3, 4)
    class_map[0, 0] = len(labels) - 1
    result = result_of(class_map, labels)
    mask, overlay = result.save(tmp_path / "new" / "photo.v1")
    assert [mask.name, overlay.name] == ["photo.v1.mask.png", "photo.v1.overlay.png"]
    np.testing.assert_array_equal(load_indexed_png(mask), class_map)
    with Image.open(overlay) as image:
        np.testing.assert_array_equal(image, result.picture())
    assert sorted(path.name for path in mask.parent.iterdir()) == [mask.name, overlay.name]
    with pytest.raises(OutputError):
        result.save(mask / "below-a-file")


def test_a_notebook_gets_the_overlay_with_its_legend() -> None:
    result = Segmenter(ConstantNet(VOC.index("cat")), device=Device("cpu"), size=24)(PHOTO)
    with Image.open(io.BytesIO(result._repr_png_())) as image:
        shown = np.asarray(image)
    height, width = PHOTO.shape[:2]
    left = (shown.shape[1] - width) // 2
    np.testing.assert_array_equal(shown[:height, left : left + width], result.overlay())  # one class: no outlines
    legend = shown[height:].reshape(-1, 3)
    assert (legend == VOC.colors[VOC.index("cat")]).all(axis=1).any()


@pytest.mark.parametrize("how", [pickle.dumps, copy.deepcopy])
def test_a_segmenter_says_why_it_is_not_pickled_and_what_to_do(
    segmenter: Segmenter, how: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match=r"torch runs its network here, on cpu.* make one in each process"):
        how(segmenter)
    np.testing.assert_array_equal(copy.copy(segmenter)(PHOTO).class_map, segmenter(PHOTO).class_map)


def test_segmenting_leaves_the_warnings_of_the_process_alone(segmenter: Segmenter, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    before = list(warnings.filters)
    segmenter(tmp_path / "photo.png")
    assert warnings.filters == before
