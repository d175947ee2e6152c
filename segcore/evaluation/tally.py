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

from segcore.core.labels import NUM_CLASSES, VOC_CLASSES
from segcore.core.records import MAX_COUNTED, ClassPixels
from segcore.core.scores import SCORES, Floats
from segcore.evaluation.metrics import class_counts, scores
from segcore.evaluation.protocols import Scale, ScoringProtocol
from segcore.evaluation.scoring import COUNT_CELLS, Counts, ImageScore, split_counts

REPLICATES = 1000
CONFIDENCE = 0.95
_ONE = 1 << 40
"""Scores of single images are summed as integers in units of 2**-40, so that their sum does not depend on the order."""


class Sums:
    """Running sums of one protocol, and of its bootstrap replicates."""

    def __init__(self, protocol: ScoringProtocol) -> None:
        self.protocol = protocol
        cells = 2 * len(SCORES) if protocol.per_image else COUNT_CELLS
        self._total = np.zeros(cells, dtype=np.int64)
        self._replicates = np.zeros((cells, REPLICATES), dtype=np.int64)

    def add(self, counts: Counts, weights: npt.NDArray[np.int64]) -> None:
        """Add the counts of one image, int64 (504,), with its weight in each replicate, int64 (1000,)."""
        row = _fixed_point(scores(*split_counts(counts))) if self.protocol.per_image else counts
        cells = np.flatnonzero(row)  # an image has a few classes, hence a few of the 504 cells
        self._total[cells] += row[cells]
        self._replicates[cells] += row[cells, None] * weights

    def scores(self) -> Floats:
        """Return the current figures, float64 (27,), in the order of `SCORES`."""
        return self._scores(self._total)

    def intervals(self) -> Floats:
        """Return the lower and upper ends of the percentile intervals, float64 (2, 27); NaN where undefined."""
        replicates = self._scores(self._replicates.T)
        ends = np.full((2, len(SCORES)), np.nan)
        known = ~np.isnan(replicates).all(axis=0)
        tail = 100 * (1 - CONFIDENCE) / 2
        ends[:, known] = np.nanpercentile(replicates[:, known], [tail, 100 - tail], axis=0)
        return ends

    def matrix(self) -> tuple[tuple[int, ...], ...] | None:
        """Return the confusion matrix as rows of integers, or None if the figures are means over images."""
        if self.protocol.per_image:
            return None
        return tuple(tuple(row) for row in split_counts(self._total)[0].tolist())

    def _scores(self, rows: npt.NDArray[np.int64]) -> Floats:
        if not self.protocol.per_image:
            return scores(*split_counts(rows))
        sums, images = rows[..., : len(SCORES)], rows[..., len(SCORES) :]
        return np.where(images > 0, sums / np.maximum(images, 1) / _ONE, np.nan)


def _fixed_point(values: Floats) -> npt.NDArray[np.int64]:
    known = ~np.isnan(values)
    return np.concatenate([np.rint(np.where(known, values, 0) * _ONE), known]).astype(np.int64)


class Tally:
    """Sums, failures and worst images of an evaluation.

    Args:
        protocols: at least one; progress shows the figures of the first, and its scale ranks the images.
        worst: number of worst images to keep.
    """

    def __init__(self, protocols: Sequence[ScoringProtocol], worst: int) -> None:
        self.sums = tuple(Sums(protocol) for protocol in protocols)
        self.names: set[str] = set()
        """Of all images, scored or failed."""
        self.images = 0
        self.forward_s = 0.0
        self._predicted = np.zeros(NUM_CLASSES, dtype=np.int64)
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
                counts[score.name] = class_pixels(score.counts[scale])
        matrix, boundary = split_counts(score.counts[self.sums[0].protocol.scale])
        self._predicted += matrix.sum(axis=0)
        miou = float(scores(matrix, boundary)[SCORES.index("miou")])
        if not np.isnan(miou):
            self.worst = sorted([*self.worst, (miou, score.name)])[: self._keep]

    def counts_at(self, scale: Scale) -> dict[str, dict[str, ClassPixels]]:
        """Return the counts of each image by name, in order; none if there were more than `MAX_COUNTED` images."""
        return dict(sorted(self._counts[scale].items())) if self.images <= MAX_COUNTED else {}

    def fractions(self) -> dict[str, float]:
        """Return shares of the scored pixels by predicted class, largest first, at the scale of the first protocol."""
        shares = self._predicted / max(1, self._predicted.sum())
        return {VOC_CLASSES[i]: float(shares[i]) for i in np.argsort(-shares, kind="stable") if shares[i] > 0}

    @property
    def running_miou(self) -> float:
        """Running mIoU of the first protocol over the images so far; NaN before the first image."""
        return float(self.sums[0].scores()[SCORES.index("miou")])


def class_pixels(counts: Counts) -> dict[str, ClassPixels]:
    """Return the counts of one image, int64 (504,), by class that is in its mask, its prediction or a contour."""
    matrix, boundary = split_counts(counts)
    rows = np.concatenate([class_counts(matrix), boundary], axis=-1)
    present = np.flatnonzero(rows.any(axis=-1))
    return {VOC_CLASSES[label]: tuple(rows[label].tolist()) for label in present}
