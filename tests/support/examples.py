"""How many examples hypothesis draws for a costly test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def examples(count: int) -> settings:
    """Return settings that draw `count` examples under the default profile, and as many times more under `fuzz`."""
    scale = settings.default.max_examples // 100 if settings.default else 1
    # The fixtures of such tests hold nothing that an example changes.
    return settings(max_examples=count * scale, suppress_health_check=[HealthCheck.function_scoped_fixture])
