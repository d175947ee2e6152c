"""The file to ship and its card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from segcore.core.labels import VOC_CLASSES
from training.evaluate import Scores


@dataclass(frozen=True)
class Card:
    """What was done and what came of it: the recipe, how many photos were learned from, and scores by size."""

    recipe: Mapping[str, object]
    photos: int
    scores: Mapping[int, Scores]

    def markdown(self, digest: str) -> str:
        """Return the card as markdown; `digest` is the sha256 of the weights."""
        recipe = ", ".join(f"{name} {value}" for name, value in self.recipe.items())
        lines = ["# Embedded weights", "", f"sha256 `{digest}`", "", f"Recipe: {recipe}; {self.photos} photos.", ""]
        return "\n".join([*lines, scores_table(self.scores), ""])


def scores_table(scores: Mapping[int, Scores]) -> str:
    """Return a markdown table: figures in percent by row, shorter sides by column."""
    rows: dict[str, list[float]] = {
        "**mean of 7** (background, animals, person)": [s.animals_and_people for s in scores.values()],
        "**mean of 21**": [s.mean_iou for s in scores.values()],
        "**pixel accuracy**": [s.pixel_accuracy for s in scores.values()],
    }
    for index, name in enumerate(VOC_CLASSES):
        rows[name] = [s.iou[index] for s in scores.values()]
    head = ["| shorter side | " + " | ".join(map(str, scores)) + " |", "|---|" + "---:|" * len(scores)]
    return "\n".join([*head, *(f"| {name} | {' | '.join(map(percent, values))} |" for name, values in rows.items())])


def percent(share: float) -> str:
    """Return a share in percent with one decimal, a dash for NaN."""
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def write_release(net: nn.Module, path: Path, card: Card) -> str:
    """Write the weights in half precision and the card beside them; return the sha256 of the weights."""
    state = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in net.state_dict().items()}
    content = save(state)
    digest = sha256(content).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.with_suffix(".md").write_text(card.markdown(digest))
    return digest
