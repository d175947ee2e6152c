from __future__ import annotations

import pytest

from segcore.core.errors import UsageError
from segcore.core.labels import VOC
from segcore.evaluation.protocols import PROTOCOLS, choose


def test_protocols_are_returned_once_in_the_order_given() -> None:
    chosen = choose(["per-image", "voc-original", "per-image"], 320)
    assert [protocol.name for protocol in chosen] == ["per-image", "voc-original"]


def test_descriptions_of_protocols_differ() -> None:
    assert len({protocol.description(VOC) for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (["voc-orignal"], 520, "unknown protocol 'voc-orignal' .did you mean 'voc-original'."),
        (["torchvision-references"], 320, "defined at size 520, not 320; choose that size"),
        ([], 520, "no protocol given; choose from voc-original"),
    ],
)
def test_invalid_protocols_are_refused(names: list[str], size: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(names, size)
