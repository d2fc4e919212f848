"""Summary of a model's maps for its card: a few figures, made in seconds, beside those of a random map."""

from __future__ import annotations

import itertools

import torch

from hf_mhex import evaluation as ev
from hf_mhex.benchmarks.explanations.images import BATCH, ImageMeasures, in_batches
from hf_mhex.benchmarks.explanations.methods import mhex_map, tensor_of
from hf_mhex.benchmarks.explanations.parts import (
    Images,
    Sizes,
    Texts,
    logits_of_part,
    maps_of,
    probabilities,
    text_scores,
)
from hf_mhex.evaluation.controls import random_map

CONTRAST = "softmax"


def summarise_quality(model, part: Images | Texts, rows: int = 48, questions: int = 108, seed: int = 0) -> list[dict]:
    """The few measures of one network's maps on held-out rows, each with the same measure of a random map.

    The maps are those of `generate_saliency` with its defaults ("map"), with contrast="softmax" ("contrast"), and
    uniform noise ("random"). Images: Grid Pointing Game, 2 x 2. Texts: comprehensiveness and sufficiency by [MASK].
    Both: completeness error. docs/evaluation.md says what each is.

    Args:
        part: rows that the network was not trained on. rows: how many of them, the first ones. questions: of the Grid
            Pointing Game, on mosaics of rows that are classified rightly. seed: of mosaics, noise and intervals.

    Returns a list of dicts: `measure`, `better` ("higher" or "lower"), `rows`, and under "map", "contrast" and "random"
    a dict of `estimate`, `low` and `high` (95 % bootstrap; mosaics are drawn whole).
    """
    first = torch.arange(min(rows, len(part)))
    few = part.take(first)
    methods = maps_to_judge(seed)
    exact = {name: errors(model, few, call, name == "contrast") for name, call in methods.items()}
    found = [entry("completeness error, mean", "lower", exact)]
    if isinstance(part, Images):
        measures = ImageMeasures(model, part, Sizes(rows=1, questions=questions), seed=seed)
        shares = {name: measures.grid(2, in_batches(call), slow=False) for name, call in methods.items()}
        groups = next(iter(shares.values()))["mosaic"]
        values = {name: share["grid pointing 2x2"] for name, share in shares.items()}
        for statistic in ("mean", "median"):
            found.append(entry(f"Grid Pointing Game 2x2, {statistic}", "higher", values, groups, statistic))
        return found
    rationales = {name: by_mask(model, part.take(first), call, seed) for name, call in methods.items()}
    for place, (name, better) in enumerate((("comprehensiveness", "higher"), ("sufficiency", "lower"))):
        values = {method: [row[place] for row in pairs] for method, pairs in rationales.items()}
        found.append(entry(f"{name} by [MASK], mean", better, values))
    return found


def maps_to_judge(seed: int) -> dict:
    """`call(model, inputs, target) -> maps` by name; noise is drawn anew for every batch."""
    draws = itertools.count(seed)
    return {
        "map": mhex_map,
        "contrast": lambda model, inputs, target: mhex_map(model, inputs, target, contrast=CONTRAST),
        "random": lambda model, inputs, target: random_map(tensor_of(inputs), next(draws)),
    }


def entry(measure: str, better: str, values: dict[str, list[float]], groups=None, statistic: str = "mean") -> dict:
    """One measure of every kind of map."""
    found = {name: ev.bootstrap(rows, groups, statistic) for name, rows in values.items()}
    figures = {name: {"estimate": i.estimate, "low": i.low, "high": i.high} for name, i in found.items()}
    return {"measure": measure, "better": better, "rows": len(next(iter(values.values()))), **figures}


def explained_logits(logits: torch.Tensor, contrast: bool) -> torch.Tensor:
    """What a map of the best label must add up to, [B], from the logits [B, K] alone: its logit, or its lead."""
    best, target = logits.max(-1)
    if not contrast:
        return best
    others = logits.scatter(1, target[:, None], -torch.inf).softmax(-1)
    return best - (others * logits).sum(-1)


def errors(model, part: Images | Texts, call, contrast: bool) -> list[float]:
    """Completeness error of every row, in the order of the part's batches."""
    logits, found = logits_of_part(model, part).double(), []
    for rows, inputs in part.batches(BATCH):
        maps = maps_of(call, model, inputs, logits[rows].argmax(-1))
        found += ev.completeness_error(maps, explained_logits(logits[rows], contrast)).tolist()
    return found


def by_mask(model, part: Texts, call, seed: int) -> list[tuple[float, float]]:
    """Comprehensiveness and sufficiency of every text, [MASK] in the place of a removed token."""
    target, found = logits_of_part(model, part).argmax(-1), []
    for rows, inputs in part.batches(BATCH):
        for row, values in zip(rows.tolist(), maps_of(call, model, inputs, target[rows])):
            ids = part.ids[row]
            game = ev.TextGame(
                probabilities(text_scores(model)), ids, torch.ones_like(ids), int(target[row]), "mask",
                part.mask_id, part.pad_id, part.special_ids,
            )  # fmt: skip
            values = values[: len(ids)][game.places]
            found.append((ev.comprehensiveness(game, values, seed=seed), ev.sufficiency(game, values, seed=seed)))
    return found
