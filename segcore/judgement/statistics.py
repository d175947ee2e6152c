"""Confidence intervals of latency quantiles, and of the ratio of two, from raw samples.

Latencies are judged on the logarithm, where a ratio is a difference, a unit is a shift and swapping the arms is a
change of sign. Two sources of error are kept apart:

* *within a process*: order statistics, widened by the autocorrelation of the samples (`quantile_interval`);
* *between processes*: a standard deviation (`ProcessNoise`), measured over several processes, learned from earlier runs
  or assumed; one process per arm cannot show it, however many rounds it has.

`mover_difference` gives the interval of the ratio of two arms. Everything here is deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, polygamma, psi, stdtrit

from segcore.core.records import LEAST, MOST

Floats = npt.NDArray[np.float64]
Processes = Sequence[Sequence[float]]
"""Samples of each process of an arm, in seconds."""

CONFIDENCE = 0.95
"""Two-sided confidence of every interval."""
MIN_MEASURED_DF = 4
"""Fewest degrees of freedom for measuring process noise: three processes in each arm."""
ASSUMED_RUN_SD = 0.012
"""Standard deviation of the log latency from run to run, beyond that of the median of a run's processes."""
ASSUMED_RUN_SD_LATER = 0.025
"""The same of runs that are more than `SOON_S` apart: the machine may have changed by more than the reference shows."""
SOON_S = 1800.0
MEDIAN_ERRORS = (1.0, 0.7071, 0.6698, 0.5461, 0.5356, 0.4634, 0.4588, 0.4101, 0.4075, 0.3719)
"""Standard deviation of the median of 1 to 10 standard normal values (Sarhan and Greenberg 1962, "Contributions to
order statistics", table 10B.1)."""
MIN_COMMON = 3
"""Fewest items for estimating what their noise has in common."""
MIN_HISTORY = 6
"""Fewest runs of an item on a machine for learning its process noise."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence bounds; a bound is infinite if there are too few samples for it."""

    low: float
    value: float
    high: float

    @property
    def bounds(self) -> tuple[float, float, float]:
        """Lower bound, estimate and upper bound."""
        return self.low, self.value, self.high

    def exp(self) -> Interval:
        """Return the interval of the exponential: from log seconds to seconds, from log ratio to ratio."""
        return Interval(math.exp(self.low), math.exp(self.value), math.exp(self.high))


@dataclass(frozen=True)
class ProcessNoise:
    """Standard deviation of the log latency from one fresh process to the next."""

    sd: float
    df: float
    """Degrees of freedom behind `sd`; infinite if it is not an estimate."""
    source: str


def assumed_noise(device: str) -> ProcessNoise:
    """Return the noise of a run of one process to assume if none is known: 9.2 % on every kind of device.

    Two fresh processes of a 50 ms network, one after the other on a shared two-core virtual machine, had paired log
    ratios with a standard deviation of 13 %, which is 13 / sqrt(2) = 9.2 % for each.
    """
    return ProcessNoise(sd=0.092, df=math.inf, source=f"assumed for {device}")


def assumed_run_noise(device: str, apart_s: float = 0.0) -> ProcessNoise:
    """Return what runs of several processes are assumed to differ by, beyond the noise of their processes.

    docs/measuring.md has the measurements that the figures come from.

    Args:
        device: for the source.
        apart_s: seconds between the runs.
    """
    if apart_s > SOON_S:
        return ProcessNoise(ASSUMED_RUN_SD_LATER, math.inf, f"assumed for {device} and runs over half an hour apart")
    return ProcessNoise(ASSUMED_RUN_SD, math.inf, f"assumed for {device}")


def noise_of_history(log_medians: Sequence[float]) -> ProcessNoise | None:
    """Return the process noise learned from the log medians of successive runs, or None if there are too few.

    In simulations of 6 to 30 normal values, Student's t with 0.55 (n - 1) degrees of freedom gives the difference of
    two further values its coverage.
    """
    n = len(log_medians)
    if n < MIN_HISTORY:
        return None
    sd = successive_sd(np.asarray(log_medians, dtype=np.float64))
    return ProcessNoise(sd=sd, df=0.55 * (n - 1), source=f"learned from {n} runs of this machine")


def successive_sd(values: Floats) -> float:
    """Return the standard deviation of a series from the median of its absolute successive differences.

    Trends cancel, and single outliers and steps hardly matter; 0.6745 is the median of |z| of a normal z.
    """
    return float(np.median(np.abs(np.diff(values)))) / (0.6745 * math.sqrt(2))


