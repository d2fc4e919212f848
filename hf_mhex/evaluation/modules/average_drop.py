"""How far do probabilities fall when the marked part is removed?"""

import datasets
import evaluate
import torch

from hf_mhex.evaluation import drop


class AverageDrop(evaluate.Metric):
    """As an `evaluate` module: predictions are p' (the marked part removed), references p, both of the same class."""

    def _info(self):
        probability = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=drop.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": probability, "references": probability}),
        )

    def _compute(self, predictions, references):
        after, before = (torch.tensor(values, dtype=torch.float64) for values in (predictions, references))
        return {"average_drop": float(drop.relative_change(before, after).mean())}
