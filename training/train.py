"""Train the embedded network on a VOC root: `python -m training.train --voc-root VOC2012`.

Seeded and resumable: every batch is a function of `(seed, step)` alone, so that a run that was killed and started
again ends in exactly the weights of one that was not.
"""

from __future__ import annotations

import io
import logging
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from segcore import Segmenter, evaluate, open_dataset
from segcore.core.errors import ModelError, SegcoreError
from segcore.core.files import write_file
from segcore.core.labels import IGNORE_INDEX, NUM_CLASSES
from segcore.inference.allocator import keep_freed_memory
from segcore.inference.embedded.net import SHALLOW, EmbeddedNet, Features, enlarge
from segcore.inputs.datasets import Dataset
from training.data import Batch, Batches, Photo, TeacherLogits, hold_out, load_photos
from training.initial import BACKBONE_PACKAGE, build
from training.presence import fit_presence
from training.recipe import EARLY, Recipe, late_of, tail_of
from training.release import write_weights
from training.teacher import DeepLabTflite, teacher_logits

SHARDS: Final = 2
"""Parts of a batch that are computed in parallel, each by one thread: faster on two cores than two threads for each
operation, and the sums are the same to the bit under any load.
"""
SCORED_SIZE: Final = 320
"""Shorter side at which held-out photos are scored, pixels."""

LOG = logging.getLogger("segcore.train")


