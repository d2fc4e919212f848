"""T-Explainer: additive attributions from a first-order expansion, with the step chosen for each row.

Source: Ortigossa et al., "T-Explainer: A Model-Agnostic Explainability Framework Based on Gradients" (arXiv
2404.16495): the model near an input is f(x) plus the sum of the partial derivatives times the displacements; the
derivatives come from centred finite differences, so that nothing but answers of the model is needed, and their step h
is optimised for the expansion to fit the model around the input. No package offers it.

What is decided here: the coordinates are presences of features (see features.py) at 1, so that an attribution is what
the feature adds to first order and a missing one adds nothing; the explained quantity is the class's logit; h is taken
from a geometric grid, the one with the least squared error of the expansion on displacements common to every candidate.
"""

from __future__ import annotations

import torch

from hf_mhex.baselines.features import features_of, rows_of

STEPS = (0.01, 0.1, 0.5)


def t_explainer(model, inputs, target, cells: int = 7) -> torch.Tensor:
    """T-Explainer's maps, [B, H, W] or [B, T]: 2 N passes for each candidate step and N features."""
    maps = []
    for row in rows_of(inputs):
        features = features_of(model, row, int(target[len(maps)]), cells)
        maps.append(features.to_map(taylor_terms(features.logit, features.count)[0]))
    return torch.stack(maps).to(target.device)


def taylor_terms(function, count: int, steps=STEPS, probes: int = 32, seed: int = 0) -> tuple[torch.Tensor, float]:
    """The derivatives [N] of `function(points [M, N]) -> [M]` at ones, and the step that they were taken with.

    The probes are random displacements whose entries have size 0.1 at most, towards absence. Nothing to differentiate
    (count 0) gives no terms.
    """
    if count == 0:
        return torch.zeros(0, dtype=torch.float64), float("nan")
    centre = torch.ones(count, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    displacements = -0.1 * torch.rand(probes, count, generator=generator, dtype=torch.float64)
    changes = function(centre + displacements) - function(centre[None])
    best = None
    for step in steps:
        shifts = step * torch.eye(count, dtype=torch.float64)
        ahead, behind = function(torch.cat([centre + shifts, centre - shifts])).chunk(2)
        terms = (ahead - behind) / (2 * step)
        error = float((displacements @ terms - changes).square().mean())
        if best is None or error < best[2]:
            best = (terms, step, error)
    return best[0], best[1]
