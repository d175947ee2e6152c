"""Processes that run pytest."""

from __future__ import annotations

UNUSED_PLUGINS = ("anyio", "hypothesispytest", "platformdirs", "pytest_cov", "xdist", "xdist.looponfail")
ALONE = {"PYTEST_ADDOPTS": " ".join(f"-p no:{name}" for name in UNUSED_PLUGINS), "OMP_NUM_THREADS": "1"}
"""Environment in which pytest starts in half the time: without the plugins of the test suite that the process does not
use, unlike ``PYTEST_DISABLE_PLUGIN_AUTOLOAD``, which would leave out segcore as well."""
