"""Training photos in memory, and batches of them that depend on `(seed, step)` alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax
from torch import Tensor

from segcore.core.labels import IGNORE_INDEX, NUM_CLASSES, VOC_CLASSES
from segcore.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD
from segcore.inputs.datasets import Dataset

Bytes = NDArray[np.uint8]

FILL: Final = (124, 116, 104)
"""Mean colour, for pixels outside a photo."""

LUMA: Final = np.array((0.299, 0.587, 0.114), np.float32)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""

RECOLOURED: Final = tuple(VOC_CLASSES.index(name) for name in ("bird", "cat", "cow", "dog", "horse", "sheep"))
"""Classes of animals, which come in many colours."""

COMMON: Final = 0.1
"""Share of photos below which a class is rare; photos with one are drawn more often (arXiv 1908.03195, app. B)."""

LOGITS_STRIDE: Final = 4
MAX_REPEAT: Final = 4.0
PASTE_PROBABILITY: Final = 0.4


@dataclass(frozen=True)
class Photo:
    """An RGB photo `(H, W, 3)` and its class map `(H, W)`, both uint8; 255 in the map is ignored."""

    name: str
    pixels: Bytes
    classes: Bytes


TeacherLogits = NDArray[np.float16]
"""A teacher's logits `[P, h, w, 21]` for P photos; the corners of its grid lie on those of the photo."""

TEMPERATURE: Final = 2.0
"""Divisor of a teacher's logits before the softmax (arXiv 1503.02531)."""


@dataclass(frozen=True)
class Piece:
    """A box `(left, top, right, bottom)` in pixels around one class in one photo."""

    photo: int
    label: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Augmentation:
    """How a batch is drawn: `batch` crops of `crop` pixels square, photos scaled by a factor from `scales`.

    In each crop, each class of animals is recoloured with the probability `recolour`; `Batch.plain`, without that, is
    `closer` times as large.
    """

    batch: int
    crop: int
    scales: tuple[float, float]
    recolour: float = 0.0
    closer: float = 1.0


def load_photos(dataset: Dataset) -> list[Photo]:
    """Decode every photo and class map of a dataset, in its order."""
    return [Photo(name, *dataset.load(index)) for index, name in enumerate(dataset.names)]


