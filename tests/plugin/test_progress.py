from __future__ import annotations

import pytest

from segcore.plugin.progress import Forecast, clock_text


def test_the_forecast_learns_from_what_items_take() -> None:
    now = [0.0]
    forecast = Forecast({"a": 10.0, "b": 10.0, "c": 20.0}, clock=lambda: now[0])
    assert forecast.seconds_left == 40.0
    forecast.start("a")
    now[0] = 40.0  # four times as long as estimated
    assert forecast.finish() == 40.0
    # One largest item's worth of trust in the estimate: (40 + 20) / (10 + 20) = twice as slow.
    assert forecast.seconds_left == pytest.approx(60.0)
    for item in ("b", "c"):
        forecast.start(item)
        forecast.finish()
    assert forecast.seconds_left == 0.0


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "62:05")])
def test_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
