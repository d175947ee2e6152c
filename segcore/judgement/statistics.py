"""Intervals for latencies: what one can know of a quantile, and of the ratio of two, from raw samples.

Latencies are judged on the logarithm, where a ratio is a difference, a unit is a shift and swapping the arms is a
change of sign. Three sources of error are kept apart:

* *within a process*: order statistics, widened by the autocorrelation of the samples (`quantile_interval`);
* *between processes*: a standard deviation, measured where there are processes enough, otherwise learned from the
  history of runs or assumed (`ProcessNoise`); one process per arm cannot show it, however many rounds it has;
* both, for the ratio of two arms, put together by the MOVER rule (`change_interval`).

Everything here is deterministic: no resampling, no seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""Two-sided confidence of every interval shown, unless told otherwise."""
MIN_MEASURED_DF = 4
"""Degrees of freedom from which a measured process noise is believed: three processes in each arm."""
MIN_HISTORY = 6
"""Runs of one item on one machine from which its process noise is learned."""


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its confidence interval; a bound is infinite where samples are too few."""

    low: float
    value: float
    high: float

    def exp(self) -> Interval:
        """Return the interval of the exponential: from log seconds to seconds, from log ratio to ratio."""
        return Interval(_exp(self.low), _exp(self.value), _exp(self.high))


@dataclass(frozen=True)
class ProcessNoise:
    """Standard deviation of the log latency from one fresh process to the next, and where it was learned."""

    sd: float
    df: float
    """Degrees of freedom behind `sd`; infinite where it is taken as given."""
    source: str


def assumed_noise(device: str) -> ProcessNoise:
    """Return the process noise to assume where none was measured: 9.2 % on every kind of device.

    Two fresh processes of a 50 ms network, one after the other on a shared two-core virtual machine, had paired log
    ratios with a standard deviation of 13 %, which is 13 / sqrt(2) = 9.2 % for each. A quieter machine shows it by its
    history, or by several processes per arm, and is then judged by that.
    """
    return ProcessNoise(sd=0.092, df=math.inf, source=f"assumed for {device}")


def noise_of_history(log_medians: Sequence[float]) -> ProcessNoise | None:
    """Return the process noise learned from the log medians of successive runs, or None where they are too few.

    Half the mean square successive difference (von Neumann, Kent, Bellinson and Hart 1941): slow trends cancel, and a
    step between two commits enters once, so real changes make it larger, never smaller. Its variance
    (3n - 4) / (n - 1)^2 in units of sd^4 gives 2 (n - 1)^2 / (3n - 4) degrees of freedom.
    """
    n = len(log_medians)
    if n < MIN_HISTORY:
        return None
    differences = np.diff(np.asarray(log_medians, dtype=np.float64))
    sd = math.sqrt(float(np.mean(differences**2)) / 2)
    return ProcessNoise(sd=sd, df=2 * (n - 1) ** 2 / (3 * n - 4), source=f"learned from {n} runs of this machine")


def usable(samples: Sequence[float]) -> bool:
    """Say whether samples can be judged at all: there are some, all of them finite and positive."""
    return len(samples) > 0 and all(math.isfinite(s) and s > 0 for s in samples)


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


def quantile_name(q: float) -> str:
    """Return ``median`` or ``p95``, the name of a quantile in tables."""
    return "median" if q == 0.5 else f"p{100 * q:g}"


def log_quantile(samples: Sequence[float], q: float) -> float:
    """Return the logarithm of the q-quantile of positive samples (Hazen's plotting positions)."""
    return float(np.quantile(np.log(np.asarray(samples, dtype=np.float64)), q, method="hazen"))


def rounds_needed(q: float, confidence: float = CONFIDENCE, tau: float = 1.0) -> int:
    """Return how many rounds bound the q-quantile on both sides, at autocorrelation time `tau`.

    That many, that the ranks of `quantile_interval` exist: with n independent ones, n >= t^2 * odds of q.
    """
    odds = max(q, 1 - q) / min(q, 1 - q)
    independent = next(n for n in count(2) if n >= _t(confidence, n - 1) ** 2 * odds)
    return math.ceil(tau * independent)


def quantile_interval(samples: Sequence[float], q: float, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the q-quantile of log seconds, from one process's samples in the order measured.

    Order statistics: the share of samples below the true quantile has mean q and variance q (1 - q) tau / n, where
    tau is the autocorrelation time of the series "is this sample below the quantile?". The bounds are the samples at
    the ranks q -+ t * sqrt(that), interpolated, t having n / tau - 1 degrees of freedom; where such a rank does not
    exist the bound is infinite, never guessed.
    Ranks need no model of the distribution, so spikes and skew do no harm (David and Nagaraja, "Order statistics",
    2003, section 7.1; for dependent data Sen 1972, J. Multivariate Analysis 2:77).
    """
    x = np.log(np.asarray(samples, dtype=np.float64))
    n = len(x)
    value = float(np.quantile(x, q, method="hazen"))
    tau = autocorrelation_time((x <= value).astype(np.float64))
    half = _t(confidence, max(1.0, n / tau - 1)) * math.sqrt(q * (1 - q) * tau / n)
    low, high = q - half, q + half
    ordered = np.sort(x)
    ranks = np.arange(1, n + 1) - 0.5
    return Interval(
        low=float(np.interp(n * low, ranks, ordered)) if n * low >= 0 else -math.inf,
        value=value,
        high=float(np.interp(n * high, ranks, ordered)) if n * high <= n else math.inf,
    )


def measured_noise(arms: Sequence[Sequence[float]]) -> ProcessNoise | None:
    """Return the process noise pooled over arms of log quantiles, one per process; None where they are too few."""
    df = sum(len(arm) - 1 for arm in arms)
    if df < MIN_MEASURED_DF:
        return None
    squares = sum(float(np.var(arm)) * len(arm) for arm in arms)
    return ProcessNoise(math.sqrt(squares / df), df, f"measured over {sum(map(len, arms))} processes")


def arm_interval(
    processes: Sequence[Sequence[float]], q: float, noise: ProcessNoise, confidence: float = CONFIDENCE
) -> Interval:
    """Return the interval of an arm's log quantile: the mean over its processes, with noise within and between."""
    inner = _within(processes, q, confidence)
    between = _t(confidence, noise.df) * noise.sd / math.sqrt(len(processes))
    return Interval(
        low=inner.value - math.hypot(inner.value - inner.low, between),
        value=inner.value,
        high=inner.value + math.hypot(inner.high - inner.value, between),
    )


def change_interval(
    base: Sequence[Sequence[float]],
    head: Sequence[Sequence[float]],
    q: float,
    noise: ProcessNoise,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the interval of log(head / base) of the q-quantile; each arm is a sequence of processes' samples.

    Limits of each arm are combined by MOVER (Zou and Donner 2008, Statistics in Medicine 27:1693), which keeps
    intervals that are not symmetric as they are, and the process noise is added in the same way, as a root of squares.
    Swapping the arms negates and swaps the bounds exactly.
    """
    b, h = _within(base, q, confidence), _within(head, q, confidence)
    between = _t(confidence, noise.df) * noise.sd * math.sqrt(1 / len(base) + 1 / len(head))
    value = h.value - b.value
    return Interval(
        low=value - math.hypot(h.value - h.low, b.high - b.value, between),
        value=value,
        high=value + math.hypot(h.high - h.value, b.value - b.low, between),
    )


def processes_needed(distance: float, noise: ProcessNoise, confidence: float = CONFIDENCE) -> int | None:
    """Return how many processes per arm would tell a change this far (in log) from its limit, None if over 999."""
    if not distance > 0:
        return None
    for each in range(1, 1000):
        df = max(noise.df, 2 * each - 2)
        if _t(confidence, df) * noise.sd * math.sqrt(2 / each) <= distance:
            return each
    return None


def trimmed_interval(values: Floats, alpha: float, trim: float = 0.1) -> tuple[Floats, Floats, Floats]:
    """Return low, mean and high of the mean without the lowest and highest share `trim`, along the last axis.

    Each bound misses by a chance of `alpha`: Student's t on the winsorised variance (Tukey and McLaughlin 1963; Yuen
    1974, Biometrika 61:165). With fewer values than 1 / trim nothing is cut and this is the plain t interval. Two
    values at least.
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


def share_interval(hits: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of a share by Wilson's score (1927), good at 0 of n and n of n too."""
    z, share = _z(confidence), hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return Interval(max(0.0, centre - half), share, min(1.0, centre + half))


def _within(processes: Sequence[Sequence[float]], q: float, confidence: float) -> Interval:
    """Return the mean log quantile of several processes, with the noise within them alone."""
    each = [quantile_interval(samples, q, confidence) for samples in processes]
    value = sum(i.value for i in each) / len(each)
    below = math.hypot(*(i.value - i.low for i in each)) / len(each)
    above = math.hypot(*(i.high - i.value for i in each)) / len(each)
    return Interval(value - below, value, value + above)


@lru_cache(maxsize=64)
def _z(confidence: float) -> float:
    return float(ndtri(0.5 + confidence / 2))


@lru_cache(maxsize=256)
def _t(confidence: float, df: float) -> float:
    return _z(confidence) if math.isinf(df) else float(stdtrit(df, 0.5 + confidence / 2))


def _exp(x: float) -> float:
    return math.inf if x > 700 else math.exp(x)