def measured_noise(arms: Sequence[Sequence[float]], least_df: int = MIN_MEASURED_DF) -> ProcessNoise | None:
    """Return the process noise pooled over arms of log quantiles, one per process, or None if there are too few."""
    df = sum(len(arm) - 1 for arm in arms)
    if df < least_df:
        return None
    squares = sum(float(np.var(arm)) * len(arm) for arm in arms)
    return ProcessNoise(math.sqrt(squares / df), df, f"measured over {sum(map(len, arms))} processes")


def common_noise(noises: Sequence[ProcessNoise]) -> ProcessNoise | None:
    """Return what the noise of several items has in common: a further estimate for each of them; None if too few.

    Empirical Bayes with an inverse chi-square prior, by the moments of the log variances (Smyth 2004, Statistical
    Applications in Genetics and Molecular Biology 3:3, section 6.2). Its degrees of freedom are at most those of all
    items together, which it has if they differ by no more than chance.
    """
    found = [noise for noise in noises if noise.sd > 0]
    if len(found) < MIN_COMMON:
        return None
    half = np.array([noise.df for noise in found]) / 2
    logs = 2 * np.log([noise.sd for noise in found]) - psi(half) + np.log(half)
    excess = float(np.var(logs, ddof=1) - np.mean(polygamma(1, half)))
    most = 2 * float(half.sum())
    df = min(most, 2 * _inverse_trigamma(excess)) if excess > 0 else most
    mean = float(np.mean(logs) + psi(df / 2) - np.log(df / 2))
    return ProcessNoise(math.exp(mean / 2), df, f"of {len(found)} items")


def moderated(noise: ProcessNoise, common: ProcessNoise) -> ProcessNoise:
    """Return the noise of one item together with what all of them have in common, weighted by degrees of freedom."""
    df = noise.df + common.df
    variance = (noise.df * noise.sd**2 + common.df * common.sd**2) / df
    return ProcessNoise(math.sqrt(variance), df, noise.source)


def _inverse_trigamma(value: float) -> float:
    """Return the argument of the trigamma function at which it has a positive value, by Newton's method."""
    found = 0.5 + 1 / value
    for _ in range(20):
        trigamma = float(polygamma(1, found))
        found += trigamma * (1 - trigamma / value) / float(polygamma(2, found))
    return found


def median_error(n: int) -> float:
    """Return the standard deviation of the median of n standard normal values; over 10, of many, which is more."""
    return MEDIAN_ERRORS[n - 1] if n <= len(MEDIAN_ERRORS) else math.sqrt(math.pi / 2 / n)


def usable(samples: Sequence[float]) -> bool:
    """Return whether there are samples and all of them are finite and positive, in the range of times (`Positive`)."""
    return len(samples) > 0 and all(LEAST <= s <= MOST for s in samples)


def quantile_name(q: float) -> str:
    """Return ``median`` or ``p95``, the name of a quantile in tables."""
    return "median" if q == 0.5 else f"p{100 * q:g}"


def log_quantile(samples: Sequence[float], q: float) -> float:
    """Return the logarithm of the q-quantile of positive samples (Hazen's plotting positions)."""
    return float(np.quantile(np.log(np.asarray(samples, dtype=np.float64)), q, method="hazen"))


def autocorrelation_time(series: Sequence[float] | Floats) -> float:
    """Return how many consecutive samples are worth one independent one, at least 1.

    1 + 2 * (sum of autocorrelations), cut off by the initial positive sequence (Geyer 1992, "Practical Markov chain
    Monte Carlo", Statistical Science 7:473): sums of neighbouring pairs are added while they are positive.
    """
    x = np.asarray(series, dtype=np.float64)
    x = x - x.mean()
    n = len(x)
    variance = float(x @ x)
    if n < 4 or variance <= 0:
        return 1.0
    spectrum = np.fft.rfft(x, 2 * n)
    rho = np.fft.irfft(spectrum * spectrum.conj(), 2 * n)[:n] / variance
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(axis=1)
    stop = np.flatnonzero(pairs <= 0)
    return max(1.0, float(2 * pairs[: stop[0] if len(stop) else len(pairs)].sum() - 1))


def rounds_needed(q: float) -> int:
    """Return how many independent rounds bound the q-quantile on both sides: the fewest n >= t^2 * odds of q."""
    odds = max(q, 1 - q) / min(q, 1 - q)
    return next(n for n in count(2) if n >= t_quantile(n - 1) ** 2 * odds)


