"""How numbers and items are written in every report."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from segcore.core.records import BenchmarkRecord, thread_words
from segcore.judgement.gate.verdict import Unit
from segcore.judgement.statistics import Interval


def number(value: float) -> str:
    """Return three significant digits without exponents: ``0.123``, ``12.3``, ``1,234``; ``n/a`` for NaN."""
    if math.isnan(value):
        return "n/a"
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 9)}f}"


def milliseconds(seconds: float) -> str:
    """Return seconds as ``12.3 ms``."""
    return f"{number(seconds * 1e3)} ms"


def score_words(name: str) -> str:
    """Return a score of a dataset as people write it: ``pixel accuracy``, ``mIoU``, ``IoU cat``."""
    return name.replace("_", " ").replace("iou", "IoU")


MAX_LABEL = 40
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]+")


def plain_text(text: str) -> str:
    """Return text without what controls terminals, lines, the direction of writing, or is no character at all."""
    return _CONTROLS.sub(" ", text)


def md_text(text: str) -> str:
    """Return text for a markdown paragraph or table cell: no markup, HTML, mention, reference or link survives."""
    flat = re.sub(r"\s+", " ", plain_text(text))
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = re.sub(r"([\\`*_{}\[\]()!|~$])", r"\\\1", flat)
    return re.sub(r"(?<=[@#])(?=\w)|(?<=://)(?=\w)|(?<=www)(?=\.)", "<!-- -->", flat)


def value_words(value: float | None, unit: Unit) -> str:
    """Return a value with its unit, nothing where there is none."""
    if value is None:
        return ""
    if unit == "share":
        return f"{100 * value:.2f} %"
    return f"{number(value)} {unit}".rstrip()


def change_words(change: Interval | None, unit: Unit) -> str:
    """Return a change with its interval in percent, or in percentage points where the values are shares."""
    if change is None:
        return ""
    sign = "pp" if unit == "share" else "%"
    middle = f"{100 * change.value:+.1f} {sign}"
    if change.low == change.high:
        return middle
    return f"{middle} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"


def short_labels(infos: Sequence[BenchmarkRecord], without: Sequence[str] = ()) -> list[str]:
    """Return a label per item, made of the properties in which the items differ, model first.

    Args:
        infos: the items shown together.
        without: properties to leave out: ``case``, ``model``, ``runtime``, ``precision``, ``device``, ``size``,
            ``threads``, ``batch``.
    """
    parts = [_parts(info) for info in infos]
    varying = [name for name in _PARTS if name not in without and len({part[name] for part in parts}) > 1]
    return shortened([" ".join(filter(None, (part[name] for name in varying or ["model"]))) for part in parts])


def shortened(labels: Sequence[str], most: int = MAX_LABEL) -> list[str]:
    """Return labels of at most about `most` characters: the same for the same, different for different ones."""
    found: dict[str, str] = {}
    for label in labels:
        clean = plain_text(label)
        short = clean if len(clean) <= most else f"{clean[: most - 1]}…"
        same = sum(other == short or other.startswith(f"{short} #") for other in found.values())
        found.setdefault(label, f"{short} #{same + 1}" if same else short)
    return [found[label] for label in labels]


_PARTS = ("model", "case", "runtime", "precision", "device", "size", "threads", "batch")


def model_name(info: BenchmarkRecord) -> str:
    """Return the model's name, with the kind of its weights unless they are the pretrained ones."""
    return info.model if info.weights.kind == "pretrained" else f"{info.model} ({info.weights.kind})"


def _parts(info: BenchmarkRecord) -> dict[str, str]:
    return {
        "model": model_name(info),
        "case": info.case,
        "runtime": info.runtime,
        "precision": info.precision,
        "device": info.device,
        "size": f"@{info.size}",
        "threads": thread_words(info),
        "batch": f"batch {info.batch}" if info.kind == "throughput" else "",
    }
