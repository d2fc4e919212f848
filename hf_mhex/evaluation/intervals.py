"""Intervals of means over few rows: bootstrap, paired for differences, Student's for a few seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np

from hf_mhex.baselines import library


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile interval and the number of independent rows (or groups) it rests on."""

    estimate: float
    low: float
    high: float
    rows: int

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    values, groups=None, statistic: str = "mean", level: float = 0.95, samples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap (Efron 1979) of the mean or median of N values.

    Args:
        values: N finite numbers, one a row. groups: N ids; rows of one group (questions about one mosaic) are drawn
            together, since they are not independent.
        statistic: "mean" or "median". level: coverage. samples: number of resamples.

    One row or group alone gives an interval without width; its `rows` says so. Raises ValueError for no values,
    values that are not finite, another statistic, or groups of another length.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"values must be finite numbers, at least one, in one list; got shape {values.shape}.")
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic must be 'mean' or 'median', got {statistic!r}.")
    compute = np.mean if statistic == "mean" else np.median
    members = group_members(len(values), groups)
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(members), (samples, len(members)))
    if groups is None:
        found = compute(values[draws], axis=1)
    else:
        found = np.array([compute(values[np.concatenate([members[i] for i in draw])]) for draw in draws])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(compute(values)), float(low), float(high), len(members))


def group_members(rows: int, groups) -> list[np.ndarray]:
    """The rows of each group; each row alone where there are no groups."""
    if groups is None:
        return [np.array([row]) for row in range(rows)]
    groups = np.asarray(groups)
    if groups.shape != (rows,):
        raise ValueError(f"groups must be {rows} ids, one a value; got shape {groups.shape}.")
    return [np.flatnonzero(groups == group) for group in np.unique(groups)]


def paired_difference(left, right, groups=None, level: float = 0.95, samples: int = 2000, seed: int = 0) -> Interval:
    """Interval of mean(left - right) over the same rows: rows are resampled together, so what they share cancels.

    Two methods whose own intervals overlap may still differ surely here. Raises ValueError for lengths that differ.
    """
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"left and right must be the same rows, got {left.shape} and {right.shape}.")
    return bootstrap(left - right, groups, "mean", level, samples, seed)


def share_interval(share: float, rows: int, level: float = 0.95) -> Interval:
    """Wilson's interval (1927) of a share of independent rows, such as an accuracy.

    Raises ValueError for a share outside [0, 1] and fewer rows than one.
    """
    if not 0 <= share <= 1 or rows < 1:
        raise ValueError(f"share must lie in [0, 1] and rows be at least 1, got {share} and {rows}.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    low, high = min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))  # up to rounding
    return Interval(share, low, high, rows)


def student_interval(values, level: float = 0.95) -> Interval:
    """Mean of N numbers, one a seed, with the interval of Student's t (N - 1 degrees of freedom).

    For differences between networks that share their seeds, where too few are there to resample. Raises ValueError for
    fewer than two values, RuntimeError without scipy (extra `train`).
    """
    values = [float(value) for value in values]
    if len(values) < 2:
        raise ValueError(f"values must be at least two numbers, one a seed; got {len(values)}.")
    quantile = library("scipy.stats").t.ppf((1 + level) / 2, len(values) - 1)
    half = float(quantile) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values), fmean(values) - half, fmean(values) + half, len(values))
