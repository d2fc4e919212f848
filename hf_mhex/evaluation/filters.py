"""Filters of a block for one class: each filter's map alone, its likeness to Grad-CAM, and what its removal costs.

Source: Uzun & Yildirim, "A filter-level explainability framework for CNNs in histopathology image analysis" (Computers
in Biology and Medicine, 2025): single filters against Grad-CAM by Pearson correlation, Dice and mean squared error;
progressive ablation; scores of intensity, frequency and spatial spread; significance. Only its abstract could be read,
so the exact scores and tests are ours. Beside them stands each filter's exact share of the logit (`channels`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from hf_mhex.baselines import library
from hf_mhex.evaluation.channels import weighed_rows
from hf_mhex.evaluation.ordering import correlation, float64, unit_range
from hf_mhex.evaluation.pieces import Piece, block_features, blocks_of, is_plain, removed
from hf_mhex.evaluation.problems import check_single_labels
from hf_mhex.modeling.mhex_maps import Features, check_blocks

MARKED = 0.5  # from which a map in [0, 1] marks a position


@dataclass(frozen=True)
class Filter:
    """A channel of a block for a class; means over the class's rows.

    Args:
        weight, contribution, share: exact, as in the channels report: the entry of the equivalent matrix with the
            block's factor, what it adds to the logit, and that as a share of all the block's filters' sizes, signed.
            On a plain network exact before its last linear layer; else `weight` is None, and the contribution is how
            far the logit falls without the filter.
        pearson, dice, mse: of its map and Grad-CAM's, both in [0, 1] at the input's size.
        intensity: mean activation. frequency: share of rows in which it is active (its mean above a tenth of its
            largest). spread: entropy of the map over that of an even one, 1 for everywhere.
        p_likeness, q_likeness: Wilcoxon's signed-rank test of its likeness to the row's own Grad-CAM against that to
            another row's, and its q-value over all filters (Benjamini-Hochberg). p_class, q_class: Mann-Whitney's test
            of its activation in the class's rows against the others'.
    """

    channel: int
    weight: float | None
    contribution: float
    share: float
    pearson: float
    dice: float
    mse: float
    intensity: float
    frequency: float
    spread: float
    p_likeness: float
    q_likeness: float
    p_class: float
    q_class: float


@dataclass(frozen=True)
class FilterReport:
    """All filters of a block for a class, strongest first by the size of their contributions.

    `curves`: for orders "strongest first" and "weakest first" by contribution, and the same by likeness, the points
    (filters removed, mean probability of the class, share of its rows still answered with it).
    """

    block: int
    label: int
    rows: int
    filters: tuple[Filter, ...]
    curves: dict[str, tuple[tuple[int, float, float], ...]]


def maps_of(features: Features) -> torch.Tensor:
    """Each filter's map alone, [B, channels, H, W]: its activation, cut at 0."""
    return features.summands[0].unflatten(2, features.shape).relu().float().cpu()


def filter_report(
    model, data: Iterable[dict], label: int, block: int = -1, grad_cam: Callable | None = None, steps: int = 8
) -> FilterReport:
    """Every filter of a block over the rows of a class.

    Args:
        model: an MHEX image classifier in eval mode, or a plain network of convolutions
            (`hf_mhex.training.load_plain`). data: batches of pixel_values and labels.
        label: the class; its rows are those labelled with it. grad_cam: `grad_cam(model, pixels, target, block) ->
            [B, H, W]` in [0, 1]; None for grad-cam's (extra "bench"). steps: of the ablation.

    Raises ValueError for a model of texts or of several labels a row, a label or block that is not there, and fewer
    than two rows of the class or none of another.
    """
    if model.main_input_name != "pixel_values":
        raise ValueError(f"model must be for images, {type(model).__name__} is not; filters have maps there.")
    check_single_labels(model)
    if not 0 <= label < model.config.num_labels:
        raise ValueError(f"label must lie in [0, {model.config.num_labels - 1}], got {label}.")
    (block,) = check_blocks([block], len(blocks_of(model)))
    batches = [batch for batch in data if len(batch["labels"])]
    labels = torch.cat([batch["labels"].cpu() for batch in batches])
    inside = labels == label
    if inside.sum() < 2 or inside.all():
        raise ValueError(
            f"data must hold two rows of label {label} ({model.config.id2label[label]}) and one of another, which are "
            f"compared; got {int(inside.sum())} of {len(labels)} rows. Take more rows, or shuffle a file that is "
            "sorted by label."
        )
    grad_cam = grad_cam or library_grad_cam
    maps, descriptors, cams, pixels = [], [], [], []
    for batch in batches:
        shown = block_features(model, batch, block)
        descriptors.append(float64(shown.p))
        here = (batch["labels"] == label).nonzero()[:, 0]
        if len(here):
            maps.append(maps_of(shown)[here])
            pixels.append(batch["pixel_values"][here])
            target = torch.full((len(here),), label, device=pixels[-1].device)
            cams.append(grad_cam(model, pixels[-1], target, block).float().cpu())
    features, cams = torch.cat(maps), torch.cat(cams)
    found = [
        of_filter(number, features[:, number], cams, torch.cat(descriptors)[:, number], inside)
        for number in range(features.shape[1])
    ]
    weights = exact_weights(model, block, label)
    if weights is None:
        amounts = falls_without(model, torch.cat(pixels), label, block, features.shape[1])
    else:
        amounts = weights * torch.cat(descriptors)[inside].mean(0)
    size = float(amounts.abs().sum()) or 1.0
    q_values = {name: corrected([one[f"p_{name}"] for one in found]) for name in ("likeness", "class")}
    filters = []
    for number, one in enumerate(found):
        amount = float(amounts[number])
        rest = {f"q_{name}": values[number] for name, values in q_values.items()}
        weight = None if weights is None else float(weights[number])
        filters.append(Filter(number, weight, amount, amount / size, **one, **rest))
    ranked = sorted(filters, key=lambda one: -abs(one.contribution))
    orders = {"contribution": ranked, "likeness": sorted(filters, key=lambda one: -one.pearson)}
    curves = {}
    for name, order in orders.items():
        for way, ordered in (("strongest", order), ("weakest", order[::-1])):
            numbers = [one.channel for one in ordered]
            curves[f"{way} first by {name}"] = ablation(model, torch.cat(pixels), label, block, numbers, steps)
    return FilterReport(block, label, int(inside.sum()), tuple(ranked), curves)


