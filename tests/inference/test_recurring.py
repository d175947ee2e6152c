from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from segcore.inference.devices import Device
from segcore.inference.pipeline import MOST_SETTLING_CALLS, Segmenter
from segcore.inference.recurring import USES, Recurring
from segcore.inference.runtimes import open_session, why_not
from segcore.inference.runtimes.session import Adaptive, Session
from segcore.inputs.download import FetchSettings
from segcore.measurement.timing import PipelineCall
from tests.support.networks import TinyNet

CPU = Device("cpu")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> FetchSettings:
    """One cache for the module: the network is exported once."""
    return FetchSettings(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("limit", "keys", "made"),
    [
        (2, "aa", ""),
        (2, "aaa", "a"),
        (2, "aaaaa", "a"),
        (2, "ababab", "ab"),
        (2, "abcabcabc", ""),  # with more keys than are kept, none recurs
        (2, "aaabbbaccca", "abc"),  # a was used after b, so c takes the place of b
        (2, "aaabbbcccaaa", "abca"),
        (1, "aaabbbaaa", "aba"),
        (0, "aaaa", ""),
    ],
)
def test_something_is_made_for_keys_that_recur(limit: int, keys: str, made: str) -> None:
    calls: list[str] = []

    def make(key: str) -> str:
        calls.append(key)
        return key.upper()

    kept: Recurring[str, str] = Recurring(limit, make, uses=3)
    for key in keys:
        assert kept.get(key) in (None, key.upper())
    assert "".join(calls) == made


def test_a_failure_to_make_one_is_the_last() -> None:
    calls: list[str] = []
    kept: Recurring[str, str] = Recurring(4, calls.append, uses=2)
    for key in "aabbcc":
        assert kept.get(key) is None
    assert calls == ["a"]
    assert kept.settled


def test_it_is_settled_when_the_next_use_gets_the_same() -> None:
    kept: Recurring[str, str] = Recurring(4, str.upper, uses=3)
    found = []
    for key in "aaabaab":
        kept.get(key)
        found.append(kept.settled)
    assert found == [False, False, True, False, True, True, False]


def a_session(settings: FetchSettings) -> Session:
    if reason := why_not("openvino", CPU):
        pytest.skip(reason)
    return open_session("openvino", TinyNet(), CPU, settings=settings)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 3, 40, 56), (3, 3, 40, 56)], ids=["photo", "batch"])
def test_the_model_of_a_shape_that_recurs_gives_the_same_logits(
    shape: tuple[int, ...], settings: FetchSettings
) -> None:
    session = a_session(settings)
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    (start, *_), found = [session.build_s], []
    for _ in range(USES + 1):
        found.append((session.forward(batch), session.build_s))
    assert isinstance(session, Adaptive)
    assert session.settled
    built = [seconds for _, seconds in found]
    assert start <= built[0] == built[1] < built[2] == built[3], "compiled at the third use alone, which is counted"
    for logits, _ in found[1:]:
        np.testing.assert_allclose(logits.numpy(), found[0][0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_at_most_so_many_shapes_have_a_model(settings: FetchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segcore.inference.runtimes.openvino.MAX_SHAPES", 2)
    session = a_session(settings)
    for width in (32, 40, 48):
        for _ in range(USES):
            session.forward(torch.zeros(1, 3, 32, width))
    assert [shape[-1] for shape, _ in session._fixed._made] == [40, 48]  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1], ids=["large file", "cannot be reshaped"])
def test_without_a_model_for_the_shape_the_one_for_all_goes_on(
    limit: int, settings: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, shape: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("openvino.Model.reshape", refuse)
    monkeypatch.setattr("segcore.inference.runtimes.openvino.MAX_SHAPES_BYTES", limit << 30)
    session = a_session(settings)
    batch = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(7))
    found = [session.forward(batch) for _ in range(USES + 2)]
    assert isinstance(session, Adaptive)
    assert session.settled
    for logits in found[1:]:
        np.testing.assert_array_equal(logits.numpy(), found[0].numpy())


class Settling:
    """A session that settles after a number of calls."""

    build_s, artifact, options = 0.0, None, {"threads": "1"}

    def __init__(self, after: int) -> None:
        self._after, self.calls = after, 0

    @property
    def settled(self) -> bool:
        return self.calls >= self._after

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.zeros(len(batch), 21, *batch.shape[-2:])


@pytest.mark.parametrize(
    ("call_s", "settled_after", "calls"),
    [(0.0, 1, 3), (0.0, 4, 4), (1.0, 1, 1), (1.0, 3, 3), (1.0, 10**9, 1 + MOST_SETTLING_CALLS)],
)
def test_warm_up_goes_on_until_the_runtime_has_settled(call_s: float, settled_after: int, calls: int) -> None:
    segmenter = Segmenter(TinyNet(), device="cpu", size=32)
    segmenter._session = session = Settling(settled_after)  # type: ignore[assignment]
    times = (round(1e9 * call_s * n) for n in itertools.count())
    PipelineCall(segmenter, [np.zeros((32, 32, 3), np.uint8)], 32, clock=lambda: next(times)).warm_up()
    assert session.calls == calls
