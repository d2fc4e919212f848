"""The form of a map, whatever it says: sparseness, entropy and area.

None of these is better high or low by itself: a sparse map can be wrong. Values are of |map|, one a row.
"""

from __future__ import annotations

import torch

from hf_mhex.evaluation.ordering import float64


def gini(maps: torch.Tensor) -> torch.Tensor:
    """Gini index of |map|, [B]: 0 where all values are equal (a zero map too), 1 - 1/N where one pixel has all.

    sum_i (2 i - N - 1) v_i / (N sum v) over v in rising order, i from 1. Source: Chalasani et al., "Concise
    Explanations of Neural Networks using Adversarial Training" (2020), sparseness.
    """
    values = float64(maps).flatten(1).abs().sort(1).values
    count = values.shape[1]
    places = 2 * torch.arange(1, count + 1, dtype=torch.float64) - count - 1
    total = values.sum(1)
    return torch.where(total > 0, (values @ places) / (count * total.clamp(min=1e-300)), 0)


def entropy(maps: torch.Tensor) -> torch.Tensor:
    """Entropy of |map| / sum |map| in nats, [B]: log N where all are equal (a zero map too), 0 where one pixel has all.

    Source: Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations" (2020), complexity. Quantus'
    "complexity" is this; its discrete entropy (of a histogram of values) is another quantity.
    """
    values = float64(maps).flatten(1).abs()
    total = values.sum(1, keepdim=True)
    shares = torch.where(total > 0, values / total.clamp(min=1e-300), 1 / values.shape[1])
    return torch.special.entr(shares).sum(1)


def marked_area(maps: torch.Tensor, threshold: float = 0.2) -> torch.Tensor:
    """Share of the pixels of maps in [0, 1] that lie above the threshold, [B]; the t of EAD."""
    return float64(maps > threshold).flatten(1).mean(1)
