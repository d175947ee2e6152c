"""Find the layers that lose a network's masks in int8, and keep as few of them in fp32 as a limit needs.

One sweep runs each layer alone in int8, all others in fp32, and compares classes and margins with those of fp32: what
it finds is that layer's own doing. Layers are then ordered by damage for the time that fp32 costs, and the shortest
beginning of that order that keeps the limit in fp32 is sought by bisection.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from segcore.core.labels import ClassMap
from segcore.core.record_int8 import Int8Record, LayerRecord
from segcore.core.scores import MEANS, class_scores
from segcore.evaluation.datasets import ScoringOptions, evaluate
from segcore.evaluation.metrics import Totals
from segcore.evaluation.parity import pixel_totals
from segcore.inference.decode import argmax_classes
from segcore.inference.outputs import has_scores
from segcore.inference.pipeline import Segmenter
from segcore.inference.preprocess import Photo
from segcore.inference.runtimes import Int8Source
from segcore.inference.runtimes.int8 import QuantisedNetwork
from segcore.inputs.datasets import Dataset
from segcore.inputs.images import as_rgb_image

AIM = 0.5
"""Share of the limit that a choice may use up on the photos it is made by: it loses more on others."""
SWEEP_PHOTOS = 16
"""Most photos that the sweep runs on."""
SPARED = 6
"""Layers that are tried in int8 again at the end, those that cost most time."""
TRACE = 0.001
"""Loss of a class's IoU that is worth naming."""
CROSSING = 0.02
"""Share of the time in int8 that each layer in fp32 is taken to cost at least: for tensors that go to fp32 and back."""
_SUFFIX = re.compile(r"(/WithoutBiases|_token_\d+|_nchwc)+$")
"""What OpenVINO and onnxruntime add to the name of an operator that they have changed."""


@dataclass(frozen=True)
class Seen:
    """What the network in fp32 says of one photo."""

    input: torch.Tensor
    """(1, C, H, W)."""
    classes: torch.Tensor
    """(h, w)."""
    margins: torch.Tensor | None
    """Between the best class and the next, (h, w); None of a network that returns class maps."""


@dataclass(frozen=True)
class Damage:
    """What a mixture changes in some photos."""

    totals: Totals
    changed: float
    halved: float

    @property
    def losses(self) -> tuple[float, np.ndarray]:
        """1 minus the mean IoU, and 1 minus the IoU of each class; 0 for a class that is nowhere."""
        scores = np.nan_to_num(1 - class_scores(self.totals))
        return float(scores[MEANS.index("miou")]), scores[len(MEANS) :]


class Judge(Protocol):
    """Measures how much worse a mixture is than fp32, which runs at the first call, after the quantisation."""

    name: str
    """What it takes for the truth."""
    photos: int

    def drop(self, segmenter: Segmenter) -> float:
        """Return the drop of the mean IoU."""


class MaskJudge:
    """Judges by the masks of a dataset."""

    def __init__(self, reference: Segmenter, dataset: Dataset) -> None:
        self.name = f"masks of {dataset.name} ({len(dataset)} photos, sha256 {dataset.sha256[:12]})"
        self.photos = len(dataset)
        self._dataset = dataset
        self._reference = reference

    @cached_property
    def _wanted(self) -> float:
        return self._miou(self._reference)

    def drop(self, segmenter: Segmenter) -> float:
        """Return the drop of the mean IoU."""
        return self._wanted - self._miou(segmenter)

    def _miou(self, segmenter: Segmenter) -> float:
        found = evaluate(segmenter, self._dataset, options=ScoringOptions(worst=0, workers=1))
        return found["voc-original"].scores["miou"]


class OwnJudge:
    """Judges by the masks of the same network in fp32."""

    name = "its own masks in fp32"

    def __init__(self, reference: Segmenter, photos: Sequence[Photo]) -> None:
        self.photos = len(photos)
        self._photos = photos
        self._reference = reference

    @cached_property
    def _wanted(self) -> list[ClassMap]:
        return [self._classes(self._reference, photo) for photo in self._photos]

    def drop(self, segmenter: Segmenter) -> float:
        """Return 1 minus the mean IoU."""
        totals = sum(
            pixel_totals(wanted, self._classes(segmenter, photo), len(segmenter.labels))
            for photo, wanted in zip(self._photos, self._wanted, strict=True)
        )
        return float(1 - class_scores(np.asarray(totals))[MEANS.index("miou")])

    @staticmethod
    def _classes(segmenter: Segmenter, photo: Photo) -> ClassMap:
        return np.asarray(argmax_classes(_run(segmenter, _input(segmenter, photo)))[0].numpy())


