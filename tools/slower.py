"""A pytest plugin that makes every call of the pipeline slower: ``SLOWER=0.2 python -m pytest -p tools.slower bench``.

After each call, matrices are multiplied for that share of the call's own time. The further processes of a run get the
same arguments and so load it, too.
"""

from __future__ import annotations

import os
import time
from functools import wraps
from typing import Any

from segcore.inference.pipeline import Segmenter
from segcore.paired.slow_worker import multiply_for

SHARE = "SLOWER"
"""Environment variable: the extra share, 0.2 for 20 %."""


def pytest_configure() -> None:
    """Wrap the method that all items call."""
    share, run = float(os.environ[SHARE]), Segmenter.run

    @wraps(run)
    def slower(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        found = run(*args, **kwargs)
        multiply_for(share * (time.perf_counter() - start))
        return found

    Segmenter.run = slower  # type: ignore[method-assign]  # for this process alone
