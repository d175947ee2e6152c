"""Networks of other libraries: SegFormer of transformers, U-Nets of segmentation-models-pytorch, seeded weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from segcore import Segmenter
from segcore.core.errors import ModelError
from segcore.core.labels import ADE20K, CITYSCAPES
from segcore.inference.models.sources import describe
from segcore.inference.preprocess import InputTransform
from segcore.inputs.hugging_face import describe_directory
from segcore.inputs.model_files import read_model_file

transformers = pytest.importorskip("transformers")

RNG = np.random.default_rng(11)
SIZES = [(int(h), int(w)) for h, w in RNG.integers(17, 700, (18, 2))] + [(1, 33), (900, 7)]


def noise(shape: tuple[int, int]) -> np.ndarray:
    small = RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC))


def segformer(
    directory: Path, names: dict[int, str] | int, processor: str = "SegformerImageProcessor", **keys: Any
) -> Path:
    """Write a small SegFormer with seeded weights, and its processor."""
    labels = {"id2label": names} if isinstance(names, dict) else {"num_labels": names}
    config = transformers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=32, **labels
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = transformers.SegformerForSemanticSegmentation(config)
    network.save_pretrained(directory)
    getattr(transformers, processor)(**keys).save_pretrained(directory)
    return directory


PROCESSORS: list[dict[str, Any]] = [
    {"do_reduce_labels": True, "size": {"height": 128, "width": 160}},
    {"do_reduce_labels": False, "size": {"height": 96, "width": 96}, "resample": 3},
    {"do_reduce_labels": True, "size": {"shortest_edge": 64}},
    {"do_normalize": False, "size": {"height": 64, "width": 64}},
    {"do_rescale": False, "do_normalize": False, "size": {"height": 64, "width": 64}},
    {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 1 / 128, "size": {"height": 64, "width": 64}},
    {"do_resize": False},
]


@pytest.mark.slow
@pytest.mark.parametrize("keys", PROCESSORS)
@pytest.mark.parametrize("backend", ["", "Pil"])
def test_inputs_are_those_of_the_processor(tmp_path: Path, keys: dict[str, Any], backend: str) -> None:
    name = f"SegformerImageProcessor{backend}"
    if not hasattr(transformers, name):
        pytest.skip(f"this transformers has no {name}")
    segformer(tmp_path, 3, name, **keys)
    processor = getattr(transformers, name).from_pretrained(tmp_path)
    spec = describe_directory(tmp_path)
    file = tmp_path / "model.yaml"  # the directory itself does not say with which of the two it is used
    file.write_text("source: {transformers: .}\n" + ("input: {resizer: pillow}\n" if backend else ""))
    transform = InputTransform(describe(read_model_file(file)).input)
    for shape in SIZES:
        photo = noise(shape)
        wanted = processor(Image.fromarray(photo), return_tensors="pt")["pixel_values"][0].float()
        found = transform(photo, 320)
        assert found.shape == wanted.shape, shape
        tolerance = 1e-6 if keys.get("do_rescale", True) else 0
        assert float((found - wanted).abs().max()) <= tolerance, shape
    assert ("reduce_labels" in spec.assumptions) == bool(keys.get("do_reduce_labels"))


NAMES = {
    19: dict(enumerate(CITYSCAPES.names)),
    150: dict(enumerate(ADE20K.names)),
}


@pytest.mark.slow
@pytest.mark.parametrize("classes", [19, 150])
@pytest.mark.parametrize("reduce", [True, False])
def test_masks_are_those_of_the_processor(tmp_path: Path, classes: int, reduce: bool) -> None:
    segformer(tmp_path, NAMES[classes], do_reduce_labels=reduce, size={"height": 128, "width": 160})
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(tmp_path).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    segmenter = Segmenter(str(tmp_path), device="cpu")
    assert segmenter.labels.names == tuple(NAMES[classes].values())
    for shape in SIZES[:: 1 if classes == 19 else 3]:
        photo = noise(shape)
        with torch.inference_mode():
            output = network(**processor(Image.fromarray(photo), return_tensors="pt"))
        wanted = processor.post_process_semantic_segmentation(output, target_sizes=[shape])[0].numpy()
        found = segmenter(photo).class_map
        resized = F.interpolate(output.logits, shape, mode="bilinear", align_corners=False)[0]
        first, second = resized.topk(2, dim=0).values
        tied = (first - second < 1e-6 * resized.abs().max()).numpy()  # rounding decides
        assert np.array_equal(found[~tied], wanted[~tied]), shape
        assert tied.mean() < 1e-3


@pytest.mark.parametrize(
    ("config", "processor", "words"),
    [
        ({"architectures": ["Mask2FormerForUniversalSegmentation"]}, {}, "Mask2FormerForUniversalSegmentation"),
        ({}, {"do_center_crop": True}, "do_center_crop"),
        ({}, {"do_pad": True, "do_thumbnail": True}, "do_pad, do_thumbnail"),
        ({}, {"size": {"longest_edge": 3}}, "longest_edge"),
        ({}, {"resample": 9}, "found 9"),
        ({}, {"image_mean": [1, 2]}, "2 numbers"),
        ({"id2label": {"0": "a", "2": "b"}}, {}, "gaps"),
        ({"id2label": {"x": "a"}}, {}, "id2label"),
        ([], {}, "wanted a mapping"),
    ],
)
def test_what_a_directory_cannot_have(tmp_path: Path, config: Any, processor: Any, words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(ModelError, match=words):
        describe_directory(tmp_path)


def test_labels_are_read_or_said_to_be_unknown(tmp_path: Path) -> None:
    config = {"id2label": {"0": "Background", "1": "door", "2": "door"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = describe_directory(tmp_path)
    assert found.labels is not None
    assert (found.labels.names, found.labels.background) == (("Background", "door", "door 2"), 0)
    assert list(found.assumptions) == ["input"]
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_flip_channel_order": True, "size": 256}))
    found = describe_directory(tmp_path)
    assert found.labels is not None
    assert (found.labels.names, found.input["colour"]) == (("class 0", "class 1"), "bgr")
    assert "labels" in found.assumptions


@pytest.mark.slow
def test_missing_weights_are_not_invented(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    segformer(tmp_path, 3)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("decode_head.classifier.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing .*decode_head\.classifier\.weight"):
        Segmenter(str(tmp_path), device="cpu")


def unet(classes: int) -> torch.nn.Module:
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: torch.nn.Module = smp.Unet("resnet18", encoder_weights=None, classes=classes)
    return network.eval()


UNET = """
source:
  python: segmentation_models_pytorch:Unet
  arguments: {{encoder_name: resnet18, encoder_weights: null, classes: {classes}}}