def find_mixture(
    reference: Segmenter,
    source: Int8Source,
    judge: Judge,
    photos: Sequence[Photo],
    limit: float,
    calibration: str,
    progress: Callable[[str, int, int], None] = lambda step, done, of: None,
) -> Int8Record:
    """Find which layers stay in fp32, and build the network so.

    Args:
        reference: the network in fp32, in the runtime that measures.
        source: the same network, to be quantised.
        judge: measures drops.
        photos: for the sweep, of which it takes `SWEEP_PHOTOS`.
        limit: largest drop of mIoU; a choice aims at `AIM` of it.
        calibration: the photos that the ranges are from, as recorded.
        progress: called with a step, and how much of how much is done.

    Raises:
        DeviceError: the network cannot be quantised, or the runtime runs no files.
    """
    progress("quantising", 0, 1)
    network = source.quantised()
    with tempfile.TemporaryDirectory(prefix="segcore-") as directory:
        mixer = Mixer(reference, network, Path(directory) / f"mixture{source.suffix}")
        search = Search(lambda kept: judge.drop(mixer.mixture(kept)), limit * AIM, progress)
        search.holds(())  # before the sweep, which takes longest, as a truth may be unreadable
        layers = mixer.sweep(seen_by(reference, spread(photos, SWEEP_PHOTOS)), progress)
        kept = search.run(layers)
    record = Int8Record(
        model=reference.model_name,
        weights=reference.weights.sha256,
        runtime=reference.runtime,
        size=reference.size,
        calibration=calibration,
        truth=judge.name,
        limit=limit,
        plain_drop=search.drops[frozenset()],
        drop=search.drops[kept],
        evaluations=len(search.drops),
        layers=tuple(layer.model_copy(update={"kept": layer.name in kept}) for layer in layers),
    )
    source.store(record)
    source.artifact(network)
    return record


class Mixer:
    """Opens mixtures of int8 and fp32, one at a time: each is written to the same file."""

    def __init__(self, reference: Segmenter, network: QuantisedNetwork, path: Path) -> None:
        self.network = network
        self._reference = reference
        self._path = path

    def mixture(self, kept: Iterable[str]) -> Segmenter:
        """Return the network with the named layers in fp32."""
        self.network.write(self._path, frozenset(kept))
        return self._reference.on_file(self._path)

    def sweep(self, seen: Sequence[Seen], progress: Callable[[str, int, int], None]) -> tuple[LayerRecord, ...]:
        """Return what each layer does alone in int8."""
        layers = self.network.layers
        names = {layer.name for layer in layers}
        times = operator_seconds(self.mixture(()), seen[0].input, names)
        in_fp32 = operator_seconds(self._reference, seen[0].input, names)
        total = sum(times.values())
        labels = self._reference.labels
        found = []
        for index, layer in enumerate(layers):
            progress("layers", index, len(layers))
            damage = damage_of(self.mixture(names - {layer.name}), seen)
            loss, by_class = damage.losses
            order = sorted(range(len(labels)), key=lambda c: -by_class[c])
            found.append(
                LayerRecord(
                    name=layer.name,
                    module=layer.module,
                    kind=layer.kind,
                    time=times[layer.name] / total if layer.name in times else None,
                    slower=max(0.0, in_fp32.get(layer.name, 0.0) - times.get(layer.name, 0.0)) / total,
                    changed=damage.changed,
                    halved=damage.halved,
                    damage=loss,
                    classes={labels.names[c]: float(by_class[c]) for c in order if by_class[c] > TRACE},
                )
            )
        return tuple(found)


