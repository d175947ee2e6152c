"""What `segcore quantize` found, as a table."""

from __future__ import annotations

from segcore.core.record_int8 import Int8Record, LayerRecord
from segcore.report.table import Cell, Row, Table

NAMED = 3
"""Classes that are named of each layer."""


_DETAILS = ("margin halved %", "classes")


def int8_table(record: Int8Record, most: int | None = None, *, brief: bool = False) -> Table:
    """Return the layers of a network, those that stay in fp32 first and then those that change most.

    Args:
        record: what was found.
        most: how many layers to show of those in int8; all if None.
        brief: without margins and classes, for narrow terminals.
    """
    order = sorted(record.layers, key=lambda layer: (not layer.kept, -layer.changed))
    shown = order if most is None else order[: len(record.kept) + most]
    left_out = len(order) - len(shown)
    drop = f"{record.drop:+.4f}".replace("+", "")
    more = (f"{left_out} more layers in int8 change fewer pixels.",) if left_out else ()
    columns = ("layer", "kind", "time %", "changed %", "margin halved %", "mIoU drop", "classes", "stays in")
    kept = [n for n, name in enumerate(columns) if not (brief and name in _DETAILS)]
    return Table(
        tuple(columns[n] for n in kept),
        tuple(tuple(row[n] for n in kept) for row in map(_row, shown)),
        f"int8 of {record.model}: {len(record.kept)} of {len(record.layers)} layers stay in fp32",
        notes=(
            *more,
            "changed, margin halved, mIoU drop: what the layer does alone in int8, against fp32.",
            f"time: share of the operators' time in int8, {record.runtime}.",
            f"mIoU drop by {record.truth}: {record.plain_drop:.4f} all in int8, {drop} like this; "
            f"limit {record.limit:g}; {record.evaluations} mixtures measured.",
        ),
        formats={
            **dict.fromkeys(("time %", "changed %", "margin halved %"), lambda share: f"{100 * share:.2f}"),
            "mIoU drop": "{:.4f}".format,
        },
    )


def _row(layer: LayerRecord) -> Row:
    named = ", ".join(f"{name} {loss:.3f}" for name, loss in list(layer.classes.items())[:NAMED])
    stays = Cell("fp32", "warn") if layer.kept else Cell("int8")
    name = layer.module or layer.name
    return (name, layer.kind, layer.time, layer.changed, layer.halved, layer.damage, named, stays)
