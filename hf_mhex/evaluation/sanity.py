"""Sanity of a map, which must depend on model and class: parameter randomisation, random logit, completeness."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from hf_mhex.evaluation.form import entropy
from hf_mhex.evaluation.ordering import correlation, float64

Method = Callable[..., torch.Tensor]


def similarity(left: torch.Tensor, right: torch.Tensor, how: str = "spearman") -> torch.Tensor:
    """Correlation of the maps of two batches, row by row, [B]; see `correlation` for flat maps.

    A batch is a tensor [B, ...] or a list of B maps, whose shapes may differ from row to row.
    """
    return torch.tensor([correlation(a, b, how) for a, b in zip(left, right)], dtype=torch.float64)


@torch.no_grad()
def shuffle_parameters(parameters: Iterable[nn.Parameter], seed: int = 0) -> None:
    """Put the entries of every parameter in random order, in place.

    A shuffled layer keeps its scale and knows nothing. Buffers (running statistics of norms) stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that own parameters, by name, in the order of the model's definition: input first, heads last."""
    return [
        (name, module) for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))
    ]


def bottom_up(model: nn.Module, stages: int, seed: int = 0) -> Iterator[tuple[float, nn.Module]]:
    """A copy of the model whose layers are shuffled from the input up: (share of shuffled layers, the copy).

    It comes stages + 1 times, first as it was and last with every layer shuffled; it is the same copy each time. From
    the input up, since a map that reads the last layers only would pass a test from the top at once. Source: Hedstroem
    et al., "A Fresh Look at Sanity Checks for Saliency Maps" (2024).
    """
    changed = copy.deepcopy(model)
    every, done = layers(changed), 0
    for stage in range(stages + 1):
        count = round(stage * len(every) / stages)
        for number in range(done, count):
            shuffle_parameters(every[number][1].parameters(recurse=False), seed + number)
        done = count
        yield count / len(every), changed


def parameter_randomisation(
    method: Method, model: nn.Module, inputs, target, stages: int = 4, seed: int = 0, how: str = "spearman", own=None
) -> dict[str, list]:
    """MPRT: likeness of a method's maps to those of the model with its layers shuffled from the input up.

    "shares" [stages + 1] are the shares of shuffled layers (0 to 1), "similarity" the mean correlation with the model's
    own maps at each, "last" that of the full randomisation, row by row. Lower is better: 1 is a map that does not look
    at the model. Maps are compared raw and signed. Source: Adebayo et al., "Sanity Checks for Saliency Maps" (2018).
    `own` are the model's own maps, where they are known already.

    "complexity_rise" is efficient MPRT's: (entropy(full) - entropy(own)) / entropy(own), row by row, which needs no
    likeness of maps (Hedstroem et al. 2024); higher is better, as maps of noise say nothing in particular. 0 where the
    own map has no entropy. Their entropy is of a histogram, ours of |map| (`entropy`).
    """
    shares, means, last, changed = [], [], [], own
    for share, shuffled in bottom_up(model, stages, seed):
        if share or own is None:
            changed = method(shuffled, inputs, target)
        own = changed if own is None else own
        found = similarity(own, changed, how)
        shares.append(share)
        means.append(float(found.mean()))
        last = found.tolist()
    before, after = (torch.stack([entropy(one[None])[0] for one in maps]) for maps in (own, changed))
    rise = torch.where(before > 0, (after - before) / before.clamp(min=1e-300), 0)
    return {"shares": shares, "similarity": means, "last": last, "complexity_rise": rise.tolist()}


def random_logit(
    method: Method, model: nn.Module, inputs, target, num_labels: int, seed: int = 0, how: str = "spearman", own=None
) -> list[float]:
    """Random logit: correlation of the map of the target with that of another class drawn at random, row by row.

    Lower is better; 1 is a map that is blind to the class. With two labels the other one is taken; maps of logit
    differences then have -1. Source: Sixt et al., "When Explanations Lie" (2020), who measure likeness by SSIM. `own`
    are the maps of the target, where they are known already.

    Raises ValueError for a model with one label.
    """
    if num_labels < 2:
        raise ValueError(f"num_labels must be at least 2, got {num_labels}: there is no other class.")
    target = torch.as_tensor(target).long()
    generator = torch.Generator().manual_seed(seed)
    other = (target + torch.randint(1, num_labels, target.shape, generator=generator)) % num_labels
    own = method(model, inputs, target) if own is None else own
    return similarity(own, method(model, inputs, other), how).tolist()


def completeness_error(maps: torch.Tensor, explained: torch.Tensor) -> torch.Tensor:
    """|sum of the map - what it should add up to| / max(1, |explained|), [B], summed in float64."""
    explained = float64(explained)
    return (float64(maps).flatten(1).sum(1) - explained).abs() / explained.abs().clamp(min=1)
