"""Networks whose output is not logits (B, 21, H, W): refused by every runtime and by evaluation, in one line."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import segmentation
from torchvision.models.segmentation.fcn import FCNHead

from segcore import Segmenter
from segcore.core.errors import ModelError
from segcore.core.labels import VOC
from segcore.evaluation.datasets import evaluate
from segcore.inference.decode import check_logits
from segcore.inference.devices import Device
from segcore.inference.runtimes import why_not
from segcore.inputs.datasets import Dataset, open_dataset
from segcore.inputs.download import FetchSettings
from tests.support.networks import TinyNet
from tests.support.pairs import make_voc

Change = Callable[[torch.Tensor], object]

PHOTO = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
WRONG: dict[str, Change] = {
    "4 classes": lambda logits: logits[:, :4],
    "20 classes": lambda logits: logits[:, :20],
    "22 classes": lambda logits: torch.cat([logits, logits[:, :1]], 1),
    "150 classes": lambda logits: logits.repeat(1, 8, 1, 1)[:, :150],
    "one channel": lambda logits: logits[:, :1].sigmoid(),
    "no channel": lambda logits: logits[:, :0],
    "one photo too many": lambda logits: torch.cat([logits, logits]),
    "no batch": lambda logits: logits[0],
    "five dimensions": lambda logits: logits[None],
    "a number": lambda logits: logits.sum(),
    "channels last": lambda logits: logits.permute(0, 2, 3, 1),
    "turned": lambda logits: logits.transpose(2, 3),
    "half the size": lambda logits: logits[..., ::2, ::2],
    "class map": lambda logits: logits.argmax(1),
    "class map with a channel": lambda logits: logits.argmax(1, keepdim=True),
    "class map of bytes": lambda logits: logits.argmax(1).to(torch.uint8),
    "integers": lambda logits: (100 * logits).to(torch.int32),
    "booleans": lambda logits: logits > 0,
    "complex": lambda logits: torch.view_as_complex(logits.float().unsqueeze(-1).repeat(1, 1, 1, 1, 2)),
    "a tuple": lambda logits: (logits, logits),
    "a list": lambda logits: [logits],
    "another key": lambda logits: {"logits": logits},
    "the first of many": lambda logits: {"out": [logits]},
    "nothing": lambda logits: None,
    "NaN": lambda logits: logits * math.nan,
    "one NaN": lambda logits: torch.cat([logits[:, :20], logits[:, 20:] * math.nan], 1),
    "infinity": lambda logits: logits.abs() / 0,
    "minus infinity": lambda logits: -logits.abs() / 0,
}


class Changed(TinyNet):
    """A network that returns something else than logits."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.change(super().forward(x)["out"])  # type: ignore[return-value]  # which is what is wrong with it


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> FetchSettings:
    return FetchSettings(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("voc")
    make_voc(root, 3)
    return open_dataset("voc", root)


def refused(error: pytest.ExceptionInfo[ModelError]) -> bool:
    return "\n" not in str(error.value) and "wanted" in str(error.value)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_logits_is_refused(wrong: str, voc: Dataset) -> None:
    segmenter = Segmenter(Changed(WRONG[wrong]), device="cpu", size=16)
    for use in (
        lambda: segmenter(PHOTO),
        lambda: segmenter([PHOTO, PHOTO]),
        lambda: segmenter.forward(torch.zeros(2, 3, 16, 24)),
        lambda: evaluate(segmenter, voc),
    ):
        with pytest.raises(ModelError) as caught:
            use()
        assert refused(caught)


class Predicting:
    """A model of the user's own that is scored without a `Segmenter`."""

    size = 16
    labels = VOC

    def __init__(self, change: Change) -> None:
        self._inner, self._change = Segmenter(TinyNet(), device="cpu", size=16), change

    def prepare(self, photo: np.ndarray) -> torch.Tensor:
        return self._inner.prepare(photo)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self._change(self._inner.forward(batch))  # type: ignore[return-value]  # which is what is wrong with it


@pytest.mark.parametrize("wrong", WRONG)
def test_a_predictor_of_the_user_s_is_held_to_the_same(wrong: str, voc: Dataset) -> None:
    with pytest.raises(ModelError) as caught:
        evaluate(Predicting(WRONG[wrong]), voc)
    assert refused(caught)


@pytest.mark.slow  # every export takes a second or more
@pytest.mark.parametrize(
    ("runtime", "precision", "wrong"),
    [
        *(("onnxruntime", "fp32", wrong) for wrong in ("4 classes", "no batch", "a number", "class map", "a tuple")),
        ("onnxruntime", "fp32", "NaN"),
        ("openvino", "int8", "4 classes"),  # the same export refuses the others
        ("openvino", "int8", "NaN"),
    ],
)
def test_every_runtime_refuses_it(runtime: str, precision: str, wrong: str, settings: FetchSettings) -> None:
    if reason := why_not(runtime, Device("cpu"), precision):
        pytest.skip(reason)

    def use() -> None:
        segmenter = Segmenter(
            Changed(WRONG[wrong]),
            device="cpu",
            size=16,
            runtime=runtime,
            precision=precision,
            calibration=[PHOTO],
            settings=settings,
        )
        with pytest.raises(ModelError) as caught_in_a_batch:
            segmenter([PHOTO, PHOTO])
        assert refused(caught_in_a_batch)
        segmenter(PHOTO)

    with pytest.raises(ModelError) as caught:
        use()
    assert refused(caught)


@pytest.mark.parametrize("classes", [1, 4, 150])
def test_a_network_of_torchvision_s_with_other_classes_is_refused(classes: int) -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8, padding=1))
    network = segmentation.FCN(Named(backbone), FCNHead(8, classes))
    with pytest.raises(ModelError, match=rf"\(1, {classes}, 2, 3\).*\(1, 21, 16, 24\)"):
        Segmenter(network, device="cpu", size=16)(PHOTO)


class Named(nn.Module):
    """A backbone with the interface of torchvision's."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.layers(x)}


@pytest.mark.parametrize("value", [0.0, -3e38, 3e38, 1e-45])
def test_finite_logits_pass_even_if_their_sum_overflows(value: float) -> None:
    logits = torch.full((1, 21, 4, 4), value)
    assert check_logits(logits, (1, 3, 4, 4)) is logits
    assert check_logits(logits, (1, 3, 16, 16), at_scale=False) is logits
