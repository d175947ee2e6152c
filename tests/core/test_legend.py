from __future__ import annotations

import numpy as np
import pytest

from segcore.core.labels import VOC_CLASSES, VOC_PALETTE, LabelSet
from segcore.core.legend import with_legend


@pytest.mark.parametrize("shape", [(1, 1), (300, 451), (1213, 1546), (40, 3000)])
def test_the_picture_is_unchanged_above_its_legend(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    fractions = {name: 1 / len(VOC_CLASSES) for name in VOC_CLASSES}
    drawn = np.asarray(with_legend(picture, fractions))
    left = (drawn.shape[1] - shape[1]) // 2
    np.testing.assert_array_equal(drawn[: shape[0], left : left + shape[1]], picture)
    strip = drawn[shape[0] :].reshape(-1, 3)
    for name, colour in zip(VOC_CLASSES[1:], VOC_PALETTE[1:], strict=True):
        assert (strip == colour).all(axis=1).sum() > 50, f"no swatch for {name}"


def test_background_alone_has_a_legend() -> None:
    drawn = np.asarray(with_legend(np.full((50, 300, 3), 255, dtype=np.uint8), {"background": 1.0}))
    assert (drawn[50:] == 0).all(axis=2).any()


def test_colours_are_those_of_the_labels() -> None:
    labels = LabelSet("own", ("road", "sky"), ((11, 22, 33), (44, 55, 66)), background=1)
    drawn = np.asarray(with_legend(np.full((50, 300, 3), 255, dtype=np.uint8), {"sky": 0.6, "road": 0.4}, labels))
    assert (drawn[50:] == (11, 22, 33)).all(axis=2).any()
    assert not (drawn[50:] == (44, 55, 66)).all(axis=2).any()
    alone = np.asarray(with_legend(np.full((50, 300, 3), 255, dtype=np.uint8), {"sky": 1.0}, labels))
    assert (alone[50:] == (44, 55, 66)).all(axis=2).any()
