from __future__ import annotations

import numpy as np
import pytest

from segcore.core.errors import UsageError
from segcore.core.labels import ALIASES, NUM_CLASSES, VOC_CLASSES, VOC_PALETTE, class_index, voc_colormap

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
    assert (
        class_index(name) == class_index(index) == class_index(str(index)) == class_index(f" {name.upper()} ") == index
    )


def test_aliases_resolve_to_voc_names() -> None:
    assert {class_index(alias) for alias in ALIASES} <= set(range(1, NUM_CLASSES))
    assert VOC_CLASSES[class_index("couch")] == VOC_CLASSES[class_index("sofa")] == "sofa"
    assert class_index("tv") == class_index("tvmonitor") == 20
    assert class_index("airplane") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("persn", "did you mean 'person'"),
        ("zebra", "the VOC classes are"),
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
        class_index(name)
