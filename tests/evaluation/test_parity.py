from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segcore import Segmenter
from segcore.core.labels import NUM_CLASSES
from segcore.evaluation.parity import Parity, is_reference, logits_parity, photo_logits, pooled, reference_of
from tests.support.networks import TinyNet


def sure(class_map: np.ndarray, margin: float = 10.0) -> torch.Tensor:
    """Return logits that are 0 except for the given class."""
    logits = torch.zeros(NUM_CLASSES, *class_map.shape)
    logits.scatter_(0, torch.from_numpy(class_map.astype(np.int64))[None], margin)
    return logits


TRUTH = np.zeros((10, 10), dtype=np.uint8)
TRUTH[:, 5:] = 15


def test_the_same_logits_are_equal() -> None:
    parity = logits_parity(sure(TRUTH), sure(TRUTH))
    assert (parity.equal_share, parity.unlike, parity.miou_drop, parity.largest_error) == (1.0, 0, 0.0, 0.0)
    assert parity.check(0.0).passed


def test_a_changed_class_counts_only_where_the_reference_was_sure() -> None:
    changed = TRUTH.copy()
    changed[0, :4] = 8
    parity = logits_parity(sure(TRUTH), sure(changed))
    assert parity.unlike_share == 0.04
    assert parity.equal_share == 0.96
    assert parity.largest_error == 10
    assert parity.relative_error == 1
    assert not parity.check(0.039).passed
    assert parity.check(0.04).passed
    # IoU: background 46 of 50, person 50 of 50, cat 0 of 4.
    assert parity.miou_drop == pytest.approx(1 - (46 / 50 + 1 + 0) / 3)

    tied = sure(TRUTH)
    tied[8, 0, :4] = 9.95  # background leads by half a percent of the largest logit
    parity = logits_parity(tied, sure(changed))
    assert parity.unlike == 0
    assert parity.equal_share == 0.96


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_never_pass(value: float) -> None:
    broken = sure(TRUTH)
    broken[3, 2, 2] = value
    parity = logits_parity(sure(TRUTH), broken)
    assert parity.unlike == 1
    assert parity.largest_error == math.inf
    assert not parity.check(1.0).passed


def test_photos_are_pooled_by_their_pixels() -> None:
    small = logits_parity(sure(TRUTH[:2]), sure(TRUTH[:2]) * 0.5)
    changed = TRUTH.copy()
    changed[:, 0] = 3
    parity = pooled([small, logits_parity(sure(TRUTH), sure(changed))])
    assert parity.equal_share == pytest.approx(110 / 120)
    assert parity.unlike == 10
    assert parity.largest_error == 10


def test_a_check_names_limit_and_shares() -> None:
    check = Parity(np.ones((NUM_CLASSES, 3), dtype=np.int64), 2, 0.5, 10.0).check(0.01)
    assert check.name == "pixels unlike torch fp32"
    assert check.wanted == "at most 1.000%"
    assert check.found == "9.524% (100.000% are equal; logits are off by 5.00% of the largest)"
    assert not check.passed


def test_the_reference_is_the_same_network_in_fp32() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    half = Segmenter(TinyNet(), device="cpu", size=32, precision="bf16")
    reference = reference_of(half)
    assert is_reference(reference)
    assert not is_reference(half)
    assert reference.size == 32
    parity = logits_parity(photo_logits(reference, photo), photo_logits(half, photo))
    assert parity.relative_error is not None
    assert 0 < parity.relative_error < 0.02
    assert parity.totals[:, 1].sum() == 32 * 40
    assert parity.check(0.001).passed


def test_class_maps_have_no_logits_to_compare() -> None:
    logits = torch.zeros(3, 2, 2)
    logits[1, 0], logits[2, 1] = 5.0, 0.01  # the reference is sure of the upper row alone
    maps = torch.tensor([[1, 0], [0, 2]], dtype=torch.uint8)
    found = logits_parity(logits, maps)
    assert (found.unlike, found.equal_share, found.largest_error) == (1, 0.5, None)
    assert found.check(0.25).passed
    assert "no logits" in found.check(0.2).found
    assert not found.check(0.2).passed
    blind = logits_parity(torch.tensor([[1, 1], [2, 2]]), maps, 3)  # nothing says where this one is sure
    assert (blind.unlike, blind.relative_error, blind.largest_logit) == (2, None, None)
    assert pooled([found, blind]).unlike == 3
    assert pooled([found, blind]).largest_error is None
