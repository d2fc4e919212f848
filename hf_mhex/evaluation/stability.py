"""Stability of explanations under small changes and over runs, and the prediction gap: RIS, ROS, RES and PGI.

Source: Ortigossa et al., T-Explainer (arXiv 2404.16495), as its authors' published metrics compute them, after Agarwal
et al., "Rethinking Stability for Attribution-based Explanations" (2203.06877) and OpenXAI. A relative change of a
vector v to v' is |(v - v') / v|, Euclidean, entry by entry; entries of 0 count 0, others no less than 1e-6 in size.

    RIS = change of the explanation / change of the input        lower is better
    ROS = change of the explanation / change of the probabilities    lower
    RES = largest distance of a run's explanation from the runs' mean    lower; 0 without chance
    PGI = |p(x) - p(x without the k strongest features)|, the mean over k    higher

`method(model, inputs, target) -> maps` explains images [B, C, H, W], whose features are square cells and whose change
is Gaussian noise; or texts, a dict of input_ids and attention_mask [B, T] and the tokenizer's mask_id and special_ids.
Features of a text are its tokens, a missing one is [MASK], and its change is one token that becomes [MASK], measured on
the word embeddings. That is ours: the source explains tables.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from hf_mhex.evaluation.drop import content_tokens, of_target
from hf_mhex.evaluation.ordering import float64, removal_order

SMALL = 1e-6


def relative_change(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """|(v - v') / v| of rows [B, ...], [B], float64; see the head of this file."""
    before, after = float64(before).flatten(1), float64(after).flatten(1)
    size = before.sign() * before.abs().clamp(min=SMALL)
    return torch.where(before != 0, (before - after) / torch.where(before != 0, size, 1), 0).norm(dim=1)


def relative_stability(
    method: Callable,
    score: Callable,
    model,
    inputs,
    target: torch.Tensor,
    changes: int = 4,
    noise: float = 0.05,
    cells: int = 7,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """RIS and ROS of every row, [B]: the largest over `changes` draws of a change that keep the answered class.

    Args:
        score: probabilities [B, K] of inputs. A draw that changes the class is left out; a row without any has 0.
        noise: standard deviation, of images. cells: along a side, of images.
    """
    generator = torch.Generator().manual_seed(seed)
    own, before = as_features(method(model, inputs, target), inputs, cells), score(inputs)
    found = {name: torch.zeros(len(before), dtype=torch.float64) for name in ("RIS", "ROS")}
    for _ in range(changes):
        changed = change_of(inputs, noise, generator)
        after = score(changed)
        kept = (before.argmax(-1) == after.argmax(-1)).cpu()
        moved = relative_change(own, as_features(method(model, changed, target), inputs, cells))
        pairs = {"RIS": (as_numbers(model, inputs), as_numbers(model, changed)), "ROS": (before, after)}
        for name, pair in pairs.items():
            ratio = moved / relative_change(*pair).clamp(min=SMALL)
            found[name] = torch.where(kept, torch.maximum(found[name], ratio), found[name])
    return found


def run_stability(method: Callable, model, inputs, target, runs: int = 3, cells: int = 7) -> torch.Tensor:
    """RES of every row, [B]: how far the explanation of a run lies from their mean at most; random states go on."""
    maps = torch.stack([as_features(method(model, inputs, target), inputs, cells) for _ in range(runs)])
    return (maps - maps.mean(0)).flatten(2).norm(dim=2).amax(0)


def prediction_gap(
    score: Callable, inputs, maps: torch.Tensor, target: torch.Tensor, most=(1, 3, 5), cells: int = 7, seed: int = 0
) -> torch.Tensor:
    """PGI of every row, [B]: |p - p'| of the target without the k features of largest size, the mean over k.

    Missing cells are 0; missing tokens [MASK], all of them where a text has fewer than k. Features of equal size go in
    an order that `seed` draws for each row.
    """
    values = as_features(maps, inputs, cells)
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([removal_order(row, generator) for row in sizes_of(values, inputs)])
    before = of_target(score(inputs), target)
    gaps = []
    for count in most:
        keep = torch.ones_like(values).flatten(1).scatter(1, order[:, :count], 0).view_as(values)
        gaps.append((before - of_target(score(only_kept(inputs, keep)), target)).abs())
    return torch.stack(gaps).mean(0)


def sizes_of(values: torch.Tensor, inputs) -> torch.Tensor:
    """How large the features are that can be taken away, [B, features]; -1 for a token that is none."""
    sizes = values.flatten(1).abs()
    return sizes.masked_fill(~content_of(inputs).cpu(), -1) if isinstance(inputs, dict) else sizes


def change_of(inputs, noise: float, generator: torch.Generator):
    """The same inputs, a little changed: noise on pixels, or one content token of each text as [MASK]."""
    if not isinstance(inputs, dict):
        return inputs + noise * torch.randn(inputs.shape, generator=generator).to(inputs)
    ids, content = inputs["input_ids"], content_of(inputs)
    draws = torch.rand(ids.shape, generator=generator).to(ids.device).masked_fill(~content, -1)
    chosen = torch.zeros_like(content).scatter(1, draws.argmax(1, keepdim=True), True) & content
    return inputs | {"input_ids": ids.masked_fill(chosen, inputs["mask_id"])}


def only_kept(inputs, keep: torch.Tensor):
    """The inputs without the features for which `keep` is 0: [B, h, w] of cells, or [B, T] of tokens."""
    if not isinstance(inputs, dict):
        return inputs * F.interpolate(keep[:, None].to(inputs), inputs.shape[-2:], mode="nearest-exact")
    gone = (keep == 0).to(inputs["input_ids"].device) & content_of(inputs)
    return inputs | {"input_ids": inputs["input_ids"].masked_fill(gone, inputs["mask_id"])}


def as_numbers(model, inputs) -> torch.Tensor:
    """What a change of the inputs is measured on: pixels [B, C, H, W], or word embeddings [B, T, C]."""
    if not isinstance(inputs, dict):
        return inputs
    embed = model.get_input_embeddings()
    return embed(inputs["input_ids"].to(embed.weight.device)).detach()


def as_features(maps: torch.Tensor, inputs, cells: int) -> torch.Tensor:
    """Maps as explanations are compared: [B, h, w] of cells, or [B, T] with 0 on what is no content token."""
    if not isinstance(inputs, dict):
        return as_cells(maps, cells)
    return float64(maps) * content_of(inputs).cpu()


def content_of(inputs: dict) -> torch.BoolTensor:
    """The tokens of a batch of texts that are neither padding nor special, [B, T]."""
    return content_tokens(inputs["input_ids"], inputs["attention_mask"], inputs["special_ids"])


def as_cells(maps: torch.Tensor, cells: int) -> torch.Tensor:
    """Maps [B, H, W] as means over at most cells x cells squares."""
    return F.adaptive_avg_pool2d(float64(maps)[:, None], [min(cells, side) for side in maps.shape[1:]])[:, 0]
