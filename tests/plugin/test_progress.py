from __future__ import annotations

import pytest

from segcore.plugin.progress import Forecast, clock_text


def test_the_forecast_learns_from_what_items_take() -> None:
    forecast = Forecast({"a": 10.0, "b": 10.0, "c": 20.0})
    assert forecast.seconds_left == 40.0
    forecast.finish("a", 40.0)  # four times as long as estimated
    # As if an item like the largest had taken as long as estimated: (40 + 20) / (10 + 20) = twice as slow.
    assert forecast.seconds_left == pytest.approx(60.0)
    for item in ("b", "c"):
        forecast.finish(item, 1.0)
    assert forecast.seconds_left == 0.0


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "62:05")])
def test_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
