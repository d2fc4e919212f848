"""Orders and ranks of a map's values that treat ties as ties."""

from __future__ import annotations

import math

import torch


def float64(values: torch.Tensor) -> torch.Tensor:
    """The same numbers in float64, on the CPU and without a gradient: Apple's GPUs have no float64."""
    return values.detach().cpu().double()


def removal_order(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Indices of `values` [N] from highest to lowest; equal values come in random order.

    A stable sort would take ties from the top left, so that a flat map would be judged as "remove the top rows first".
    """
    shuffled = torch.randperm(len(values), generator=generator)
    return shuffled[torch.sort(values.detach().cpu()[shuffled], descending=True, stable=True).indices]


def top_count(share: float, features: int) -> int:
    """How many of `features` a share in (0, 1] names: rounded up, at least 1.

    Raises ValueError for a share outside (0, 1] and for no features.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}.")
    if features < 1:
        raise ValueError(f"features must be at least 1, got {features}: nothing can be removed from an empty input.")
    return max(1, math.ceil(share * features - 1e-9))


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks of `values` [N] from 0, float64; equal values share the mean of their ranks."""
    values = values.detach().flatten()
    _, inverse, counts = torch.unique(values, sorted=True, return_inverse=True, return_counts=True)
    mean_rank = counts.cumsum(0).double() - (counts.double() + 1) / 2
    return mean_rank[inverse]


def correlation(left: torch.Tensor, right: torch.Tensor, how: str = "spearman") -> float:
    """Correlation of two maps of one shape: "spearman" (of ranks, ties averaged) or "pearson".

    Two equal maps have 1, flat ones included (nothing changed); a flat map against another has 0 (the coefficient is
    not defined there, and nothing is shared). Raises ValueError for shapes that differ or another `how`.
    """
    if left.shape != right.shape:
        raise ValueError(f"left and right must be alike in shape, got {list(left.shape)} and {list(right.shape)}.")
    if how not in ("spearman", "pearson"):
        raise ValueError(f"how must be 'spearman' or 'pearson', got {how!r}.")
    left, right = float64(left).flatten(), float64(right).flatten()
    if torch.equal(left, right):
        return 1.0
    if is_flat(left) or is_flat(right):
        return 0.0
    if how == "spearman":
        left, right = ranks(left), ranks(right)
    left, right = left - left.mean(), right - right.mean()
    return float((left @ right) / (left.norm() * right.norm()))


def is_flat(values: torch.Tensor) -> bool:
    """Whether a map varies by no more than 1e-6 of its size (as maps that should be constant do by rounding)."""
    return bool(values.max() - values.min() <= 1e-6 * values.abs().max())


def unit_range(maps: torch.Tensor) -> torch.Tensor:
    """Each map of [B, ...] brought to [0, 1] by its least and greatest value; flat maps give zeros."""
    flat = maps.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    varies = high - low > 1e-6 * flat.abs().amax(1, keepdim=True)
    return torch.where(varies, (flat - low) / (high - low), 0).view_as(maps)
