"""Train the embedded network on a VOC root: `python -m training.train --voc-root VOC2012`.

Seeded and resumable: every batch is a function of `(seed, step)` alone, so that a run that was killed and started
again ends in exactly the weights of one that was not.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Final

import click
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from segcore.core.errors import ModelError, SegcoreError
from segcore.core.labels import IGNORE_INDEX, NUM_CLASSES
from segcore.inference.allocator import keep_freed_memory
from segcore.inference.embedded.net import SHALLOW, EmbeddedNet, Features, enlarge
from training.card import Card, write_release
from training.data import Augmentation, Batch, Batches, Photo, TeacherLogits, hold_out, load_photos
from training.evaluate import SIZES, evaluate
from training.initial import BACKBONE_PACKAGE, build
from training.presence import fit_presence
from training.teacher import DeepLabTflite, teacher_logits

SHARDS: Final = 2
"""Parts of a batch that are computed side by side, each by one thread: quicker on two cores than two threads for each
operation, and the sums come out the same to the bit whatever else the machine does.
"""

LOG = logging.getLogger("segcore.train")


def late_of(early: Augmentation) -> Augmentation:
    """What follows small crops: two thirds as many, a quarter larger, of photos nearer to their own size."""
    low, high = early.scales
    return Augmentation(max(1, early.batch * 2 // 3), early.crop * 9 // 7 // 32 * 32, (low * 1.3, high * 0.95))


def tail_of(late: Augmentation) -> Augmentation:
    """What comes last: animals of any colour, while ImageNet's features see them in their own, and from nearer."""
    return replace(late, recolour=0.75, closer=1.5)


EARLY: Final = Augmentation(batch=12, crop=224, scales=(0.5, 1.6))
LATE: Final = late_of(EARLY)
LAST: Final = tail_of(LATE)


@dataclass(frozen=True)
class Recipe:
    """Everything, beside the photos, that decides the weights.

    Small crops first, which teach what things are; then larger ones at scales nearer to what the network will
    see, while the rate falls to nothing. In the tail the deep features learn as well.
    """

    steps: int = 7500
    """Those in which the head alone learns."""
    decay: float = 0.5
    """Share of the steps in which the rate falls."""
    tail: int = 900
    warmup: int = 150
    early: Augmentation = EARLY
    late: Augmentation = LATE
    last: Augmentation = LAST
    rate: float = 1.5e-3
    tail_rate: float = 3e-4
    keep: float = 2.0
    """Weight, in the tail, of what tells ImageNet's classes staying as it was."""
    blend: float = 0.9
    """Share of the weights after the tail in the result; the rest is those before it (arXiv 2109.01903)."""
    weight_decay: float = 0.01
    dice: float = 0.5
    trust: float = 0.5
    """Share of the cross-entropy that is with the teacher, if there is one."""
    ema: float = 0.99
    seed: int = 2012

    @property
    def decay_from(self) -> int:
        """The first step of the decay."""
        return self.steps - round(self.steps * self.decay)

    @property
    def end(self) -> int:
        """The number of all steps."""
        return self.steps + self.tail

    def rate_at(self, step: int) -> float:
        """The learning rate: linear warm-up, constant, 1-sqrt decay (arXiv 2405.18392); in the tail another decay."""

        def decay(start: int, end: int) -> float:
            return 1.0 - math.sqrt((step - start + 1) / (end - start + 1))

        if step < self.decay_from:
            return self.rate * min(1.0, (step + 1) / max(1, self.warmup))
        if step < self.steps:
            return self.rate * decay(self.decay_from, self.steps)
        return self.tail_rate * decay(self.steps, self.end)

    def augmentation(self, step: int) -> Augmentation:
        """How the batch of `step` is drawn."""
        return self.early if step < self.decay_from else self.late if step < self.steps else self.last


