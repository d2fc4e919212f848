"""Maps from answers to changed inputs: SHAP's partition explainer, LIME and T-Explainer.

All of them see the network as a game over features that are there or not: square cells of an image (0 of the normalised
input stands for a missing one), or content tokens ([MASK] stands for a missing one). The explained quantity is the
class's probability for SHAP and LIME and its logit for T-Explainer.
"""

from __future__ import annotations

import numpy as np
import torch

from hf_mhex.baselines import Method, library
from hf_mhex.baselines.features import Cells, Tokens, features_of, rows_of
from hf_mhex.baselines.taylor import t_explainer


def partition_shap(model, inputs, target, cells: int = 7, evaluations: int = 128) -> torch.Tensor:
    """shap's PartitionExplainer: Owen values over a tree of neighbouring cells or tokens."""
    shap = library("shap")
    maps: list[torch.Tensor] = []
    for row in rows_of(inputs):
        features = features_of(model, row, int(target[len(maps)]), cells)
        if features.count < 2:
            maps.append(features.to_map(alone(features)))
            continue
        masker = shap.maskers.Partition(np.zeros((1, features.count)), clustering=tree(features.positions))
        explainer = shap.explainers.Partition(lambda keep, f=features: f.probability(keep).numpy(), masker)
        found = explainer(np.ones((1, features.count)), max_evals=max(evaluations, 2 * features.count + 1), silent=True)
        maps.append(features.to_map(torch.from_numpy(np.asarray(found.values)[0])))
    return torch.stack(maps).to(target.device)


def lime(model, inputs, target, cells: int = 7, samples: int = 128, width: float = 0.25) -> torch.Tensor:
    """LIME: a ridge regression of answers on random keep-or-remove vectors, near ones weighing more (lime's LimeBase).

    Distances are cosine, the kernel exponential of `width`, as lime's image explainer has them.
    """
    base = library("lime.lime_base")
    maps: list[torch.Tensor] = []
    for row in rows_of(inputs):
        features = features_of(model, row, int(target[len(maps)]), cells)
        if features.count < 2:
            maps.append(features.to_map(alone(features)))
            continue
        random = np.random.RandomState(0)
        keep = random.randint(0, 2, (samples, features.count))
        keep[0] = 1
        share = keep.mean(1)
        distance = 1 - np.sqrt(share)  # cosine of a binary vector with the vector of ones
        explainer = base.LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / width**2)), random_state=random)
        answers = features.probability(keep).numpy()[:, None]
        terms = explainer.explain_instance_with_data(keep, answers, distance, 0, features.count, "none")[1]
        values = torch.zeros(features.count)
        for number, weight in terms:
            values[number] = float(weight)
        maps.append(features.to_map(values))
    return torch.stack(maps).to(target.device)


def alone(features: Cells | Tokens) -> torch.Tensor:
    """The whole change for a single feature, nothing for none: what there is to share among fewer than two."""
    keep = torch.tensor([[1.0], [0.0]])[:, : features.count]
    found = features.probability(keep)
    return (found[:1] - found[1:])[: features.count]


def tree(positions: np.ndarray) -> np.ndarray:
    """A linkage of features by nearness of their positions [N, d], with heights scaled to 1."""
    from scipy.cluster.hierarchy import linkage

    found = linkage(positions, "average")
    found[:, 2] /= max(found[:, 2].max(), 1e-9)
    return found


METHODS = [
    Method("LIME", lime, "lime", slow=True),
    Method("SHAP partition", partition_shap, "shap", slow=True),
    Method("T-Explainer", t_explainer, slow=True, detail="the step by the authors' search, notebook 1.3"),
]