def quantile_interval(samples: Sequence[float], q: float) -> Interval:
    """Return the interval of the q-quantile of log seconds, from one process's samples in the order measured.

    Order statistics: the share of samples below the true quantile has mean q and variance q (1 - q) tau / n, where
    tau is the autocorrelation time of the series "is this sample below the quantile?". The bounds are the samples at
    the ranks q -+ t * sqrt(that), interpolated, t having n / tau - 1 degrees of freedom; if such a rank does not exist
    the bound is infinite. Ranks need no model of the distribution, so spikes and skew do no harm (David and Nagaraja,
    "Order statistics", 2003, section 7.1; for dependent data Sen 1972, J. Multivariate Analysis 2:77).
    """
    x = np.log(np.asarray(samples, dtype=np.float64))
    n = len(x)
    value = float(np.quantile(x, q, method="hazen"))
    tau = autocorrelation_time((x <= value).astype(np.float64))
    half = t_quantile(max(1.0, n / tau - 1)) * math.sqrt(q * (1 - q) * tau / n)
    low, high = q - half, q + half
    ordered = np.sort(x)
    ranks = np.arange(1, n + 1) - 0.5
    return Interval(
        low=float(np.interp(n * low, ranks, ordered)) if n * low >= 0 else -math.inf,
        value=value,
        high=float(np.interp(n * high, ranks, ordered)) if n * high <= n else math.inf,
    )


def bounds_quantile(samples: Sequence[float], q: float) -> bool:
    """Return whether the samples, finite and positive, bound their q-quantile on both sides."""
    interval = quantile_interval(samples, q)
    return math.isfinite(interval.low) and math.isfinite(interval.high)


def arm_interval(processes: Processes, q: float, noise: ProcessNoise) -> Interval:
    """Return the interval of an arm's log quantile: the mean over its processes, with noise within and between."""
    each = [quantile_interval(samples, q) for samples in processes]
    value = sum(i.value for i in each) / len(each)
    between = t_quantile(noise.df) * noise.sd / math.sqrt(len(each))
    below = math.hypot(*(i.value - i.low for i in each)) / len(each)
    above = math.hypot(*(i.high - i.value for i in each)) / len(each)
    return Interval(value - math.hypot(below, between), value, value + math.hypot(above, between))


def mover_difference(b: Interval, h: Interval) -> Interval:
    """Return the interval of h - b from independent intervals of both.

    MOVER (Zou and Donner 2008, Statistics in Medicine 27:1693) keeps their asymmetry. Swapping the arms negates and
    swaps the bounds exactly.
    """
    value = h.value - b.value
    return Interval(
        low=value - math.hypot(h.value - h.low, b.high - b.value),
        value=value,
        high=value + math.hypot(h.high - h.value, b.value - b.low),
    )


def processes_needed(distance: float, noise: ProcessNoise) -> int | None:
    """Return how many processes per arm would resolve a change this far (in log) from its limit, None if over 999."""
    if not distance > 0:
        return None
    for each in range(1, 1000):
        df = max(noise.df, 2 * each - 2)
        if t_quantile(df) * noise.sd * math.sqrt(2 / each) <= distance:
            return each
    return None


def trimmed_interval(values: Floats, alpha: float, trim: float = 0.1) -> tuple[Floats, Floats, Floats]:
    """Return low, mean and high of the mean without the lowest and highest share `trim`, along the last axis.

    Each bound is wrong with probability `alpha`: Student's t on the winsorised variance (Tukey and McLaughlin 1963;
    Yuen 1974, Biometrika 61:165). With fewer than 1 / trim values nothing is cut and this is the plain t interval.

    Args:
        values: at least two along the last axis.
        alpha: one-sided error.
        trim: share cut off at each end.
    """
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    cut = int(trim * n + 1e-9)
    kept = n - 2 * cut
    mean = ordered[..., cut : n - cut].mean(axis=-1)
    winsorised = np.clip(ordered, ordered[..., [cut]], ordered[..., [n - cut - 1]])
    error = np.sqrt(winsorised.var(axis=-1, ddof=1) * (n - 1) / (kept * (kept - 1)))
    half = float(stdtrit(kept - 1, 1 - alpha)) * error
    return mean - half, mean, mean + half


def share_interval(hits: int, trials: int) -> Interval:
    """Return the interval of a share by Wilson's score (1927), which holds at 0 of n and n of n too."""
    from scipy.stats import binomtest  # takes half a second to import

    ends = binomtest(hits, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(ends.low), hits / trials, float(ends.high))


@lru_cache(maxsize=256)
def t_quantile(df: float) -> float:
    """Return the two-sided quantile of Student's t at `CONFIDENCE`; normal if the degrees of freedom are infinite."""
    p = 0.5 + CONFIDENCE / 2
    return float(ndtri(p)) if math.isinf(df) else float(stdtrit(df, p))
