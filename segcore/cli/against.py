"""``segcore evaluate --against``: judge scores image by image while they come, and stop once that is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from segcore.core.errors import RecordError, UsageError
from segcore.core.labels import LabelSet
from segcore.core.limits import Limits
from segcore.core.records import BenchmarkRecord, LabelsRef, Run
from segcore.core.text import listed
from segcore.evaluation.protocols import PROTOCOLS, choose
from segcore.evaluation.tally import class_pixels
from segcore.judgement.gate.images import (
    ImageVerdicts,
    error_at,
    has_counts,
    judge_pairs,
    look_sizes,
    unjudged_note,
)
from segcore.judgement.gate.verdict import EXIT_CODES, GateResult, Row
from segcore.judgement.paired_accuracy import ImageCounts, image_differences, pairs_of
from segcore.results.store import load_run

if TYPE_CHECKING:
    from segcore.evaluation.scoring import ImageScore
    from segcore.inference.pipeline import Segmenter
    from segcore.inputs.datasets import Dataset


@dataclass
class Against:
    """The scores of one run, held against those of another image by image."""

    baseline: Run
    items: dict[str, BenchmarkRecord]
    """Of the baseline, by protocol."""
    limits: Limits
    """On the drop, where an item has none."""
    dataset: Dataset
    """The images, in the order of the looks."""
    labels: LabelSet
    """The classes of both runs."""
    scores: dict[str, ImageScore] = field(default_factory=dict)
    looked: int = 0
    """Images at the latest look."""
    verdicts: dict[str, ImageVerdicts] = field(default_factory=dict)
    """At the latest look, by protocol."""

    def enough(self, score: ImageScore) -> bool:
        """Take a score in; return whether the verdict is clear, whatever the images still to come."""
        self.scores[score.name] = score
        due = [size for size in look_sizes(len(self.dataset)) if size > self.looked]
        if not due or any(name not in self.scores for name in self.dataset.names[: due[0]]):
            return False
        self.looked = due[0]
        self.verdicts = {protocol: self._look(protocol) for protocol in self.items}
        codes = {EXIT_CODES[row.verdict] for verdicts in self.verdicts.values() for row in verdicts.rows}
        return 1 in codes or codes == {0}

    def _look(self, protocol: str) -> ImageVerdicts:
        item = self.items[protocol]
        assert item.dataset
        scale, before = PROTOCOLS[protocol].scale, item.dataset.counts
        scored = [self.scores[name] for name in self.dataset.names[: self.looked]]
        after: dict[str, ImageCounts] = {
            s.name: class_pixels(s.counts[scale], self.labels, self.dataset.judged) for s in scored if s.error is None
        }
        before = {name: before[name] for name in after}
        if differences := image_differences(before, after):
            return ImageVerdicts((Row(item.key, "item", "incomparable", "; ".join(differences)),))
        pairs = pairs_of(tuple(after), before, after, per_image=PROTOCOLS[protocol].per_image)
        error = error_at(self.looked, len(self.dataset))
        return judge_pairs(item.key, pairs, item.limits.over(self.limits), error)

    def result(self, current: Run) -> GateResult:
        """Return the verdicts of the latest look."""
        rows = tuple(row for verdicts in self.verdicts.values() for row in verdicts.rows)
        early = f"decided after {self.looked} of {len(self.dataset)} images, the others were not scored"
        notes = (
            *([early] if self.looked < len(self.dataset) else []),
            *unjudged_note(tuple(self.verdicts.values())),
        )
        return GateResult(self.baseline.name, current.name, rows, notes)


def against(
    path: Path, out: Path, dataset: Dataset, protocols: Sequence[str], segmenter: Segmenter, limits: Limits
) -> Against:
    """Return what holds the scores of a model, to be written to `out`, against those in the run file `path`.

    Raises:
        RecordError: that run lacks a protocol or an image, has other classes, or read its masks in another way.
        UsageError: it would be replaced.
    """
    baseline, labels = load_run(path), segmenter.labels
    if out.exists() and out.samefile(path):
        raise UsageError(f"--out {out}: this is the baseline, which would be replaced; choose another --out")
    items = {protocol.name: _item(baseline, dataset, protocol.name) for protocol in choose(protocols, segmenter.size)}
    for item in items.values():
        if item.labels.sha256 != labels.digest:
            found = f"its labels are {item.labels}, those of the model {LabelsRef.of(labels)}"
            raise RecordError(f"{baseline.path}: {found}: figures of different classes are not comparable")
    return Against(baseline, items, limits, dataset.shuffled(), labels)


def _item(baseline: Run, dataset: Dataset, protocol: str) -> BenchmarkRecord:
    found = [
        benchmark.info
        for benchmark in baseline.benchmarks
        if benchmark.info.dataset
        and (benchmark.info.dataset.name, benchmark.info.dataset.protocol) == (dataset.name, protocol)
    ]
    if not found or found[0].dataset is None:
        raise RecordError(
            f"{baseline.path}: no scores of {dataset.name} under {protocol}; record them with the same options"
        )
    if (found[0].dataset.label_map, found[0].dataset.masks) != (dataset.map_in_file, dataset.masks):
        raise RecordError(
            f"{baseline.path}: its masks of {dataset.name} were read with another --map, --masks or --labels; score it "
            "again with the same"
        )
    if not has_counts(found[0]):
        raise RecordError(f"{baseline.path}: no counts of single images, as of older versions; record it again")
    absent = [name for name in dataset.names if name not in found[0].dataset.counts]
    if absent:
        raise RecordError(
            f"{baseline.path}: {len(absent)} of {len(dataset)} images are not in it: {listed(absent, 3)}; "
            "score the same images (--split, --limit)"
        )
    return found[0]
