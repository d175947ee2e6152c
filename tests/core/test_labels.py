from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from segcore.core.errors import UsageError
from segcore.core.labels import (
    ADE20K,
    CITYSCAPES,
    COCO_STUFF,
    LABEL_SETS,
    MAX_CLASSES,
    NUM_CLASSES,
    VOC,
    VOC_CLASSES,
    VOC_PALETTE,
    VOID_COLOR,
    LabelSet,
    label_set,
    numbered,
    voc_colormap,
)

# The 21 colours as the VOC 2012 development kit's documentation paints them.
PUBLISHED = [
    (0, 0, 0),
    (128, 0, 0),
    (0, 128, 0),
    (128, 128, 0),
    (0, 0, 128),
    (128, 0, 128),
    (0, 128, 128),
    (128, 128, 128),
    (64, 0, 0),
    (192, 0, 0),
    (64, 128, 0),
    (192, 128, 0),
    (64, 0, 128),
    (192, 0, 128),
    (64, 128, 128),
    (192, 128, 128),
    (0, 64, 0),
    (128, 64, 0),
    (0, 192, 0),
    (128, 192, 0),
    (0, 64, 128),
]


def test_palette_is_the_published_one() -> None:
    assert [tuple(map(int, colour)) for colour in VOC_PALETTE] == PUBLISHED
    assert tuple(map(int, voc_colormap()[255])) == (224, 224, 192)
    assert len(np.unique(voc_colormap(), axis=0)) == 256


def test_the_palette_is_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        VOC_PALETTE[0] = 1


@pytest.mark.parametrize("index", range(NUM_CLASSES))
def test_every_class_by_name_and_by_index(index: int) -> None:
    name = VOC_CLASSES[index]
    assert VOC.index(name) == VOC.index(index) == VOC.index(str(index)) == VOC.index(f" {name.upper()} ") == index


