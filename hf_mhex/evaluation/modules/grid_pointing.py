"""Which share of a map's positive attribution lies in the right cell of a mosaic?"""

import datasets
import evaluate
import torch

from hf_mhex.evaluation import localisation


class GridPointing(evaluate.Metric):
    """As an `evaluate` module over maps, each a list of lines of numbers."""

    def _info(self):
        maps = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=localisation.positive_share.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": maps, "references": datasets.Value("int32")}),
        )

    def _compute(self, predictions, references, grid=2):
        shares = localisation.positive_share(torch.tensor(predictions), torch.tensor(references), grid)
        lower, median, upper = shares.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=shares.dtype)).tolist()
        found = {"grid_pointing": float(shares.mean()), "median": median}
        return found | {"lower_quartile": lower, "upper_quartile": upper}