def hold_out(dataset: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """Split off `count` photos by the digest of their names: `(the rest, those held out)`, each in order."""
    held = set(sorted(dataset.names, key=lambda name: sha256(name.encode()).hexdigest())[:count])
    rest, out = ([name for name in dataset.names if (name in held) is wanted] for wanted in (False, True))
    return replace(dataset, names=tuple(rest)), replace(dataset, names=tuple(out))


def photo_weights(photos: list[Photo]) -> NDArray[np.float64]:
    """Return the probability of each photo: with a rare class up to `MAX_REPEAT` times as high; they sum to 1."""
    shown = np.array([np.bincount(p.classes.ravel(), minlength=256)[:NUM_CLASSES] > 0 for p in photos])
    share = np.maximum(shown.mean(axis=0), 1e-9)
    repeat = np.clip(np.sqrt(COMMON / share), 1.0, MAX_REPEAT)
    weights: NDArray[np.float64] = np.where(shown, repeat, 1.0).max(axis=1)
    return np.asarray(weights / weights.sum())


def pieces(photos: list[Photo]) -> list[list[Piece]]:
    """Return what can be pasted into other photos: by class, the boxes of objects of at least 1 % of their photo."""
    found: dict[int, list[Piece]] = {}
    for index, photo in enumerate(photos):
        for label in np.flatnonzero(np.bincount(photo.classes.ravel(), minlength=256)[1:NUM_CLASSES]) + 1:
            rows, columns = np.nonzero(photo.classes == label)
            if rows.size >= 0.01 * photo.classes.size:
                box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
                found.setdefault(int(label), []).append(Piece(index, int(label), box))
    return [found[label] for label in sorted(found)]


class Batch(NamedTuple):
    """Images `[B, 3, crop, crop]` float32, normalised; class maps `[B, crop, crop]` uint8; a teacher's probabilities.

    These are `[B, 21, crop / 4, crop / 4]` float32, all 0 where the image was changed. `plain` are the images before
    animals were recoloured, if they were, `Augmentation.closer` times as large.
    """

    images: Tensor
    classes: Tensor
    teacher: Tensor | None
    plain: Tensor | None = None


class Sample(NamedTuple):
    """One of a batch: image `(crop, crop, 3)`, the same before recolouring, class map, a teacher's probabilities."""

    image: Bytes
    plain: Bytes | None
    labels: Bytes
    teacher: NDArray[np.float32] | None


class Batches:
    """Augmented batches of photos in memory; `batch(step, how)` is a pure function of its arguments and the seed."""

    def __init__(self, photos: list[Photo], seed: int, teacher_logits: TeacherLogits | None = None) -> None:
        self.photos = photos
        self.seed = seed
        self.teacher_logits = teacher_logits
        self.weights = photo_weights(photos)
        self.pieces = pieces(photos)
        rarity = np.array([len(found) for found in self.pieces]) ** -0.5
        self.piece_weights = rarity / max(rarity.sum(), 1e-9)

    def batch(self, step: int, how: Augmentation) -> Batch:
        """Return the batch of a step."""
        rng = np.random.default_rng((self.seed, step))
        chosen = rng.choice(len(self.photos), how.batch, p=self.weights)
        drawn = [self._sample(int(index), rng, how) for index in chosen]
        views = [[sample.image for sample in drawn], [sample.plain for sample in drawn if sample.plain is not None]]
        pixels = torch.from_numpy(np.stack([np.stack(view) for view in views if view])).permute(0, 1, 4, 2, 3)
        images, *plain = normalise(jitter(pixels.float() / 255, rng))
        if how.closer != 1:
            images = F.interpolate(images, size=(how.crop, how.crop), mode="bilinear", antialias=True)
        classes = torch.from_numpy(np.stack([sample.labels for sample in drawn]))
        soft = [sample.teacher for sample in drawn if sample.teacher is not None]
        teacher = torch.from_numpy(np.stack(soft)).permute(0, 3, 1, 2) if soft else None
        return Batch(images, classes, teacher, *plain)

    def _sample(self, index: int, rng: np.random.Generator, how: Augmentation) -> Sample:
        large = round(how.crop * how.closer)
        low, high = how.scales
        scales = (low * how.closer, high * how.closer)
        image, labels, where = random_crop(self.photos[index], rng, replace(how, crop=large, scales=scales))
        rows = ((np.arange(how.crop) + 0.5) * how.closer).astype(int)
        grid = np.ix_(rows, rows)
        teacher: NDArray[np.float32] | None = None
        if self.teacher_logits is not None:
            logits = resample(self.teacher_logits[index], where, how.crop // LOGITS_STRIDE)
            teacher = softmax(logits / TEMPERATURE, axis=-1)
        unseen = np.zeros(labels.shape, bool)
        if self.pieces and rng.random() < PASTE_PROBABILITY:
            unseen = self._paste(image, labels, rng)
        if rng.random() < 0.5:
            image, labels, unseen = image[:, ::-1], labels[:, ::-1], unseen[:, ::-1]
            teacher = None if teacher is None else teacher[:, ::-1].copy()
        plain = None
        if how.recolour:
            plain, image = image, recolour(image, labels, how.recolour, rng)
            unseen = unseen | (image != plain).any(-1)
        if teacher is not None:
            teacher[at_logits(unseen[grid])] = 0.0
        return Sample(image, plain, labels[grid], teacher)

    def _paste(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Paste an object from another photo into this one (arXiv 2012.07177); return its mask."""
        options = self.pieces[rng.choice(len(self.pieces), p=self.piece_weights)]
        piece = options[rng.integers(len(options))]
        source, (left, top, right, bottom) = self.photos[piece.photo], piece.box
        side = labels.shape[0]
        factor = side * rng.uniform(0.3, 0.9) / max(right - left, bottom - top)
        size = (max(4, round((right - left) * factor)), max(4, round((bottom - top) * factor)))
        object_ = Image.fromarray(source.pixels).resize(size, Image.Resampling.BILINEAR, box=piece.box)
        shape = Image.fromarray(source.classes).resize(size, Image.Resampling.NEAREST, box=piece.box)
        mask, patch = np.asarray(shape) == piece.label, np.asarray(object_)
        if rng.random() < 0.5:
            mask, patch = mask[:, ::-1], patch[:, ::-1]
        y, x = rng.integers(side - size[1] + 1), rng.integers(side - size[0] + 1)
        window = np.s_[y : y + size[1], x : x + size[0]]
        image[window][mask] = patch[mask]
        labels[window][mask] = piece.label
        pasted = np.zeros(labels.shape, bool)
        pasted[window] = mask
        return pasted


Where = tuple[float, float, float, float]
"""Left, top, right and bottom of a crop, as shares of its photo's width and height; it may extend beyond the photo."""


def random_crop(photo: Photo, rng: np.random.Generator, how: Augmentation) -> tuple[Bytes, Bytes, Where]:
    """Return a square of `how.crop` pixels from the photo, scaled at random; `FILL` and 255 outside the photo."""
    height, width = photo.classes.shape
    factor = float(np.exp(rng.uniform(*np.log(how.scales))))
    stretch = float(np.exp(rng.uniform(-0.15, 0.15)))
    scale_x, scale_y = factor * stretch, factor / stretch
    box_w, box_h = min(width, how.crop / scale_x), min(height, how.crop / scale_y)
    left, top = rng.uniform(0, width - box_w), rng.uniform(0, height - box_h)
    box = (left, top, left + box_w, top + box_h)
    size = (min(how.crop, max(1, round(box_w * scale_x))), min(how.crop, max(1, round(box_h * scale_y))))
    image = np.full((how.crop, how.crop, 3), FILL, np.uint8)
    labels = np.full((how.crop, how.crop), IGNORE_INDEX, np.uint8)
    y, x = rng.integers(how.crop - size[1] + 1), rng.integers(how.crop - size[0] + 1)
    window = np.s_[y : y + size[1], x : x + size[0]]
    image[window] = np.asarray(Image.fromarray(photo.pixels).resize(size, Image.Resampling.BILINEAR, box=box))
    labels[window] = np.asarray(Image.fromarray(photo.classes).resize(size, Image.Resampling.NEAREST, box=box))
    x0, y0 = left - x * box_w / size[0], top - y * box_h / size[1]
    x1, y1 = x0 + how.crop * box_w / size[0], y0 + how.crop * box_h / size[1]
    return image, labels, (x0 / width, y0 / height, x1 / width, y1 / height)


def at_logits(image: NDArray[Any]) -> NDArray[Any]:
    """Return the pixels of `[H, W, ...]` nearest to the positions of the network's logits, `[H/4, W/4, ...]`."""
    return image[LOGITS_STRIDE // 2 :: LOGITS_STRIDE, LOGITS_STRIDE // 2 :: LOGITS_STRIDE]


def resample(grid: NDArray[np.floating[Any]], where: Where, side: int) -> NDArray[np.float32]:
    """Sample a grid `[h, w, C]` (corners aligned) bilinearly in the part `where` of its photo: `[side, side, C]`."""

    def weights(start: float, stop: float, count: int) -> NDArray[np.float32]:
        positions = (start + (np.arange(side) + 0.5) / side * (stop - start)).clip(0, 1) * (count - 1)
        near: NDArray[np.float32] = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(count))).astype(np.float32)
        return near

    left, top, right, bottom = where
    rows, columns = weights(top, bottom, grid.shape[0]), weights(left, right, grid.shape[1])
    samples: NDArray[np.float32] = np.tensordot(rows, np.einsum("xw,hwc->hxc", columns, grid.astype(np.float32)), 1)
    return samples


def recolour(image: Bytes, labels: Bytes, probability: float, rng: np.random.Generator) -> Bytes:
    """Recolour animals: paler, and of any brightness; shades keep their order.

    Each class is changed with `probability`, all of its pixels alike.
    """
    image = image.copy()
    for label in RECOLOURED:
        mask = labels == label
        if not mask.any() or rng.random() >= probability:
            continue
        coat = image[mask].astype(np.float32) / 255
        grey = (coat @ LUMA)[:, None]
        coat = np.clip(grey + (coat - grey) * np.float32(rng.uniform(0, 1)), 1e-3, 1)
        gamma = np.log(rng.uniform(0.12, 0.92)) / np.log(np.clip(coat.mean(), 0.02, 0.98))
        image[mask] = (255 * coat ** np.float32(gamma)).astype(np.uint8)
    return image


def jitter(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation of each image in `[0, 1]` by up to 30 %; a tenth become grey.

    `[V, B, 3, H, W]`: the V views of an image are changed alike.
    """
    shape = (images.shape[1], 1, 1, 1)
    brightness, contrast, saturation = (
        torch.from_numpy(rng.uniform(0.7, 1.3, shape).astype(np.float32)) for _ in range(3)
    )
    saturation = saturation * torch.from_numpy((rng.random(shape) >= 0.1).astype(np.float32))
    grey = (images * torch.from_numpy(LUMA).view(3, 1, 1)).sum(-3, keepdim=True)
    images = torch.lerp(grey.expand_as(images), images, saturation)
    images = torch.lerp(grey.mean((-2, -1), keepdim=True).expand_as(images), images, contrast)
    return (images * brightness).clamp_(0, 1)


def normalise(images: Tensor) -> Tensor:
    """Normalise `[..., 3, H, W]` in `[0, 1]` with the ImageNet mean and standard deviation."""
    return (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
