"""The items of a bench run and their expected duration: pure functions of cases, options and devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from segcore.core.bench_options import Choices
from segcore.core.limits import Limits
from segcore.core.model_spec import ModelSpec, own_runtime, own_side
from segcore.core.records import ITEM_FIELDS, KINDS, Kind, Scenario, item_id
from segcore.inputs.cases import Case
from segcore.plugin.options import check_names

LIGHT_MODEL = "embedded"
SPEED_TAG = "speed"
"""If any case has this tag, models other than the light one are timed on the tagged cases only."""
LIGHT_BATCHES = (1, 2, 4)
HEAVY_BATCHES = (1, 2)
LOAD_BATCH = 8
"""Photos of a query of the scenarios offline and multi-stream."""


@dataclass(frozen=True, repr=False)
class PlanItem:
    """One item to run."""

    kind: Kind
    case: Case
    model: str
    runtime: str
    precision: str
    device: str
    size: int
    batch: int
    weights: str
    """As requested: ``auto``, ``pretrained``, ``random`` or a path."""
    threads: int | None = None
    """Intra-op threads if they are swept; None for torch's setting."""
    scenario: Scenario | None = None
    """Of a load item."""
    spec: ModelSpec | None = None
    """What is known of the model; None for a built-in one."""

    def __repr__(self) -> str:
        """Return the ID: pytest shows parameters of tests, and so do reports of other plugins, such as Allure's."""
        return self.id

    @property
    def id(self) -> str:
        """Part of the test's name and of `BenchmarkRecord.key` that is in brackets."""
        return item_id(self.kind, self.params)

    @property
    def key(self) -> str:
        """Identity of the item across runs: that of its `BenchmarkRecord`."""
        return f"{self.kind}[{self.id}]"

    @property
    def params(self) -> dict[str, Any]:
        """Values for ``--benchmark-group-by=param:NAME``."""
        return {name: getattr(self, name) for name in ITEM_FIELDS} | {"case": self.case.name}

    @property
    def limits(self) -> Limits:
        """Those of the case that hold for this item."""
        names = ("model", "device", "runtime", "precision", "size", "kind", "batch")
        return self.case.limits_for(**{name: getattr(self, name) for name in names})

    @property
    def model_key(self) -> tuple[str, str, str, str, str, int | None]:
        """Items with equal keys share one loaded model."""
        return (self.model, self.weights, self.runtime, self.precision, self.device, self.threads)

    @property
    def call_key(self) -> tuple[object, ...]:
        """Timed items with equal keys make the same call: a latency item, and a throughput item in batches of one."""
        return (*self.model_key, self.case.name, self.size, self.batch)


def select_cases(cases: Sequence[Case], choices: Choices) -> tuple[Case, ...]:
    """Return the cases selected by name and tag; raise UsageError if no case has the name or tag."""
    check_names("--segcore-case", choices.cases, (case.name for case in cases))
    check_names("--segcore-tag", choices.tags, (tag for case in cases for tag in case.tags))
    return tuple(
        case
        for case in cases
        if (not choices.cases or case.name in choices.cases)
        and (not choices.tags or set(choices.tags).intersection(case.tags))
    )


def plan_items(
    kind: Kind,
    cases: Sequence[Case],
    choices: Choices,
    devices: Iterable[str],
    specs: Mapping[str, ModelSpec] = MappingProxyType({}),
) -> tuple[PlanItem, ...]:
    """Return the items of one kind, in the order of the cases.

    A case lists its models and sizes; the command line overrides both. Accuracy items cover every case. Timed items
    cover every case with the light model, and with other models only the cases tagged `speed` unless cases are named.
    With these models, throughput is measured only at the smallest size unless sizes are named. Load items, which take
    even longer, follow the rules of the other models with every model. A model of one size has one item, of that size,
    in place of one for each size. `specs` are the models that are not built in, by what the user calls them.
    """
    models = choices.models or tuple(dict.fromkeys(model for case in cases for model in case.models))
    tagged = any(SPEED_TAG in case.tags for case in cases) and not choices.cases
    items = []
    for model in models:
        for case in cases:
            if not choices.models and model not in case.models:
                continue
            name = specs[model].name if model in specs else model
            heavy = model != LIGHT_MODEL or kind == "load"
            if heavy and kind != "accuracy" and tagged and SPEED_TAG not in case.tags:
                continue
            spec = specs.get(model)
            sizes = choices.sizes or tuple(case.sizes)
            if spec is not None and spec.input.own_size is not None:
                sizes = (own_side(spec.input) or min(sizes),)
            elif heavy and kind in ("throughput", "load") and not choices.sizes:
                sizes = (min(sizes),)
            items += [
                PlanItem(
                    kind, case, name, runtime, precision, device, size, batch, choices.weights, threads, scenario, spec
                )
                for device in devices
                for runtime in choices.runtimes or (own_runtime(spec.source.kind) if spec else "torch",)
                for precision in choices.precisions
                for size in sizes
                for batch, threads, scenario in _variants(kind, heavy, choices)
            ]
    return tuple(items)


def _variants(kind: Kind, heavy: bool, choices: Choices) -> list[tuple[int, int | None, Scenario | None]]:
    """Return batch, threads and scenario of the items of one kind, model and size."""
    if kind == "throughput":
        batches = choices.batches or (HEAVY_BATCHES if heavy else LIGHT_BATCHES)
        return [(batch, threads, None) for threads in choices.threads or (None,) for batch in batches]
    if kind == "load":
        queries = {"offline": choices.batches or (LOAD_BATCH,), "multi-stream": (choices.streams or LOAD_BATCH,)}
        return [(n, None, name) for name in choices.scenarios for n in queries.get(name, (1,))]
    return [(1, None, None)]


def find_duplicate(tests: Iterable[tuple[str, PlanItem]]) -> str:
    """Return an error if two tests, given by name, would measure the same item; repetitions of one test are fine."""
    names: dict[str, str] = {}
    for name, item in tests:
        if names.setdefault(item.key, name) != name:
            return f"{item.key} would be measured twice, by {names[item.key]} and {name}: select one of them"
    return ""


def run_order(items: Iterable[PlanItem]) -> dict[str, int]:
    """Return the position of each item, by key, so that each model is loaded once and its accuracy comes first."""
    items = list(items)
    model_keys = list(dict.fromkeys(item.model_key for item in items))
    ordered = sorted(items, key=lambda item: (model_keys.index(item.model_key), KINDS.index(item.kind)))
    return {item.key: position for position, item in enumerate(ordered)}


def estimate_seconds(kind: Kind, call_s: float, min_rounds: int, max_time_s: float) -> float:
    """Return roughly how long an item takes if one call takes `call_s` seconds.

    A timed item also has its warm-up, pytest-benchmark's calibrating call, and what takes about a call around them.
    """
    if kind == "accuracy":
        return call_s + 0.3
    warm_up = 1 if call_s >= 0.5 else 3
    rounds = max(min_rounds, round(max_time_s / call_s + 0.5))
    return (warm_up + 1 + rounds + 1) * call_s + 0.1
