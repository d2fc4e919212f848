"""Faithfulness of an order of zones: how fast the predicted class loses probability when zones are masked in it.

Masking k zones sets them to `fill`; the area is the mean loss over k = 1 ... Z (AOPC), for each row. All 2**Z sets of
zones are asked once, so the bounds over every order, by which the area is normalised, are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hf_mhex.explaining.zones import Zones
from hf_mhex.modeling.pipeline_mhex import scores_of

MOST_ZONES = 12


@dataclass(frozen=True)
class ZoneFaithfulness:
    """How well an order of zones does; means over rows.

    Args:
        area: mean loss of the predicted class' probability over the steps; higher is better.
        normalised: where the area lies between the worst (0) and the best order (1) of each row; rows whose orders are
            all alike are left out.
        percentile: share of random orders whose area is below, in [0, 100].
    """

    area: float
    normalised: float
    percentile: float


class MaskedZones:
    """The losses of a model for every set of masked zones.

    Args:
        model: a classifier of input_values [N, C, L] in eval mode.
        values: the signals as the model reads them, [N, C, L].
        zones: at most 12 of them.
        fill: what masked points become, [C, L] or a number; None for the rows' median, point by point.

    Raises ValueError for too many zones and values that do not fit.
    """

    @torch.no_grad()
    def __init__(self, model, values: torch.Tensor, zones: Zones, fill: torch.Tensor | float | None = None):
        if len(zones) > MOST_ZONES:
            raise ValueError(f"zones must be at most {MOST_ZONES}, for 2**{MOST_ZONES} passes; got {len(zones)}.")
        if values.ndim != 3 or values.shape[-1] != len(zones.axis) or not values.isfinite().all():
            raise ValueError(f"values must be finite [N, C, {len(zones.axis)}], got {list(values.shape)}.")
        self.zones = zones
        fill = values.median(0).values if fill is None else torch.as_tensor(fill).to(values)
        members, scores = torch.from_numpy(zones.members).to(values.device), []
        for chosen in range(2 ** len(zones)):
            inside = members[[bool(chosen >> zone & 1) for zone in range(len(zones))]].any(0)
            logits = model(input_values=torch.where(inside, fill, values)).logits
            scores.append(scores_of(logits, model.config).cpu().double().numpy())
        predicted = scores[0].argmax(-1)
        rows = np.arange(len(values))
        self.losses = np.stack([scores[0][rows, predicted] - found[rows, predicted] for found in scores])  # [2**Z, N]

    def alone(self) -> np.ndarray:
        """The loss when one zone is masked, [Z, N]: occlusion."""
        return self.losses[[1 << zone for zone in range(len(self.zones))]]

    def areas(self, order: Sequence[int]) -> np.ndarray:
        """Each row's area [N] for masking zones in an order of all their numbers."""
        if sorted(order) != list(range(len(self.zones))):
            raise ValueError(f"order must hold each number below {len(self.zones)} once, got {list(order)}.")
        masks = np.cumsum([1 << int(zone) for zone in order])
        return self.losses[masks].mean(0)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest area of any order, [N] each."""
        count = len(self.zones)
        low, high = np.zeros_like(self.losses), np.zeros_like(self.losses)
        for chosen in range(1, 2**count):
            before = [chosen ^ (1 << zone) for zone in range(count) if chosen >> zone & 1]
            low[chosen] = self.losses[chosen] + low[before].min(0)
            high[chosen] = self.losses[chosen] + high[before].max(0)
        return low[-1] / count, high[-1] / count

    def judge(self, relevance: Sequence[float], draws: int = 1000, seed: int = 0) -> ZoneFaithfulness:
        """How well the zones do in the order of their relevance, the highest first, beside `draws` random orders."""
        if len(relevance) != len(self.zones) or not np.isfinite(relevance).all():
            raise ValueError(f"relevance must be {len(self.zones)} finite numbers, one a zone, got {list(relevance)}.")
        found = self.areas(np.argsort(-np.asarray(relevance), kind="stable").tolist())
        low, high = self.bounds()
        open_rows = high - low > 1e-9
        normalised = ((found - low)[open_rows] / (high - low)[open_rows]).mean() if open_rows.any() else np.nan
        generator = np.random.default_rng(seed)
        null = [self.areas(generator.permutation(len(self.zones)).tolist()).mean() for _ in range(draws)]
        percentile = 100 * (np.mean(np.array(null) < found.mean()) + 0.5 * np.mean(np.array(null) == found.mean()))
        return ZoneFaithfulness(float(found.mean()), float(normalised), float(percentile))
