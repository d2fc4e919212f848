"""Which share of each label's rows is predicted right, on average over labels?"""

import datasets
import evaluate

from hf_mhex.evaluation.metrics import scores


class BalancedAccuracy(evaluate.Metric):
    """As an `evaluate` module; configuration "multilabel" takes lists of 0 and 1."""

    def _info(self):
        label = datasets.Value("int32")
        labels = datasets.Sequence(label) if self.config_name == "multilabel" else label
        return evaluate.MetricInfo(
            description=scores.balanced_accuracy.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": labels, "references": labels}),
        )

    def _compute(self, predictions, references):
        return {"balanced_accuracy": scores.balanced_accuracy(predictions, references)}
