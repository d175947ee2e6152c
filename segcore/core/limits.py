"""The limits of one item: how much worse it may become before the gate fails.

Case files set limits by model, device, runtime and so on. Those of an item are recorded in the run file for the gate.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_serializer

T = TypeVar("T")
PERCENTILE = r"^p[1-9][0-9]?(\.[0-9]+)?$"


def _median_too(schema: dict[str, Any]) -> None:
    """Allow a number instead of a mapping from percentiles in the JSON Schema."""
    numbers = schema.pop("patternProperties")
    mapping = {key: schema.pop(key) for key in ("type", "minProperties")}
    schema["anyOf"] = [*numbers.values(), {**mapping, "patternProperties": numbers, "additionalProperties": False}]


_ByPercentile = Annotated[
    dict[Annotated[str, Field(pattern=PERCENTILE)], T],
    Field(min_length=1),
    BeforeValidator(lambda value: value if isinstance(value, dict) else {"p50": value}),
    Field(json_schema_extra=_median_too),
]
_Amount = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]

_MINIMA = ("min_throughput",)
Figure = Literal["memory", "energy", "model", "build", "cold_start"]
"""What `max_growth` can limit."""
_Growths = Annotated[dict[Figure, _Amount], Field(min_length=1)]
BUDGETS = (
    "max_memory_mb",
    "max_joules_per_image",
    "max_model_mb",
    "max_build_s",
    "max_cold_start_ms",
    "max_growth",
)
"""Limits of what is neither time per call nor accuracy."""


class Limits(BaseModel):
    """Limits of the gate for one item; only those that were set are written into the record."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_slowdown: _ByPercentile[_Amount] = {"p50": 0.05}
    """Relative increase of the time per call over the baseline (0.05 = 5 %): a number for the median, or a mapping from
    percentiles to numbers, such as {p50: 0.05, p99: 0.2}."""
    max_latency_ms: _ByPercentile[_Positive] = {}
    """Maximum time per call, milliseconds: a number for the median, or a mapping from percentiles to numbers."""
    min_throughput: _Positive | None = None
    """Minimum of images per second."""
    max_memory_mb: _Positive | None = None
    """Maximum of the peak memory of a timed item, megabytes (10^6 bytes): of the process on a CPU, of torch on CUDA."""
    max_joules_per_image: _Positive | None = None
    """Maximum energy per photo of a timed item, joules."""
    max_model_mb: _Positive | None = None
    """Maximum size of the file that the runtime loads, or of the network's weights in torch, megabytes (10^6 bytes)."""
    max_build_s: _Positive | None = None
    """Maximum time to export, quantise and compile the model, seconds."""
    max_cold_start_ms: _Positive | None = None
    """Maximum time from asking for the exported model to its first result, in a process without it, milliseconds."""
    max_growth: _Growths = {}
    """Relative increase over the baseline (0.1 = 10 %), by figure: memory, energy, model (size), build, cold_start."""
    max_iou_drop: _Share = 0.01
    """Decrease of the IoU of any class, or of the pixel accuracy, from the baseline (0.01 = one point of 100)."""
    max_miou_drop: _Share = 0.01
    """Decrease of the mean IoU from the baseline."""
    max_drift: _Share = 0.01
    """Share of all pixels whose class differs from the baseline's class map by more than numeric noise."""
    max_parity_drift: _Share = 0.01
    """Share of all pixels whose class differs from that of torch in fp32 on the same device, if that was certain."""

    @property
    def slowdowns(self) -> dict[float, float]:
        """`max_slowdown` by quantile: 0.5 for p50."""
        return {_quantile(name): share for name, share in self.max_slowdown.items()}

    @property
    def latencies_ms(self) -> dict[float, float]:
        """`max_latency_ms` by quantile: 0.5 for p50."""
        return {_quantile(name): most for name, most in self.max_latency_ms.items()}

    def over(self, defaults: Limits) -> Limits:
        """Return `defaults` overridden by the limits that are set here."""
        fields = self.model_fields_set & Limits.model_fields.keys()
        return defaults.model_copy(update={name: getattr(self, name) for name in fields})

    def stricter(self, other: Limits) -> Limits:
        """Return the stricter of each limit of both."""
        found: dict[str, Any] = {}
        for name in Limits.model_fields:
            mine, others = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                found[name] = {key: min(d[key] for d in (mine, others) if key in d) for key in mine | others}
            else:
                strictest = max if name in _MINIMA else min
                found[name] = strictest((limit for limit in (mine, others) if limit is not None), default=None)
        return Limits.model_construct(self.model_fields_set | other.model_fields_set, **found)

    def looser_than(self, other: Limits, names: Collection[str]) -> tuple[str, ...]:
        """Return, in words, each limit of the given names that is looser here, or not set."""
        found = []
        for name, limit in other._single(names).items():
            mine = self._single(names).get(name)
            if mine is None or (mine < limit if name in _MINIMA else mine > limit):
                found.append(f"{name} was {limit:g}, is {'not set' if mine is None else f'{mine:g}'}")
        return tuple(found)

    def _single(self, names: Collection[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in names:
            value = getattr(self, name)
            found |= {f"{name} {key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
        return {name: value for name, value in found.items() if value is not None}

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, handler: Any) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


def _quantile(percentile: str) -> float:
    return round(float(percentile[1:]) / 100, 9)
