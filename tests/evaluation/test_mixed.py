"""Which layers int8 leaves in fp32: the search on its own, and on networks with a layer that is fragile on purpose."""

from __future__ import annotations

import math
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

from segcore import Segmenter
from segcore.core.record_int8 import LayerRecord
from segcore.evaluation.mixed import OwnJudge, Search, find_mixture, margins_of, spread, worth
from segcore.inputs.download import FetchSettings


def layers(*damages: float, slower: tuple[float, ...] = ()) -> list[LayerRecord]:
    costs = slower or (0.0,) * len(damages)
    return [
        LayerRecord(name=f"l{index}", kind="Conv", changed=0.0, halved=0.0, damage=damage, slower=cost)
        for index, (damage, cost) in enumerate(zip(damages, costs, strict=True))
    ]


def search(found: list[LayerRecord], aim: float) -> tuple[frozenset[str], Search]:
    """Search where the drop of a mixture is the sum of what its layers in int8 do."""
    result = Search(lambda kept: math.fsum(each.damage for each in found if each.name not in kept), aim)
    return result.run(found), result


@pytest.mark.parametrize(
    ("damages", "aim", "kept"),
    [
        ((0.001, 0.002, 0.001), 0.005, set()),
        ((0.001, 0.2, 0.001), 0.005, {"l1"}),
        ((0.1, 0.2, 0.001), 0.005, {"l0", "l1"}),
        ((0.1, 0.2, 0.3), 0.005, {"l0", "l1", "l2"}),
        ((0.1,), 0.005, {"l0"}),
        ((0.0, 0.0, 0.0), 0.0, set()),
    ],
)
def test_the_fewest_layers_that_keep_the_limit(damages: tuple[float, ...], aim: float, kept: set[str]) -> None:
    assert search(layers(*damages), aim)[0] == kept


def test_it_takes_few_measurements() -> None:
    rng = np.random.default_rng(0)
    found = layers(*rng.exponential(0.001, 200))
    kept, result = search(found, 0.02)
    assert result.drops[kept] <= 0.02
    assert 10 < len(kept) < 190
    assert len(result.drops) <= 1 + 8 + 6  # everything in int8, bisection of 200, layers that are tried again


def test_a_dear_layer_goes_back_to_int8_if_the_limit_allows() -> None:
    """The dear one comes first by its damage, but the next two suffice."""
    found = layers(0.9, 0.2, 0.1, slower=(0.5, 0.0, 0.0))
    result = Search(lambda kept: ({"l1", "l2"} <= kept and 0.0) or 1.0, 0.005)
    result = Search(lambda kept: 0.0 if {"l1", "l2"} <= kept else 1.0, 0.005)
    assert result.run(found) == {"l1", "l2"}


def test_cheap_layers_come_first() -> None:
    cheap, dear = layers(0.1, 0.1, slower=(0.0, 0.3))
    assert worth(cheap) > worth(dear) > 0


def test_margins_are_those_of_a_loop_over_pixels() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 7, 9)))
    classes = torch.from_numpy(np.random.default_rng(1).integers(0, 5, (7, 9)))
    found = margins_of(scores, classes)
    for y in range(7):
        for x in range(9):
            own = int(classes[y, x])
            others = [float(scores[c, y, x]) for c in range(5) if c != own]
            assert float(found[y, x]) == pytest.approx(float(scores[own, y, x]) - max(others))


@pytest.mark.parametrize(("count", "most", "shown"), [(3, 5, [0, 1, 2]), (10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4])])
def test_photos_are_spread_evenly(count: int, most: int, shown: list[int]) -> None:
    names = [f"{index}.jpg" for index in range(count)]
    assert spread(names, most) == [names[index] for index in shown]


PHOTOS = [
    np.kron(np.random.default_rng(seed).integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    for seed in range(4)
]


def test_a_judge_runs_the_network_in_fp32_once_and_not_before_it_is_asked() -> None:
    """So that what it takes does not add to what quantising takes."""

    class Counted(Segmenter):
        runs = 0

        def at_own_scale(self, batch: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            return super().at_own_scale(batch)

    network = torch.nn.Conv2d(3, 21, 1)
    reference, other = Counted(network, device="cpu", size=48), Segmenter(network, device="cpu", size=48)
    judge = OwnJudge(reference, PHOTOS)
    assert reference.runs == 0
    assert [judge.drop(other), judge.drop(other)] == [0, 0]
    assert reference.runs == len(PHOTOS)


@pytest.mark.slow
@pytest.mark.skipif(any(find_spec(name) is None for name in ("nncf", "onnx", "onnxruntime")), reason="needs nncf")
@pytest.mark.parametrize("seed", range(10))
def test_a_fragile_layer_is_found(seed: int, tmp_path: Path) -> None:
    """One channel fifty times the others: what reads it in int8 sees little of them, and is kept in fp32."""
    from tests.support.chains import write_chain

    fragile = seed % 4
    write_chain(tmp_path / "chain.onnx", seed, fragile=fragile)
    settings = FetchSettings(tmp_path / "cache")
    reference = Segmenter(str(tmp_path / "chain.onnx"), device="cpu", size=48, runtime="onnxruntime", settings=settings)
    source = reference.int8_source(PHOTOS)
    steps: list[tuple[str, int, int]] = []
    record = find_mixture(
        reference, source, OwnJudge(reference, PHOTOS), PHOTOS, 0.05, "four", lambda *step: steps.append(step)
    )
    worst = max(record.layers, key=lambda layer: layer.damage)
    assert worst.name == f"conv{fragile + 1}"
    assert worst.module == f"layer{fragile + 1}"
    assert worst.name in record.kept
    assert record.drop <= 0.05 * 0.5 < record.plain_drop
    assert [name for name, _ in groupby(step[0] for step in steps)] == ["quantising", "choosing", "layers", "choosing"]
    again = Segmenter(
        str(tmp_path / "chain.onnx"),
        device="cpu",
        size=48,
        runtime="onnxruntime",
        precision="int8",
        calibration=PHOTOS,
        settings=settings,
    )
    assert again.int8_record == record
    assert again.build_seconds == 0
    assert OwnJudge(reference, PHOTOS).drop(again) == pytest.approx(record.drop)
