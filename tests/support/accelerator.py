"""The GPU of tests marked ``cuda``; ``SEGCORE_TEST_DEVICE=cpu`` rehearses those that need no real one on a CPU."""

from __future__ import annotations

import os

import pytest
import torch

NAME = os.environ.get("SEGCORE_TEST_DEVICE", "cuda")
_REASON = "needs a CUDA device (SEGCORE_TEST_DEVICE=cpu rehearses the test on the CPU)"

rehearsable = [pytest.mark.cuda, pytest.mark.skipif(NAME == "cuda" and not torch.cuda.is_available(), reason=_REASON)]
"""Marks of tests that run on `NAME`."""
real = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
"""Marks of tests that nothing else can run."""
