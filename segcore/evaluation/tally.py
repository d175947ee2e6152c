"""Sums over the images of a dataset with confidence intervals, and the counts of each image by class.

Intervals are those of the Poisson bootstrap (Hanley and MacGibbon 2006; Chamandy et al. 2012, "Estimating Uncertainty
for Massive Data Streams"): in each replicate an image counts k times, k drawn from Poisson(1), which for many images
approaches the ordinary bootstrap without keeping the images. The draws depend on the image's name alone and all sums
are of integers, so neither the order of images nor the machine that scored them changes a digit.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segcore.core.labels import VOC, LabelSet
from segcore.core.records import MAX_COUNTED, ClassPixels
from segcore.core.scores import MEANS, Floats, class_scores, score_names
from segcore.evaluation.metrics import MATRIX_CLASSES
from segcore.evaluation.protocols import Scale, ScoringProtocol
from segcore.evaluation.scoring import Counts, ImageScore, count_cells, split_counts, split_totals

REPLICATES = 1000
CONFIDENCE = 0.95
_ONE = 1 << 40
"""Scores of single images are summed as integers in units of 2**-40, so that their sum does not depend on the order."""


class Sums:
    """Running sums of one protocol, and of its bootstrap replicates."""

    def __init__(self, protocol: ScoringProtocol, labels: LabelSet = VOC, judged: frozenset[int] | None = None) -> None:
        self.protocol = protocol
        self._labels = labels
        self._judged = judged
        self._figures = len(score_names(labels.names))
        shape = (2, self._figures) if protocol.per_image else (2, len(labels), 3)
        self._total = np.zeros(shape, dtype=np.int64)
        self._replicates: dict[int, npt.NDArray[np.int64]] = {}
        """By number of the cell, of those that an image has had: few, if there are many classes."""
        self._counts = np.zeros(count_cells(labels), dtype=np.int64)

    def add(self, counts: Counts, weights: npt.NDArray[np.int64]) -> None:
        """Add the counts of one image, int64 (`count_cells`,), with its weight in each replicate, int64 (1000,)."""
        self._counts += counts
        parts = split_totals(counts, self._labels, self._judged)
        row = _fixed_point(class_scores(*parts)) if self.protocol.per_image else np.stack(parts)
        self._total += row
        for cell in np.flatnonzero(row).tolist():  # an image has a few of the classes
            self._replicates[cell] = self._replicates.get(cell, 0) + row.flat[cell] * weights

    def scores(self) -> Floats:
        """Return the current figures, float64 (n + 6,), in the order of `score_names`."""
        return self._scores(self._total.ravel())

    def intervals(self) -> Floats:
        """Return the lower and upper ends of the percentile intervals, float64 (2, n + 6); NaN where undefined."""
        means, per_image = len(MEANS), self.protocol.per_image
        cells = np.arange(self._total.size).reshape(self._total.shape)
        classes = np.arange(len(self._labels))
        if len(classes) > MATRIX_CLASSES:  # of so many, most are in no image
            seen = np.isin(cells, list(self._replicates))
            classes = classes[seen[1, means:] if per_image else seen.any(axis=(0, 2))]
        figures = np.concatenate([np.arange(means), means + classes])
        nothing = np.zeros(REPLICATES, dtype=np.int64)
        used = cells[:, figures if per_image else classes].ravel().tolist()
        sums = np.array([self._replicates.get(cell, nothing) for cell in used], dtype=np.int64).reshape(-1, REPLICATES)
        replicates = self._scores(sums.T)
        ends = np.full((2, self._figures), np.nan)
        known = ~np.isnan(replicates).all(axis=0)
        tail = 100 * (1 - CONFIDENCE) / 2
        ends[:, figures[known]] = np.nanpercentile(replicates[:, known], [tail, 100 - tail], axis=0)
        return ends

    def matrix(self) -> tuple[tuple[int, ...], ...] | None:
        """Return the confusion matrix as rows of integers; None for means over images, and for too many classes."""
        if self.protocol.per_image or len(self._labels) > MATRIX_CLASSES:
            return None
        return tuple(tuple(row) for row in split_counts(self._counts, self._labels)[0].tolist())

    def _scores(self, rows: npt.NDArray[np.int64]) -> Floats:
        if not self.protocol.per_image:
            parts = rows.reshape(*rows.shape[:-1], 2, -1, 3)
            return class_scores(parts[..., 0, :, :], parts[..., 1, :, :])
        sums, images = np.split(rows, 2, axis=-1)
        return np.where(images > 0, sums / np.maximum(images, 1) / _ONE, np.nan)


def _fixed_point(values: Floats) -> npt.NDArray[np.int64]:
    known = ~np.isnan(values)
    return np.stack([np.rint(np.where(known, values, 0) * _ONE), known]).astype(np.int64)


class Tally:
    """Sums, failures and worst images of an evaluation.

    Progress shows the figures of the first protocol, and its scale ranks the images. `judged` are the indices of the
    classes that a mask can have; None for all.
    """

    def __init__(
        self,
        protocols: Sequence[ScoringProtocol],
        worst: int,
        labels: LabelSet = VOC,
        judged: frozenset[int] | None = None,
    ) -> None:
        self.labels = labels
        self._judged = judged
        self.sums = tuple(Sums(protocol, labels, judged) for protocol in protocols)
        self.names: set[str] = set()
        """Of all images, scored or failed."""
        self.images = 0
        self.forward_s = 0.0
        self._predicted = np.zeros(len(labels), dtype=np.int64)
        self.failed: dict[str, str] = {}
        self.worst: list[tuple[float, str]] = []
        """mIoU and name of the worst images, lowest first; images without a scored pixel are left out."""
        self._keep = worst
        self._counts: dict[Scale, dict[str, dict[str, ClassPixels]]] = {sums.protocol.scale: {} for sums in self.sums}

    @property
    def seen(self) -> int:
        """Number of images scored or failed."""
        return self.images + len(self.failed)

    def add(self, score: ImageScore) -> None:
        """Add one image, or one failure."""
        self.names.add(score.name)
        if score.error is not None:
            self.failed[score.name] = score.error
            return
        self.images += 1
        self.forward_s += score.forward_s
        weights = np.random.default_rng(zlib.crc32(score.name.encode(errors="surrogatepass"))).poisson(1, REPLICATES)
        for sums in self.sums:
            sums.add(score.counts[sums.protocol.scale], weights)
        if self.images <= MAX_COUNTED:
            for scale, counts in self._counts.items():
                counts[score.name] = class_pixels(score.counts[scale], self.labels, self._judged)
        row = score.counts[self.sums[0].protocol.scale]
        self._predicted += split_totals(row, self.labels)[0][:, 2]
        miou = float(class_scores(*split_totals(row, self.labels, self._judged))[MEANS.index("miou")])
        if not np.isnan(miou):
            self.worst = sorted([*self.worst, (miou, score.name)])[: self._keep]

    def counts_at(self, scale: Scale) -> dict[str, dict[str, ClassPixels]]:
        """Return the counts of each image by name, in order; none if there were more than `MAX_COUNTED` images."""
        return dict(sorted(self._counts[scale].items())) if self.images <= MAX_COUNTED else {}

    def fractions(self) -> dict[str, float]:
        """Return shares of the scored pixels by predicted class, largest first, at the scale of the first protocol."""
        shares = self._predicted / max(1, self._predicted.sum())
        return {self.labels.names[i]: float(shares[i]) for i in np.argsort(-shares, kind="stable") if shares[i] > 0}

    @property
    def running_miou(self) -> float:
        """Running mIoU of the first protocol over the images so far; NaN before the first image."""
        return float(self.sums[0].scores()[MEANS.index("miou")])


def class_pixels(counts: Counts, labels: LabelSet, judged: frozenset[int] | None = None) -> dict[str, ClassPixels]:
    """Return the counts of one image, int64 (`count_cells`,), by class in its mask, its prediction or a contour."""
    rows = np.concatenate(split_totals(counts, labels, judged), axis=-1)
    present = np.flatnonzero(rows.any(axis=-1))
    return {labels.names[index]: tuple(rows[index].tolist()) for index in present}