def dice_loss(probabilities: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """One minus the soft Dice score, averaged over the classes to be seen in the batch (arXiv 1606.04797)."""
    flat = probabilities.movedim(1, -1)[valid]
    truth = F.one_hot(target[valid], NUM_CLASSES).to(flat.dtype)
    both, total = (flat * truth).sum(0), flat.sum(0) + truth.sum(0)
    seen = truth.sum(0) > 0
    return 1 - (2 * both[seen] / total[seen]).mean()


def loss_of(net: EmbeddedNet, imagenet: Features, batch: Batch, recipe: Recipe) -> Tensor:
    """Cross-entropy plus `recipe.dice` times the Dice loss, where the logits are: at every fourth pixel.

    Where there is a teacher, `recipe.trust` of the cross-entropy is with what it sees, the rest with the class map.
    Where animals were recoloured, the deep features learn as well, and there is one loss more: how far what they see
    is from what ImageNet's saw before (arXiv 1606.09282).
    """
    images, classes, teacher, plain = batch
    target = classes[:, 2::4, 2::4].long()
    change = torch.zeros(())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # nothing to learn there, so half precision will do
        at4, at8, at16 = (m.float() for m in net.features.shallow(images))
        if plain is None:
            at32 = net.features.deep(at16).float()
        else:
            *_, before = imagenet(plain.to(memory_format=torch.channels_last))
    if plain is not None:
        at32 = net.features.deep(at16)
        seen = enlarge(net.presence.seen(before.float()), at32)
        change = F.mse_loss(net.presence.seen(at32), seen) / seen.square().mean()
    log_p = net.head(at4, at8, at16, at32).log_softmax(1)
    valid = target != IGNORE_INDEX
    entropy = F.nll_loss(log_p, target, ignore_index=IGNORE_INDEX, reduction="none")
    if teacher is not None:
        trust = recipe.trust * teacher.sum(1)
        entropy = (1 - trust) * entropy - recipe.trust * (teacher * log_p).sum(1) * valid
    return entropy.sum() / valid.sum() + recipe.dice * dice_loss(log_p.exp(), target, valid) + recipe.keep * change


def optimiser(net: EmbeddedNet, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW for what is learned, with weight decay for filters only."""
    learned = [p for p in net.parameters() if p.requires_grad]
    filters = {"params": [p for p in learned if p.ndim > 1], "weight_decay": recipe.weight_decay}
    biases = {"params": [p for p in learned if p.ndim == 1], "weight_decay": 0.0}
    return torch.optim.AdamW([filters, biases], lr=recipe.rate, fused=True)


class Training:
    """A run: network, moving average of its weights, optimiser and the number of steps done.

    The features stay as ImageNet made them, the deep ones near to that: trained freely on a few thousand photos, they
    would forget what other photos show.
    """

    def __init__(
        self, recipe: Recipe, photos: list[Photo], backbone: str | None, teacher_logits: TeacherLogits | None = None
    ) -> None:
        self.recipe = recipe
        self.batches = Batches(photos, recipe.seed, teacher_logits)
        self.net = build(recipe.seed, self.batches.batch(0, recipe.augmentation(0)).images, backbone)
        self.average = deepcopy(self.net).requires_grad_(False)
        self.before = self.average
        """What `average` was at the start of the tail."""
        self.imagenet = deepcopy(self.net.features)
        self._learn()
        self.step = 0
        self._loader = ThreadPoolExecutor(1)
        self._workers = ThreadPoolExecutor(SHARDS)
        self._ahead: tuple[int, Future[Batch]] | None = None

    def _learn(self) -> None:
        """Start with a new optimiser for all that is to be learned from now on."""
        self.learned = [p for p in self.net.parameters() if p.requires_grad]
        self.optimiser = optimiser(self.net, self.recipe)

    def _begin_tail(self) -> None:
        self.before = deepcopy(self.average)
        self.net.features.stages[SHALLOW:].requires_grad_(True)
        self._learn()

    def advance(self) -> float:
        """Do one step and return its loss."""
        if self.step == self.recipe.steps:
            self._begin_tail()
        batch = self._batch()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(self.step)
        parts = (repeat(None) if part is None else part.chunk(SHARDS) for part in batch)
        done = list(self._workers.map(self._gradients, map(Batch._make, zip(*parts, strict=False))))
        for parameter, *gradients in zip(self.learned, *(found for _, found in done), strict=True):
            parameter.grad = torch.stack(gradients).mean(0)
        nn.utils.clip_grad_norm_(self.learned, 2.0)
        self.optimiser.step()
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mine.lerp_(theirs, 1 - keep)
        self.step += 1
        return sum(loss for loss, _ in done) / len(done)

    def _gradients(self, batch: Batch) -> tuple[float, tuple[Tensor, ...]]:
        """Loss of a part of a batch and its gradients, in the order of `learned`."""
        batch = batch._replace(images=batch.images.to(memory_format=torch.channels_last))
        loss = loss_of(self.net, self.imagenet, batch, self.recipe)
        return float(loss.detach()), torch.autograd.grad(loss, self.learned)

    def _batch(self) -> Batch:
        """The batch of this step; the next one is prepared meanwhile."""
        if self._ahead is None or self._ahead[0] != self.step:
            self._ahead = (self.step, self._prepare(self.step))
        batch = self._ahead[1].result()
        self._ahead = (self.step + 1, self._prepare(self.step + 1))
        return batch

    def _prepare(self, step: int) -> Future[Batch]:
        return self._loader.submit(self.batches.batch, step, self.recipe.augmentation(step))

    def save(self, path: Path) -> None:
        """Write all that is needed to go on beside the target, then move it there."""
        state = {
            "step": self.step,
            "seed": self.recipe.seed,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "before": self.before.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            ModelError: it was written by a run with another seed.
        """
        state = torch.load(path, weights_only=True)
        if state.get("seed", self.recipe.seed) != self.recipe.seed:
            raise ModelError(
                f"{path} belongs to a run with seed {state['seed']}, not {self.recipe.seed}; choose another workspace"
            )
        self.step = state["step"]
        if self.step > self.recipe.steps:
            self._begin_tail()
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.before.load_state_dict(state["before"])
        self.optimiser.load_state_dict(state["optimiser"])

    def result(self) -> EmbeddedNet:
        """Return the moving average, blended with that from before the tail, as a network in evaluation mode."""
        net = deepcopy(self.before)
        with torch.no_grad():
            for mine, last in zip(net.parameters(), self.average.parameters(), strict=True):
                mine.lerp_(last, self.recipe.blend)
        return net.eval()


@dataclass(frozen=True)
class Upkeep:
    """What happens beside the steps of a run; none of it changes the weights."""

    workspace: Path
    save_every: int = 100
    score_every: int = 400


def run(training: Training, held_out: list[Photo], upkeep: Upkeep, tell: Callable[[float], None]) -> None:
    """Do the steps that are left, going on from the checkpoint in the workspace if there is one.

    `tell` is called with the smoothed loss after each step.
    """
    checkpoint = upkeep.workspace / "checkpoint.pt"
    upkeep.workspace.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        training.load(checkpoint)
        LOG.info("going on from step %d", training.step)
    smooth: float | None = None
    while training.step < training.recipe.end:
        loss = training.advance()
        smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
        tell(smooth)
        last = training.step == training.recipe.end
        if training.step % upkeep.save_every == 0 or last:
            training.save(checkpoint)
            LOG.info("step %d loss %.4f", training.step, smooth)
        if held_out and (training.step % upkeep.score_every == 0 or last):
            LOG.info("step %d held out: %s", training.step, evaluate(training.result(), held_out, SIZES[0]).line())


@click.command(context_settings={"show_default": True})
@click.option(
    "--voc-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with ImageSets, JPEGImages and SegmentationClass.",
)
@click.option(
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("embedded-training"),
    help="Where checkpoints are kept; a run that was killed goes on from there.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("embedded.safetensors"),
    help="The file to ship; its card is written beside it (.md).",
)
@click.option("--steps", type=click.IntRange(1), default=Recipe.steps)
@click.option("--decay", type=click.FloatRange(0, 1), default=Recipe.decay, help="Share of steps with a falling rate.")
@click.option("--tail", type=click.IntRange(0), default=Recipe.tail, help="Steps after that for the deep features too.")
@click.option("--batch", type=click.IntRange(1), default=Recipe.early.batch)
@click.option("--crop", type=click.IntRange(64), default=Recipe.early.crop, help="Of the early steps, pixels.")
@click.option("--seed", type=click.IntRange(0), default=Recipe.seed)
@click.option("--held-out", type=click.IntRange(0), default=150, help="Training photos kept aside, for choices.")
@click.option(
    "--teacher",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Learn from deeplabv3_257_mv_gpu.tflite as well.",
)
@click.option("--backbone-weights", default=BACKBONE_PACKAGE, help="Package with ImageNet weights, or 'none'.")
def main(
    voc_root: Path,
    workspace: Path,
    output: Path,
    steps: int,
    decay: float,
    tail: int,
    batch: int,
    crop: int,
    seed: int,
    held_out: int,
    teacher: Path | None,
    backbone_weights: str,
) -> None:
    """Train the embedded network, write the file to ship and score it on the val photos of the VOC root."""
    keep_freed_memory()
    torch.set_num_threads(1)  # for each operation: see SHARDS
    console = Console(stderr=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console)])
    early = replace(EARLY, batch=batch, crop=crop)
    late = late_of(early)
    recipe = Recipe(steps=steps, decay=decay, tail=tail, early=early, late=late, last=tail_of(late), seed=seed)
    try:
        photos, aside = hold_out(load_photos(voc_root, "train"), held_out)
        LOG.info("%d photos to learn from, %d held out; %s", len(photos), len(aside), recipe)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            seen = None
            if teacher is not None:
                asked = progress.track(photos, description="asking the teacher")
                seen = np.stack(list(teacher_logits(DeepLabTflite(teacher), asked)))
            training = Training(recipe, photos, None if backbone_weights == "none" else backbone_weights, seen)
            task = progress.add_task("training", total=recipe.end)
            run(
                training,
                aside,
                Upkeep(workspace),
                lambda loss: progress.update(task, completed=training.step, description=f"loss {loss:.3f}"),
            )
            net = training.result()
            fit_presence(net, progress.track(photos, description="which classes photos show"))
        scores = {size: evaluate(net, load_photos(voc_root, "val"), size) for size in SIZES}
        digest = write_release(net, output, Card(asdict(recipe), len(photos), scores))
    except SegcoreError as error:
        raise click.ClickException(str(error)) from error
    LOG.info("wrote %s; its WEIGHTS_SHA256 is %s", output, digest)


if __name__ == "__main__":
    main()