class Search:
    """Seeks the layers that stay in fp32, and counts what it costs.

    Args:
        drop: measures the drop of mIoU with some layers in fp32.
        aim: the largest that is accepted.
        progress: called before each measurement.
    """

    def __init__(
        self,
        drop: Callable[[frozenset[str]], float],
        aim: float,
        progress: Callable[[str, int, int], None] = lambda step, done, of: None,
    ) -> None:
        self.drops: dict[frozenset[str], float] = {}
        self._drop = drop
        self._aim = aim
        self._progress = progress
        self._expected = 0

    def run(self, layers: Sequence[LayerRecord]) -> frozenset[str]:
        """Return the names of the layers to keep."""
        order = [layer.name for layer in sorted(layers, key=worth, reverse=True)]
        self._expected = len(order).bit_length() + 1 + SPARED
        if self.holds(()):
            return frozenset()
        least, most = 0, len(order)  # fails with the first `least`, holds with the first `most`: all is fp32 itself
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (least, middle) if self.holds(order[:middle]) else (middle, most)
        kept = frozenset(order[:most])
        if most == len(order):
            self.drops.setdefault(kept, 0.0)
        dear = sorted((layer for layer in layers if layer.name in kept), key=lambda layer: layer.slower, reverse=True)
        for layer in dear[:SPARED]:
            if self.holds(kept - {layer.name}):
                kept -= {layer.name}
        return kept

    def holds(self, kept: Iterable[str]) -> bool:
        """Return whether the drop is within the aim."""
        key = frozenset(kept)
        if key not in self.drops:
            self._progress("choosing", len(self.drops), max(self._expected, len(self.drops) + 1))
            self.drops[key] = self._drop(key)
        return self.drops[key] <= self._aim


def worth(layer: LayerRecord) -> float:
    """Return what keeping a layer in fp32 saves for the time that it costs."""
    return (layer.damage + layer.changed + layer.halved) / (layer.slower + CROSSING)


def spread(photos: Sequence[Photo], most: int) -> list[Photo]:
    """Return at most so many of the photos, evenly spread."""
    step = max(1.0, len(photos) / most)
    return [photos[int(index * step)] for index in range(min(most, len(photos)))]


def seen_by(reference: Segmenter, photos: Sequence[Photo]) -> list[Seen]:
    """Return what a network in fp32 says of photos."""
    found = []
    for photo in photos:
        entry = _input(reference, photo)
        output = _run(reference, entry)
        classes = argmax_classes(output)[0]
        found.append(Seen(entry, classes, margins_of(output[0], classes) if has_scores(output) else None))
    return found


def margins_of(scores: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return how far a class is ahead of the best other one, negative if it is behind: (C, h, w), (h, w) to (h, w)."""
    index = classes[None].long()
    own = scores.gather(0, index)[0]
    return own - scores.scatter(0, index, -torch.inf).amax(0)


def damage_of(mixture: Segmenter, seen: Sequence[Seen]) -> Damage:
    """Return what a mixture changes."""
    totals = np.zeros((len(mixture.labels), 3), dtype=np.int64)
    changed = halved = pixels = 0
    for each in seen:
        output = _run(mixture, each.input)
        classes = argmax_classes(output)[0]
        totals += pixel_totals(each.classes.numpy(), classes.numpy(), len(mixture.labels))
        differ = classes != each.classes
        changed += int(differ.sum())
        if each.margins is not None:
            differ |= margins_of(output[0], each.classes) < each.margins / 2
        halved += int(differ.sum())
        pixels += differ.numel()
    return Damage(totals, changed / pixels, halved / pixels)


def operator_seconds(segmenter: Segmenter, entry: torch.Tensor, names: set[str], passes: int = 5) -> dict[str, float]:
    """Return the seconds of each operator that has one of the names, in the fastest of some passes."""
    profiled, session = segmenter.profiled()
    for _ in range(passes + 1):
        _run(profiled, entry)
    best: dict[str, float] = {}
    for operators in session.finish().passes[1:]:
        own: dict[str, float] = {}
        for each in operators:
            name = each.operator if each.operator in names else _SUFFIX.sub("", each.operator)
            own[name] = own.get(name, 0.0) + each.seconds
        best = {name: min(seconds, best.get(name, seconds)) for name, seconds in own.items()}
    return {name: seconds for name, seconds in best.items() if name in names}


def _input(segmenter: Segmenter, photo: Photo) -> torch.Tensor:
    return segmenter.prepare(as_rgb_image(photo))[None]


def _run(segmenter: Segmenter, entry: torch.Tensor) -> torch.Tensor:
    return segmenter.at_own_scale(entry).cpu()
