"""How alike are two maps of the same rows?"""

import datasets
import evaluate
import torch

from hf_mhex.evaluation import sanity


class MapSimilarity(evaluate.Metric):
    """As an `evaluate` module over maps, each a list of lines of numbers."""

    def _info(self):
        maps = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=sanity.similarity.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": maps, "references": maps}),
        )

    def _compute(self, predictions, references, how="spearman"):
        found = sanity.similarity(torch.tensor(predictions), torch.tensor(references), how)
        return {"similarity": float(found.mean())}
