"""The MHEX paper's measures: how far a prediction falls when the marked part is taken away.

Source: Sun & Lio, arXiv 2501.01311. All of them *remove* what the map points at, so higher is better. (Grad-CAM++'s
"Average Drop %" removes what the map does not point at, and lower is better: a like name, the opposite measure.)

Conventions. `score(inputs) -> [B, K]` gives softmax probabilities, of the explained network or, as in the paper, of a
separate one that never saw the map. p and p' are those of the explained class on the input and on the changed input.
Maps lie in [0, 1] at input size. "Zero" is 0 of the normalised input (the data's mean colour). A flat map marks nothing
in the hard measures after min-max (all 0), and so has drop 0. Answers are one value a row; the measure is their mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hf_mhex.evaluation.form import marked_area
from hf_mhex.evaluation.ordering import float64, removal_order, top_count

Score = Callable[[torch.Tensor], torch.Tensor]


def average_drop(score: Score, inputs: torch.Tensor, maps: torch.Tensor, target, threshold: float = 0.5):
    """AVG Drop (hard): pixels with m > threshold become 0; max(0, (p - p') / p) a row, [B].

    Args:
        score: probabilities [B, K] of inputs [B, C, H, W]. maps: [B, H, W] in [0, 1]. target: B classes or one.

    Raises ValueError for maps outside [0, 1] or of another size.
    """
    check_maps(inputs, maps)
    return relative_drop(score, inputs, inputs * (maps <= threshold)[:, None], target)


def soft_average_drop(score: Score, inputs: torch.Tensor, maps: torch.Tensor, target):
    """SAD: x' = x (1 - m) + mean_colour(x) m, the mean over the image's own pixels; max(0, (p - p') / p), [B]."""
    check_maps(inputs, maps)
    mean_colour = inputs.mean((2, 3), keepdim=True)
    weight = maps[:, None].to(inputs.dtype)
    return relative_drop(score, inputs, inputs * (1 - weight) + mean_colour * weight, target)


def effective_average_drop(score: Score, inputs: torch.Tensor, maps: torch.Tensor, target):
    """EAD: the hard drop times w(t) = 5 t / (1 + 256 t^5), t the share of pixels with m > 0.2, [B].

    w is 0 for an empty map, greatest at t = 1/4, where it is 1, and near 0 for maps that mark everything.
    """
    return average_drop(score, inputs, maps, target) * area_weight(marked_area(maps))


def area_weight(area: torch.Tensor) -> torch.Tensor:
    """w(t) = 5 t / (1 + 256 t^5): the paper's price of a marked area t in [0, 1]."""
    return 5 * area / (1 + 256 * area**5)


def text_drop(
    score: Callable[..., torch.Tensor],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    maps: torch.Tensor,
    target,
    mask_id: int,
    special_ids=(),
    share: float = 0.2,
    most: int = 20,
    seed: int = 0,
):
    """Text drop: the top 20 % of the tokens (at least 1, at most 20) become [MASK]; p - p' a row, [B].

    The difference is signed and not divided by p. Special tokens and padding are never replaced nor counted; a text
    without any other token has drop 0. Ties are broken at random. `score(input_ids, attention_mask) -> [B, K]`.
    """
    generator = torch.Generator().manual_seed(seed)
    changed = input_ids.clone()
    words = content_tokens(input_ids, attention_mask, special_ids)
    for row, inside in enumerate(words):
        places = inside.nonzero()[:, 0]
        if len(places):
            count = min(top_count(share, len(places)), most)
            changed[row, places[removal_order(maps[row, places], generator)[:count]]] = mask_id
    before, after = (of_target(score(ids, attention_mask), target) for ids in (input_ids, changed))
    return before - after


def special_ids(tokenizer) -> tuple[int, ...]:
    """Tokens that stand for no part of a text: all special ones but the unknown and the mask token."""
    return tuple(sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id, tokenizer.mask_token_id}))


def content_tokens(input_ids: torch.Tensor, attention_mask: torch.Tensor, special_ids=()) -> torch.BoolTensor:
    """Tokens [B, T] that stand for text: neither padding nor special ([CLS], [SEP])."""
    special = torch.tensor(list(special_ids), dtype=input_ids.dtype, device=input_ids.device)
    return (attention_mask != 0) & ~torch.isin(input_ids, special)


def relative_drop(score: Score, inputs: torch.Tensor, changed: torch.Tensor, target) -> torch.Tensor:
    """max(0, (p - p') / p) of the target class, [B], float64; 0 where p is 0 (nothing can fall)."""
    return relative_change(of_target(score(inputs), target), of_target(score(changed), target))


def relative_change(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """max(0, (p - p') / p) of probabilities [B] before and after; 0 where p is 0."""
    return torch.where(before > 0, (before - after) / before.clamp(min=1e-300), 0).clamp(min=0)


def of_target(scores: torch.Tensor, target) -> torch.Tensor:
    """scores [B, K] of one class, or of B classes, [B], float64; ValueError for a class that is not there."""
    target = torch.as_tensor(target, device="cpu").long().expand(len(scores))
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < scores.shape[-1]:
        raise ValueError(f"target must lie in [0, {scores.shape[-1] - 1}], got {target.tolist()}.")
    return float64(scores).gather(1, target[:, None])[:, 0]


def check_maps(inputs: torch.Tensor, maps: torch.Tensor) -> None:
    """Raise ValueError unless maps [B, H, W] in [0, 1] fit inputs [B, C, H, W]."""
    if maps.shape != (len(inputs), *inputs.shape[-2:]):
        raise ValueError(f"maps must be [B, H, W] like inputs {list(inputs.shape)}, got {list(maps.shape)}.")
    if not (maps.isfinite().all() and maps.min() >= 0 and maps.max() <= 1):
        raise ValueError("maps must lie in [0, 1]; bring them there with unit_range or normalize='minmax'.")
