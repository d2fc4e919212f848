"""Which share of the rows is predicted right?"""

import datasets
import evaluate

from hf_mhex.evaluation.metrics import scores


class Accuracy(evaluate.Metric):
    """As an `evaluate` module; configuration "multilabel" takes lists of 0 and 1."""

    def _info(self):
        label = datasets.Value("int32")
        labels = datasets.Sequence(label) if self.config_name == "multilabel" else label
        return evaluate.MetricInfo(
            description=scores.accuracy.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": labels, "references": labels}),
        )

    def _compute(self, predictions, references):
        return {"accuracy": scores.accuracy(predictions, references)}