labels: {labels}
input: {{multiple_of: 32, colour: bgr, fill: [9, 8, 7]}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 4, 19])
def test_a_unet_is_padded_and_its_padding_undone(tmp_path: Path, classes: int) -> None:
    network = unet(classes)
    names = "cityscapes" if classes == 19 else ["background", *(f"part {i}" for i in range(1, max(2, classes)))]
    file = tmp_path / "unet.yaml"
    file.write_text(UNET.format(classes=classes, labels=json.dumps(names)))
    segmenter = Segmenter(str(file), size=64, device="cpu")
    for shape in [(70, 100), (64, 96), (101, 67)]:
        photo = noise(shape)
        frame = segmenter.place(photo).frame
        height, width = frame.content
        resized = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR))
        padded = np.empty((-(-height // 32) * 32, -(-width // 32) * 32, 3), dtype=np.uint8)
        padded[:] = (9, 8, 7)
        padded[:height, :width] = resized
        values = (torch.from_numpy(padded).float() / 255)[..., [2, 1, 0]]
        batch = ((values - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])).permute(2, 0, 1)
        with torch.inference_mode():
            logits = network(batch[None].contiguous())[..., :height, :width]
            logits = torch.cat([torch.zeros_like(logits), logits], 1) if classes == 1 else logits
            full = F.interpolate(logits, shape, mode="bilinear", align_corners=False)
        result = segmenter.run([photo], margins=True)[0]
        assert np.array_equal(result.model_class_map, logits.argmax(1)[0].numpy())
        assert (result.class_map == full.argmax(1)[0].numpy()).mean() > 0.9999  # ties within rounding
        assert result.margins is not None
        assert result.margins.shape == (height, width)
        assert result.input_shape == (1, 3, *padded.shape[:2])