def dice_loss(probabilities: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return one minus the soft Dice score, averaged over the classes in the batch (arXiv 1606.04797)."""
    flat = probabilities.movedim(1, -1)[valid]
    truth = F.one_hot(target[valid], NUM_CLASSES).to(flat.dtype)
    both, total = (flat * truth).sum(0), flat.sum(0) + truth.sum(0)
    seen = truth.sum(0) > 0
    return 1 - (2 * both[seen] / total[seen]).mean()


def loss_of(net: EmbeddedNet, imagenet: Features, batch: Batch, recipe: Recipe) -> Tensor:
    """Return cross-entropy plus `recipe.dice` times the Dice loss, at the positions of the logits: every fourth pixel.

    With a teacher, `recipe.trust` of the cross-entropy is with its probabilities, the rest with the class map. If
    animals were recoloured, the deep features are trained as well, with one more loss: the distance of their output
    from that of ImageNet's on the plain images (arXiv 1606.09282).
    """
    images, classes, teacher, plain = batch
    target = classes[:, 2::4, 2::4].long()
    change = torch.zeros(())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # not trained, so half precision is enough
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
    """Return AdamW for the trained parameters, with weight decay for filters only."""
    trained = [p for p in net.parameters() if p.requires_grad]
    filters = {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay}
    biases = {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0}
    return torch.optim.AdamW([filters, biases], lr=recipe.rate, fused=True)


class Training:
    """A run: network, moving average of its weights, optimiser and the number of steps done.

    The features stay those of ImageNet, the deep ones close to them: trained freely on a few thousand photos, they
    would generalise worse to others.
    """

    def __init__(
        self, recipe: Recipe, photos: list[Photo], backbone: str | None, teacher_logits: TeacherLogits | None = None
    ) -> None:
        self.recipe = recipe
        self.batches = Batches(photos, recipe.seed, teacher_logits)
        self.net = build(recipe.seed, self.batches.batch(0, recipe.augmentation(0)).images, backbone)
        self.average = deepcopy(self.net).requires_grad_(False)
        self.before = self.average
        """Copy of `average` at the start of the tail."""
        self.imagenet = deepcopy(self.net.features)
        self._new_optimiser()
        self.step = 0
        self._loader = ThreadPoolExecutor(1)
        self._workers = ThreadPoolExecutor(SHARDS)
        self._ahead: tuple[int, Future[Batch]] | None = None

    def _new_optimiser(self) -> None:
        self.trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimiser = optimiser(self.net, self.recipe)

    def _begin_tail(self) -> None:
        self.before = deepcopy(self.average)
        self.net.features.stages[SHALLOW:].requires_grad_(True)
        self._new_optimiser()

    def advance(self) -> float:
        """Run one step and return its loss."""
        if self.step == self.recipe.steps:
            self._begin_tail()
        batch = self._batch()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(self.step)
        parts = (repeat(None) if part is None else part.chunk(SHARDS) for part in batch)
        done = list(self._workers.map(self._gradients, map(Batch._make, zip(*parts, strict=False))))
        for parameter, *gradients in zip(self.trained, *(found for _, found in done), strict=True):
            parameter.grad = torch.stack(gradients).mean(0)
        nn.utils.clip_grad_norm_(self.trained, 2.0)
        self.optimiser.step()
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mine.lerp_(theirs, 1 - keep)
        self.step += 1
        return sum(loss for loss, _ in done) / len(done)

    def _gradients(self, batch: Batch) -> tuple[float, tuple[Tensor, ...]]:
        """Return the loss of a part of a batch and its gradients, in the order of `trained`."""
        batch = batch._replace(images=batch.images.to(memory_format=torch.channels_last))
        loss = loss_of(self.net, self.imagenet, batch, self.recipe)
        return float(loss.detach()), torch.autograd.grad(loss, self.trained)

    def _batch(self) -> Batch:
        """Return the batch of this step, and start preparing the next."""
        if self._ahead is None or self._ahead[0] != self.step:
            self._ahead = (self.step, self._prepare(self.step))
        batch = self._ahead[1].result()
        self._ahead = (self.step + 1, self._prepare(self.step + 1))
        return batch

    def _prepare(self, step: int) -> Future[Batch]:
        return self._loader.submit(self.batches.batch, step, self.recipe.augmentation(step))

    def save(self, path: Path) -> None:
        """Write a checkpoint to resume from."""
        state = {
            "step": self.step,
            "seed": self.recipe.seed,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "before": self.before.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_file(path, content.getvalue())

    def load(self, path: Path) -> None:
        """Resume from a checkpoint.

        Raises:
            ModelError: the checkpoint is of a run with another seed.
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
        """Return the moving average, blended with that before the tail, as a network in evaluation mode."""
        net = deepcopy(self.before)
        with torch.no_grad():
            for mine, last in zip(net.parameters(), self.average.parameters(), strict=True):
                mine.lerp_(last, self.recipe.blend)
        return net.eval()


@dataclass(frozen=True)
class Checkpoints:
    """When a run saves and scores its weights; neither changes them."""

    directory: Path
    save_every: int = 100
    score_every: int = 400


def run(
    training: Training, held_out: Dataset | None, checkpoints: Checkpoints, progress: Callable[[float], None]
) -> None:
    """Run the remaining steps, from the checkpoint in the directory if there is one.

    `progress` is called with the smoothed loss after each step.
    """
    path = checkpoints.directory / "checkpoint.pt"
    if path.exists():
        training.load(path)
        LOG.info("resuming from step %d", training.step)
    smooth: float | None = None
    while training.step < training.recipe.end:
        loss = training.advance()
        smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
        progress(smooth)
        last = training.step == training.recipe.end
        if training.step % checkpoints.save_every == 0 or last:
            training.save(path)
            LOG.info("step %d loss %.4f", training.step, smooth)
        if held_out and (training.step % checkpoints.score_every == 0 or last):
            segmenter = Segmenter(training.result(), device="cpu", size=SCORED_SIZE)
            scores = evaluate(segmenter, held_out)["voc-original"].scores
            figures = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            LOG.info("step %d held out: %s", training.step, figures)


@click.command(context_settings={"show_default": True})
@click.option(
    "--voc-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Directory with ImageSets, JPEGImages and SegmentationClass.",
)
@click.option(
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("embedded-training"),
    help="Directory of checkpoints, from which a killed run resumes.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("embedded.safetensors"),
    help="Weights file to write.",
)
@click.option("--steps", type=click.IntRange(1), default=Recipe.steps)
@click.option("--decay", type=click.FloatRange(0, 1), default=Recipe.decay, help="Share of steps with a falling rate.")
@click.option("--tail", type=click.IntRange(0), default=Recipe.tail, help="Further steps, for the deep features too.")
@click.option("--batch", type=click.IntRange(1), default=EARLY.batch)
@click.option("--crop", type=click.IntRange(64), default=EARLY.crop, help="Of the early steps, pixels.")
@click.option("--seed", type=click.IntRange(0), default=Recipe.seed)
@click.option("--save-every", type=click.IntRange(1), default=Checkpoints.save_every, help="Steps between checkpoints.")
@click.option(
    "--held-out", type=click.IntRange(0), default=150, help="Training photos held out, to score during training."
)
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
    save_every: int,
    held_out: int,
    teacher: Path | None,
    backbone_weights: str,
    batch: int,
    crop: int,
    **options: Any,
) -> None:
    """Train the embedded network and write its weights file."""
    keep_freed_memory()
    torch.set_num_threads(1)  # for each operation: see SHARDS
    console = Console(stderr=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console)])
    early = replace(EARLY, batch=batch, crop=crop)
    late = late_of(early)
    recipe = Recipe(early=early, late=late, last=tail_of(late), **options)
    try:
        dataset, held = hold_out(open_dataset("voc", voc_root, "train"), held_out)
        photos = load_photos(dataset)
        LOG.info("%d photos to learn from, %d held out; %s", len(photos), len(held), recipe)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bars:
            logits = None
            if teacher is not None:
                shown = bars.track(photos, description="running the teacher")
                logits = np.stack(list(teacher_logits(DeepLabTflite(teacher), shown)))
            training = Training(recipe, photos, None if backbone_weights == "none" else backbone_weights, logits)
            task = bars.add_task("training", total=recipe.end)

            def progress(loss: float) -> None:
                bars.update(task, completed=training.step, description=f"loss {loss:.3f}")

            run(training, held, Checkpoints(workspace, save_every), progress)
            net = training.result()
            fit_presence(net, bars.track(photos, description="fitting the classes that photos show"))
        digest = write_weights(net, output, asdict(recipe) | {"photos": len(photos)})
    except SegcoreError as error:
        raise click.ClickException(str(error)) from error
    LOG.info("wrote %s; its WEIGHTS_SHA256 is %s", output, digest)
    LOG.info("score it: segcore evaluate --dataset voc --root %s --weights %s --size %d", voc_root, output, SCORED_SIZE)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
