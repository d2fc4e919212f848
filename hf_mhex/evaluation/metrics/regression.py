"""How far off are predicted numbers?"""

import datasets
import evaluate

from hf_mhex.evaluation.metrics import scores


class Regression(evaluate.Metric):
    """As an `evaluate` module; configuration "multilabel" takes lists of numbers."""

    def _info(self):
        number = datasets.Value("float64")
        numbers = datasets.Sequence(number) if self.config_name == "multilabel" else number
        return evaluate.MetricInfo(
            description=scores.regression_errors.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": numbers, "references": numbers}),
        )

    def _compute(self, predictions, references):
        return scores.regression_errors(predictions, references)
