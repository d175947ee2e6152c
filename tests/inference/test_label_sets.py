"""Models with other classes than VOC's: from logits to class maps, colours, fractions and checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segcore import Segmenter
from segcore.core.errors import ModelError
from segcore.core.labels import ADE20K, CITYSCAPES, VOC, VOC_CLASSES, LabelSet, numbered
from segcore.inference import models
from segcore.inference.decode import argmax_classes, blend, decode_segmap, enlarge, enlarged_classes, upsample_class_map

ROAD = LabelSet("own", ("road", "lane", "curb", "other"), ((9, 8, 7), (0, 255, 0), (0, 0, 255), (3, 3, 3)))
SMALL = "lraspp_mobilenet_v3_large"
PHOTO = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)


class Stripes(nn.Module):
    """Sees class i in columns i modulo the number of classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = torch.arange(x.shape[-1]) % self.classes
        logits = (columns[None] == torch.arange(self.classes)[:, None]).float() * 4
        return logits[None, :, None].expand(len(x), -1, x.shape[-2], -1).contiguous()


@pytest.mark.parametrize(("classes", "dtype"), [(2, np.uint8), (19, np.uint8), (256, np.uint8), (300, np.uint16)])
def test_class_maps_equal_torch_and_grow_where_needed(classes: int, dtype: type) -> None:
    logits = torch.randn(2, classes, 6, 9, generator=torch.Generator().manual_seed(classes))
    logits[0, 0, 0, 0] = float("nan")
    for found, full in (
        (argmax_classes(logits), logits),
        (argmax_classes(logits.double()), logits),
        (enlarged_classes(logits[1:], 11, 20), enlarge(logits[1:], 11, 20)),
        (torch.from_numpy(upsample_class_map(logits[1], 11, 20))[None], enlarge(logits[1:], 11, 20)),
        (torch.from_numpy(upsample_class_map(logits[1], 6, 9))[None], logits[1:]),
    ):
        assert found.numpy().dtype == dtype
        np.testing.assert_array_equal(found.numpy(), full.argmax(dim=1).numpy())


def test_the_last_of_the_most_classes_is_found() -> None:
    logits = torch.zeros(1, 65_535, 1, 2)
    logits[0, 65_534, 0, 1] = 1
    assert argmax_classes(logits).tolist() == [[[0, 65_534]]]


@pytest.mark.parametrize("labels", [ROAD, CITYSCAPES, ADE20K, numbered(300)])
def test_a_network_with_other_classes(labels: LabelSet) -> None:
    segmenter = Segmenter(Stripes(len(labels)), device="cpu", size=16, labels=labels)
    result = segmenter(PHOTO)
    columns = np.arange(24) % len(labels)
    assert segmenter.labels is labels is result.labels
    assert result.class_map.dtype == labels.dtype
    np.testing.assert_array_equal(result.class_map[3], columns)
    np.testing.assert_array_equal(result.colorize(), np.array(labels.colors, np.uint8)[result.class_map])
    np.testing.assert_array_equal(result.model_color_mask, result.colorize())
    assert result.fractions == {labels.names[i]: float((columns == i).mean()) for i in sorted(set(columns.tolist()))}
    assert result.dominant == labels.names[0]  # there is no background
    np.testing.assert_array_equal(result.overlay(1.0), result.colorize())


def test_background_is_neither_dominant_nor_painted() -> None:
    labels = LabelSet("own", ("road", "sky"), background=1)
    result = Segmenter(Stripes(2), device="cpu", size=16, labels=labels)(PHOTO)
    assert result.dominant == "road"
    np.testing.assert_array_equal(result.overlay()[:, 1::2], PHOTO[:, 1::2])
    np.testing.assert_array_equal(result.overlay(1.0)[:, ::2], result.colorize()[:, ::2])
    alone = Segmenter(Stripes(1), device="cpu", size=16, labels=LabelSet("own", ("sky",), background=0))
    assert alone.run([PHOTO], margins=True)[0].dominant == "sky"


def test_classes_that_nobody_named_are_those_of_voc() -> None:
    assert Segmenter(Stripes(21), device="cpu", size=16)(PHOTO).labels is VOC
    segmenter = Segmenter(Stripes(4), device="cpu", size=16)
    with pytest.raises(ModelError, match=r"\(1, 4, 16, 24\) float32 .*, wanted logits \(1, 21, 16, 24\).*pass labels="):
        segmenter(PHOTO)
    with pytest.raises(ModelError, match=r"found|\(1, 4, 16, 24\) float32 .*wanted logits \(1, 19, 16, 24\)"):
        Segmenter(Stripes(4), device="cpu", size=16, labels="cityscapes")(PHOTO)


def test_a_map_is_coloured_by_its_own_labels() -> None:
    class_map = np.array([[0, 3, 255]])
    assert decode_segmap(class_map, ROAD).tolist() == [[[9, 8, 7], [3, 3, 3], [224, 224, 192]]]
    assert decode_segmap(np.array([[299, 65_535]]), numbered(300)).tolist()[0][1] == [224, 224, 192]
    with pytest.raises(ValueError, match=r"holds 0 to 3 or 255, found \[4, 256\]"):
        decode_segmap(class_map + 1, ROAD)
    with pytest.raises(ValueError, match=r"holds 0 to 0, found \[255\]"):
        decode_segmap(np.array([[255]]), LabelSet("own", ("a",), ignore=None))
    assert blend(PHOTO[:1, :1], np.array([[0]], np.uint8), 1.0, ROAD).tolist() == [[[9, 8, 7]]]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_with_other_classes(tmp_path: Path, suffix: str) -> None:
    module = models.build(SMALL, classes=4)
    nn.init.constant_(module.classifier.low_classifier.bias, 3.5)  # type: ignore[arg-type,union-attr]
    path = tmp_path / f"own{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(module.state_dict(), path)
    loaded = models.load(SMALL, path, labels=ROAD)
    assert loaded.labels is ROAD
    assert (loaded.module.state_dict()["classifier.low_classifier.bias"] == 3.5).all()
    with pytest.raises(ModelError, match=r"low_classifier\.weight has 4 classes, wanted 21"):
        models.load(SMALL, path)


@pytest.mark.slow
def test_random_weights_have_the_classes_asked_for() -> None:
    segmenter = Segmenter(SMALL, weights="random", device="cpu", size=32, labels=ROAD)
    assert segmenter(PHOTO).labels is ROAD
    assert models.gmacs(SMALL, 64, 64, classes=4) < models.gmacs(SMALL, 64, 64)


@pytest.mark.parametrize(
    ("name", "weights"), [("embedded", "pretrained"), ("embedded", "random"), (SMALL, "pretrained")]
)
def test_weights_of_other_classes_are_refused(name: str, weights: str) -> None:
    with pytest.raises(ModelError, match="own"):
        models.load(name, weights, labels=ROAD)


def test_names_of_one_s_own_for_a_checkpoint_of_embedded(tmp_path: Path) -> None:
    labels = LabelSet("own", tuple(f"my {name}" for name in VOC_CLASSES))
    torch.save(models.load("embedded").module.state_dict(), tmp_path / "own.pth")
    assert models.load("embedded", tmp_path / "own.pth", labels=labels).labels is labels