def test_aliases_resolve_to_voc_names() -> None:
    assert {VOC.index(alias) for alias in VOC.aliases} <= set(range(1, NUM_CLASSES))
    assert VOC_CLASSES[VOC.index("couch")] == VOC_CLASSES[VOC.index("sofa")] == "sofa"
    assert VOC.index("tv") == VOC.index("tvmonitor") == 20
    assert VOC.index("airplane") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("persn", "did you mean 'person'"),
        ("zebra", "the classes of voc are"),
        ("21", "index from 0 to 20"),
        (21, "index from 0 to 20"),
        (-1, "index from 0 to 20"),
        (True, "index from 0 to 20"),
        ("", "unknown class"),
        ("²", "unknown class"),
    ],
)
def test_an_unknown_class_is_refused(name: str | int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        VOC.index(name)


@pytest.mark.parametrize(
    ("labels", "count", "index", "name", "color"),
    [
        (VOC, 21, 15, "person", (192, 128, 128)),
        (CITYSCAPES, 19, 0, "road", (128, 64, 128)),
        (CITYSCAPES, 19, 11, "person", (220, 20, 60)),
        (CITYSCAPES, 19, 18, "bicycle", (119, 11, 32)),
        (ADE20K, 150, 0, "wall", (120, 120, 120)),
        (ADE20K, 150, 12, "person", (150, 5, 61)),
        (ADE20K, 150, 149, "flag", (92, 0, 255)),
        (COCO_STUFF, 171, 0, "person", (128, 0, 0)),
        (COCO_STUFF, 171, 79, "toothbrush", tuple(voc_colormap()[80].tolist())),
        (COCO_STUFF, 171, 170, "wood", tuple(voc_colormap()[171].tolist())),
        (numbered(3), 3, 2, "class 2", (128, 128, 0)),
    ],
)
def test_classes_and_colours_of_the_label_sets(
    labels: LabelSet, count: int, index: int, name: str, color: tuple[int, int, int]
) -> None:
    assert len(labels) == count
    assert labels.names[index] == name
    assert labels.colors[index] == color
    assert labels.index(name.upper()) == labels.index(index) == labels.index(f" {index} ") == index
    assert tuple(labels.lookup[index]) == tuple(labels.palette[index]) == color
    assert labels.ignore is not None
    assert tuple(labels.lookup[labels.ignore]) == VOID_COLOR
    assert all(labels.names[labels.index(alias)] == known for alias, known in labels.aliases.items())


def test_label_sets_are_found_by_name() -> None:
    assert list(LABEL_SETS) == ["voc", "cityscapes", "ade20k", "coco-stuff"]
    assert label_set(" Cityscapes ") is CITYSCAPES
    with pytest.raises(UsageError, match="did you mean 'cityscapes'"):
        label_set("cityscape")


@pytest.mark.parametrize(
    ("count", "dtype", "ignore", "values"),
    [
        (1, np.uint8, 255, 256),
        (255, np.uint8, 255, 256),
        (256, np.uint8, 65_535, 65_536),
        (257, np.uint16, 65_535, 65_536),
        (MAX_CLASSES, np.uint16, 65_535, 65_536),
    ],
)
def test_types_grow_where_needed(count: int, dtype: Any, ignore: int, values: int) -> None:
    labels = numbered(count)
    assert (labels.dtype, labels.ignore, len(labels.lookup)) == (dtype, ignore, values)
    assert len(set(labels.colors)) == count
    assert (0, 0, 0) not in labels.colors


def test_black_is_the_background_alone() -> None:
    labels = LabelSet("own", ("road", "rest", "curb"), background=1)
    assert labels.colors == ((128, 0, 0), (0, 0, 0), (0, 128, 0))
    assert labels.background_name == "rest"
    assert VOC.colors == tuple(PUBLISHED)


def test_a_digest_is_of_what_figures_depend_on() -> None:
    own = LabelSet("mine", VOC_CLASSES, colors=((1, 2, 3),) * 21, background=0)
    assert own.digest == VOC.digest
    others = [LabelSet("voc", VOC_CLASSES), LabelSet("voc", VOC_CLASSES, background=0, ignore=None)]
    others += [LabelSet("voc", VOC_CLASSES[::-1], background=20), CITYSCAPES, ADE20K, COCO_STUFF]
    assert len({labels.digest for labels in [VOC, *others]}) == 7


def test_label_sets_survive_pickling() -> None:
    assert pickle.loads(pickle.dumps(ADE20K)) == ADE20K
    assert "palette" not in ADE20K.__getstate__()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ()}, "has 0 classes, wanted 1 to 65,535"),
        ({"names": ("a",) * 65_536}, "has 65536 classes"),
        ({"names": ("a", "b", "A")}, "classes 0 and 2 are both named 'A'"),
        ({"names": ("a", "")}, "the name '' is not 1 to 100"),
        ({"names": (" a",)}, "the name ' a' is not"),
        ({"names": ("a\n",)}, "printable"),
        ({"names": ("a" * 101,)}, "1 to 100"),
        ({"name": ""}, "the name '' is not"),
        ({"colors": ((0, 0, 0),)}, "has 1 colours for 2 classes"),
        ({"colors": ((0, 0, 0), (0, 0, 256))}, r"\(0, 0, 256\) is not three whole numbers"),
        ({"aliases": {"lane": "raod"}}, "for 'raod', which is not a class .did you mean 'road'"),
        ({"aliases": {"Curb": "road"}}, "the alias 'curb' of 'road' is the name of another class"),
        ({"background": 2}, "background is class 2, wanted an index from 0 to 1"),
        ({"ignore": 1}, "ignore is 1, wanted a value from 2 to 65,535"),
        ({"ignore": 65_536}, "ignore is 65536"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"label set .*: .*{message}"):
        LabelSet(**{"name": "own", "names": ("road", "curb"), **fields})
