"""The error that each of several looks at growing evidence may make.

Judging again and again at a 95 % interval errs far more often than in 5 % of cases. So the permitted error is spent
over the looks (Lan and DeMets 1983, Biometrika 70:659): alpha * t^power of it by the time that a share t of the
evidence is in, the power family of Kim and DeMets 1987 (Biometrika 74:149). Each look judges at the error that it newly
spends, so the sum stays below alpha, whatever the correlation between looks (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence


def error_of_look(size: int, looks: Sequence[int], alpha: float, power: float) -> float:
    """Return the error that a look at `size` may add, if those before it and the last one are among `looks`."""
    earlier = max((look for look in looks if look < size), default=0)
    now, before = (alpha * float(min(1.0, spent / looks[-1]) ** power) for spent in (size, earlier))
    return now - before
