"""T-Explainer: additive attributions from a first-order expansion, with the step chosen for each row.

Source: Ortigossa et al., "T-Explainer: A Model-Agnostic Explainability Framework Based on Gradients" (arXiv
2404.16495) and the authors' notebook (version 1.3): phi_0 = E[f(X)], phi_i the partial derivative of f at x by centred
finite differences, whose step h comes from a deterministic search by halves. No package offers it.

What is decided here: the coordinates are presences of features (see features.py) at 1, so that a term is what the
feature adds to first order and a missing one adds nothing; the expansion is tried towards absence; the explained
quantity is the class's logit. The authors bring their terms to local accuracy by an adjustment that could not be read;
here the rest f(x) - phi_0 - sum of terms is spread over the terms in proportion to their sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hf_mhex.baselines.features import features_of, rows_of
from hf_mhex.baselines.networks import logits_of

LEAST, MOST, TURNS = 0.01, 0.5, 12  # of the step, and of the search


@dataclass(frozen=True)
class TaylorExplanation:
    """Of one row: phi_0, the derivatives `terms` [N], `values` [N] with phi_0 + their sum = f(x), and the step."""

    phi_0: float
    terms: torch.Tensor
    values: torch.Tensor
    answer: float
    step: float

    @property
    def rest(self) -> float:
        """f(x) - phi_0 - sum of the terms: how far the expansion alone is from local accuracy."""
        return self.answer - self.phi_0 - float(self.terms.sum())


def t_explainer(model, inputs, target, cells: int = 7) -> torch.Tensor:
    """T-Explainer's terms as maps, [B, H, W] or [B, T]: 2 N + 1 passes for each step that is tried, N features."""
    maps: list[torch.Tensor] = []
    for row in rows_of(inputs):
        features = features_of(model, row, int(target[len(maps)]), cells)
        maps.append(features.to_map(taylor_terms(features.logit, features.count)[0]))
    return torch.stack(maps).to(target.device)


def taylor_explanations(model, inputs, target, background, cells: int = 7) -> list[TaylorExplanation]:
    """T-Explainer with phi_0 and local accuracy, a row each.

    Args:
        background: pixels [M, C, H, W], or a dict of texts' input_ids and attention_mask: the X of phi_0 = E[f(X)].
    """
    with torch.no_grad():
        if isinstance(background, dict):
            answer = model(**{name: background[name] for name in ("input_ids", "attention_mask")})
        else:
            answer = model(background)
        expected = logits_of(answer).double().mean(0).cpu()
    found: list[TaylorExplanation] = []
    for row in rows_of(inputs):
        label = int(target[len(found)])
        features = features_of(model, row, label, cells)
        terms, step = taylor_terms(features.logit, features.count)
        logit = float(features.logit(torch.ones(1, features.count))[0])
        found.append(locally_accurate(float(expected[label]), terms, logit, step))
    return found


def locally_accurate(phi_0: float, terms: torch.Tensor, answer: float, step: float) -> TaylorExplanation:
    """Spread the rest over the terms in proportion to their sizes; a term of 0 stays 0 (missingness)."""
    size = terms.abs().sum()
    rest = answer - phi_0 - float(terms.sum())
    values = terms + rest * terms.abs() / size if size > 0 else terms
    return TaylorExplanation(phi_0, terms, values, answer, step)


def taylor_terms(
    function: Callable, count: int, least: float = LEAST, most: float = MOST, turns: int = TURNS
) -> tuple[torch.Tensor, float]:
    """The derivatives [N] of `function(points [M, N]) -> [M]` at ones, and the step that they were taken with.

    The search of the authors' notebook, without chance: between `least` and `most` it halves the interval; the cost of
    a step is the squared error of the expansion when every feature moves by it; a cost and its change of no more than
    least^2 / 2 (of the current lower end) end the search or move the lower end up, else the upper end comes down.
    Nothing to differentiate (count 0) gives no terms. Raises ValueError for ends that are no interval.
    """
    if not 0 < least < most or turns < 1:
        raise ValueError(f"least and most must be 0 < least < most and turns at least 1, got {least}, {most}, {turns}.")
    if count == 0:
        return torch.zeros(0, dtype=torch.float64), float("nan")
    centre, unit = torch.ones(count, dtype=torch.float64), torch.eye(count, dtype=torch.float64)
    answer = function(centre[None])[0]
    known: dict[float, tuple[torch.Tensor, float]] = {}

    def tried(step: float) -> tuple[torch.Tensor, float]:
        if step not in known:
            points = torch.cat([centre + step * unit, centre - step * unit, (centre - step)[None]])
            values = function(points)
            terms = (values[:count] - values[count:-1]) / (2 * step)
            known[step] = terms, float((answer - values[-1] - step * terms.sum()).square())
        return known[step]

    left, right, before_right, before_middle = least, most, 1.0, 1.0
    for turn in range(1, turns + 1):
        middle, allowed = (left + right) / 2, left**2 / 2
        terms, cost = tried(right)
        if before_right <= allowed and abs(before_right - cost) <= allowed:
            return terms, right
        inner, inner_cost = tried(middle)
        if not inner.any():
            left = middle  # too small a step to see anything
            if turn == turns:
                return terms, right
        elif (before_middle <= allowed and abs(before_middle - inner_cost) <= allowed) or right - left < 1e-6:
            left = middle
            if right - left < 1e-6 or turn == turns:
                return inner, middle
        else:
            right = middle
        before_right, before_middle = cost, inner_cost
    return inner, middle
