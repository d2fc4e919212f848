"""How far are maps from adding up to what they explain?"""

import datasets
import evaluate
import torch

from hf_mhex.evaluation import sanity


class Completeness(evaluate.Metric):
    """As an `evaluate` module over maps, each a list of lines of numbers."""

    def _info(self):
        maps = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=sanity.completeness_error.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": maps, "references": datasets.Value("float32")}),
        )

    def _compute(self, predictions, references):
        found = sanity.completeness_error(torch.tensor(predictions), torch.tensor(references))
        return {"completeness_error": float(found.max()), "mean": float(found.mean())}
