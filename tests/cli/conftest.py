"""What the commands share in tests."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from segcore.inference import models
from segcore.inference.models import LoadedModel

_load = models.load
_random = cache(_load)


def load_once(model: Any, weights: Any = "pretrained", settings: Any = None, labels: Any = None) -> LoadedModel:
    """Draw random weights, which are the same every time, once: that takes half of the time of most commands."""
    if weights == "random":
        return _random(model, weights, labels=labels)
    return _load(model, weights, settings, labels)


@pytest.fixture(autouse=True)
def _models_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load", load_once)