def exact_weights(model, block: int, label: int) -> torch.Tensor | None:
    """What the logit of a label takes of a block's pooled filters, [C]; None where no linear layer reads them."""
    from hf_mhex.baselines.cams import ends_in_cam
    from hf_mhex.baselines.networks import trunk_of

    if not is_plain(model):
        return float64(weighed_rows(model, None)[block][label])
    if block < len(blocks_of(model)) - 1 or not ends_in_cam(model):
        return None
    return float64(trunk_of(model).fc.weight[label])


@torch.no_grad()
def falls_without(model, pixels, label: int, block: int, count: int) -> torch.Tensor:
    """How far the mean logit of a label falls without each filter of a block, [C]."""

    def logit() -> float:
        return float(
            float64(torch.cat([model(pixel_values=part).logits for part in pixels.split(32)])[:, label]).mean()
        )

    whole, found = logit(), []
    for number in range(count):
        with removed(model, [Piece(block, "channels", number, number, number + 1)]):
            found.append(whole - logit())
    return torch.tensor(found, dtype=torch.float64)


def library_grad_cam(model, pixels: torch.Tensor, target: torch.Tensor, block: int) -> torch.Tensor:
    """Grad-CAM at what a block's head reads, cut at 0 and scaled to [0, 1], by grad-cam: [B, H, W].

    The last block shows what its head reads, an earlier one its output, which later blocks read.
    """
    from hf_mhex.baselines.cams import cam_of_layer
    from hf_mhex.baselines.networks import PixelsToLogits, private_copy

    network = PixelsToLogits(private_copy(model))
    module = blocks_of(network.model)[block]
    last = not is_plain(model) and block == model.num_blocks - 1
    layer = module.feature_map if last else module
    return cam_of_layer("GradCAM", network, layer, pixels, target)


def of_filter(number: int, maps: torch.Tensor, cams: torch.Tensor, descriptor: torch.Tensor, inside) -> dict:
    """Likeness, scores and p-values of a filter from its maps [B, h, w] in the class's rows.

    Args:
        cams: Grad-CAM of these rows [B, H, W]. descriptor: its p in all rows [N]; inside: which are the class's.
    """
    stats = library("scipy.stats")
    shown = unit_range(F.interpolate(maps[:, None], cams.shape[-2:], mode="bilinear")[:, 0])
    own = [correlation(left, right, "pearson") for left, right in zip(shown, cams)]
    other = [correlation(left, right, "pearson") for left, right in zip(shown, cams.roll(1, 0))]
    marked, cam_marked = shown >= MARKED, cams >= MARKED
    both = (marked & cam_marked).sum((1, 2)).double()
    dice = 2 * both / (marked.sum((1, 2)) + cam_marked.sum((1, 2))).clamp(min=1)
    flat = maps.flatten(1).double()
    shares = flat / flat.sum(1, keepdim=True).clamp(min=1e-12)
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum(1) / max(1e-12, float(np.log(flat.shape[1])))
    means = flat.mean(1)
    change = np.subtract(own, other)
    likeness = stats.wilcoxon(change, alternative="greater").pvalue if np.any(change) else 1.0
    values = descriptor.numpy()
    # of values that are all alike scipy 1.18 makes NaN
    apart = stats.mannwhitneyu(values[inside.numpy()], values[~inside.numpy()]).pvalue if np.ptp(values) else 1.0
    return {
        "pearson": float(np.mean(own)),
        "dice": float(dice.mean()),
        "mse": float((shown - cams).double().square().mean()),
        "intensity": float(means.mean()),
        "frequency": float((means > 0.1 * means.max()).double().mean()),
        "spread": float(entropy.mean()),
        "p_likeness": float(likeness),
        "p_class": float(apart),
    }


def corrected(p_values: list[float]) -> list[float]:
    """Benjamini and Hochberg's q-values."""
    return library("scipy.stats").false_discovery_control(p_values).tolist()


@torch.no_grad()
def ablation(model, pixels, label: int, block: int, order: list[int], steps: int) -> tuple:
    """(filters removed, mean probability of the class, share answered with it), `steps` + 1 points."""
    points = []
    for count in sorted({round(step * len(order) / steps) for step in range(steps + 1)}):
        pieces = [Piece(block, "channels", number, number, number + 1) for number in order[:count]]
        with removed(model, pieces):
            logits = torch.cat([float64(model(pixel_values=part).logits) for part in pixels.split(32)])
        sure = float(logits.softmax(-1)[:, label].mean())
        points.append((count, sure, float((logits.argmax(-1) == label).double().mean())))
    return tuple(points)
