"""Slow, obvious versions of what segcore computes, to hold it against."""

from __future__ import annotations


def naive_sojourn_times(arrivals: list[float], services: list[float]) -> list[float]:
    """A queue as one sees it: each query begins when it is there and the one before is done."""
    free, times = 0.0, []
    for arrival, service in zip(arrivals, services, strict=True):
        free = max(free, arrival) + service
        times.append(free - arrival)
    return times
