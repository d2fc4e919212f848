"""Stability of explanations under small changes and over runs, and the prediction gap: RIS, ROS, RES and PGI.

Source: Ortigossa et al., T-Explainer (arXiv 2404.16495), as its authors' published metrics compute them, after Agarwal
et al., "Rethinking Stability for Attribution-based Explanations" (2203.06877) and OpenXAI. A relative change of a
vector v to v' is |(v - v') / v|, Euclidean, entry by entry; entries of 0 count 0, others no less than 1e-6 in size.

    RIS = change of the explanation / change of the input        lower is better
    ROS = change of the explanation / change of the probabilities    lower
    RES = largest distance of a run's explanation from the runs' mean    lower; 0 without chance
    PGI = |p(x) - p(x without the k strongest features)|, the mean over k    higher

`method(model, inputs, target) -> maps` explains images [B, C, H, W]; features are square cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

SMALL = 1e-6


def relative_change(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """|(v - v') / v| of rows [B, ...], [B], float64; see the head of this file."""
    before, after = before.flatten(1).double(), after.flatten(1).double()
    size = before.sign() * before.abs().clamp(min=SMALL)
    return torch.where(before != 0, (before - after) / torch.where(before != 0, size, 1), 0).norm(dim=1)


def relative_stability(
    method: Callable,
    score: Callable,
    model,
    inputs: torch.Tensor,
    target: torch.Tensor,
    changes: int = 4,
    noise: float = 0.05,
    cells: int = 7,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """RIS and ROS of every row, [B]: the largest over `changes` draws of Gaussian noise that keep the answered class.

    Args:
        score: probabilities [B, K] of inputs. A draw that changes the class is left out; a row without any has 0.
    """
    generator = torch.Generator().manual_seed(seed)
    own, before = as_cells(method(model, inputs, target), cells), score(inputs)
    found = {name: torch.zeros(len(inputs), dtype=torch.float64) for name in ("RIS", "ROS")}
    for _ in range(changes):
        changed = inputs + noise * torch.randn(inputs.shape, generator=generator).to(inputs)
        after = score(changed)
        kept = (before.argmax(-1) == after.argmax(-1)).cpu()
        moved = relative_change(own, as_cells(method(model, changed, target), cells)).cpu()
        for name, pair in (("RIS", (inputs, changed)), ("ROS", (before, after))):
            ratio = moved / relative_change(*pair).cpu().clamp(min=SMALL)
            found[name] = torch.where(kept, torch.maximum(found[name], ratio), found[name])
    return found


def run_stability(method: Callable, model, inputs, target, runs: int = 3, cells: int = 7) -> torch.Tensor:
    """RES of every row, [B]: how far the explanation of a run lies from their mean at most; random states go on."""
    maps = torch.stack([as_cells(method(model, inputs, target), cells) for _ in range(runs)]).double()
    return (maps - maps.mean(0)).flatten(2).norm(dim=2).amax(0).cpu()


def prediction_gap(
    score: Callable, inputs: torch.Tensor, maps: torch.Tensor, target: torch.Tensor, most=(1, 3, 5), cells: int = 7
) -> torch.Tensor:
    """PGI of every row, [B]: |p - p'| of the target with the k cells of largest size set to 0, the mean over k."""
    values = as_cells(maps, cells)
    order = values.flatten(1).abs().argsort(dim=1, descending=True, stable=True)
    rows = torch.arange(len(inputs), device=inputs.device)
    before = score(inputs)[rows, target].double()
    gaps = []
    for count in most:
        keep = torch.ones_like(values).flatten(1).scatter(1, order[:, :count], 0).view_as(values)
        shown = F.interpolate(keep[:, None].to(inputs), inputs.shape[-2:], mode="nearest-exact")
        gaps.append((before - score(inputs * shown)[rows, target].double()).abs())
    return torch.stack(gaps).mean(0).cpu()


def as_cells(maps: torch.Tensor, cells: int) -> torch.Tensor:
    """Maps [B, H, W] as means over at most cells x cells squares."""
    return F.adaptive_avg_pool2d(maps.double()[:, None], [min(cells, side) for side in maps.shape[1:]])[:, 0]
