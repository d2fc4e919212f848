"""How often does a map's greatest value lie in the mask?"""

import datasets
import evaluate
import torch

from hf_mhex.evaluation import localisation


class PointingGame(evaluate.Metric):
    """As an `evaluate` module over maps, each a list of lines of numbers."""

    def _info(self):
        maps = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=localisation.pointing_game.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features(
                {"predictions": maps, "references": datasets.Sequence(datasets.Sequence(datasets.Value("int8")))}
            ),
        )

    def _compute(self, predictions, references, tolerance=0):
        found = localisation.pointing_game(torch.tensor(predictions), torch.tensor(references), tolerance)
        return {"pointing_game": float(found.mean())}
