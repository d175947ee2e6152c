"""What models return, by the kind of their output: scores of all classes, or a class map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from segcore.core.errors import ModelError
from segcore.core.labels import LabelSet, numbered
from segcore.core.model_spec import OutputSpec
from segcore.inference.decode import argmax_classes, enlarge, enlarged_classes, upsample_class_map
from segcore.inference.outputs import has_scores, read_output

BATCH = (1, 3, 1, 4)
BINARY = LabelSet("binary", ("background", "cat"), background=0)
THREE = LabelSet("three", ("a", "background", "b"), background=1)


def classes(output: torch.Tensor, spec: OutputSpec, labels: LabelSet) -> list[int]:
    scores = read_output(output, BATCH, spec, labels)
    assert tuple(scores.shape) == (1, len(labels), 1, 4)
    return [int(value) for value in argmax_classes(scores).ravel()]


def planes(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)[None, :, None]


@pytest.mark.parametrize(
    ("output", "spec", "labels", "expected"),
    [
        (planes([0.2, 0.5, 0.51, 1]), OutputSpec(kind="sigmoid"), BINARY, [0, 0, 1, 1]),
        (planes([0.2, 0.5, 0.51, 1]), OutputSpec(kind="sigmoid", threshold=0.9), BINARY, [0, 0, 0, 1]),
        (planes([0.2, 0.5, 0.51, 1]), OutputSpec(kind="sigmoid"), numbered(2), [0, 0, 1, 1]),
        (planes([0.2, 0.5, 0.51, 1]), OutputSpec(kind="probabilities"), BINARY, [0, 0, 1, 1]),
        (planes([-1, 0, 0.2, 3]), OutputSpec(), BINARY, [0, 0, 1, 1]),
        (planes([0.9, 0.1, 0.6, 0], [0.8, 0.2, 0.7, 1]), OutputSpec(kind="sigmoid"), THREE, [0, 1, 2, 2]),
        (
            planes([0.9, 0.1, 0.6, 0], [0, 0, 0.8, 0], [0.8, 0.2, 0.7, 1]),
            OutputSpec(kind="sigmoid"),
            THREE,
            [0, 1, 1, 2],
        ),
        (planes([1.0, 0, 0, 0], [0.0, 1, 0, 0], [0.0, 0, 1, 1]), OutputSpec(kind="probabilities"), THREE, [0, 1, 2, 2]),
    ],
)
def test_scores(output: torch.Tensor, spec: OutputSpec, labels: LabelSet, expected: list[int]) -> None:
    assert classes(output, spec, labels) == expected


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("channel", [False, True])
def test_class_maps_of_any_integer_type(dtype: torch.dtype, channel: bool) -> None:
    found = torch.tensor([[[0, 1, 1, 0]]]).to(dtype)
    found = read_output(found[:, None] if channel else found, BATCH, OutputSpec(kind="classes"), BINARY)
    assert found.dtype == torch.uint8
    assert found.tolist() == [[[0, 1, 1, 0]]]
    assert not has_scores(found)


@pytest.mark.parametrize(
    ("output", "spec", "labels"),
    [
        (torch.zeros(1, 1, 4), OutputSpec(kind="classes"), BINARY),  # not integers
        (torch.tensor([[[0, 2, 0, 0]]]), OutputSpec(kind="classes"), BINARY),  # no such class
        (torch.tensor([[[0, -1, 0, 0]]]), OutputSpec(kind="classes"), BINARY),
        (torch.zeros(1, 2, 1, 4, dtype=torch.int64), OutputSpec(kind="classes"), BINARY),
        (torch.zeros(1, 4, 1, 4), OutputSpec(kind="sigmoid"), THREE),  # too many channels
        (torch.zeros(1, 3, 1, 4), OutputSpec(kind="sigmoid"), numbered(3)),  # no background
        (torch.zeros(1, 1, 1, 4), OutputSpec(kind="probabilities"), THREE),
        (torch.full((1, 1, 1, 4), torch.nan), OutputSpec(kind="sigmoid"), BINARY),
        (torch.zeros(1, 1, 4, dtype=torch.int64), OutputSpec(), BINARY),
    ],
)
def test_outputs_that_are_something_else(output: torch.Tensor, spec: OutputSpec, labels: LabelSet) -> None:
    with pytest.raises(ModelError):
        read_output(output, BATCH, spec, labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(13, 3), (50, 70), (5, 7), (11, 1)])
def test_class_maps_are_enlarged_to_the_nearest_pixel(dtype: type[np.generic], shape: tuple[int, int]) -> None:
    small = np.random.default_rng(0).integers(0, 200, (5, 7)).astype(dtype)
    expected = np.asarray(Image.fromarray(small.astype(np.int32)).resize(shape[::-1], Image.Resampling.NEAREST))
    tensor = torch.from_numpy(small)
    assert np.array_equal(upsample_class_map(tensor, *shape), expected)
    assert np.array_equal(enlarged_classes(tensor[None], *shape)[0].numpy(), expected)
    assert np.array_equal(enlarge(tensor[None], *shape)[0].numpy(), expected)
    assert upsample_class_map(tensor, *shape).dtype == dtype
