"""How well do the scores order the rows?"""

import datasets
import evaluate

from hf_mhex.evaluation.metrics import scores


class Auc(evaluate.Metric):
    """As an `evaluate` module; configuration "multilabel" takes lists of 0 and 1."""

    def _info(self):
        label = datasets.Value("int32")
        labels = datasets.Sequence(label) if self.config_name == "multilabel" else label
        return evaluate.MetricInfo(
            description=scores.auc.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features(
                {"prediction_scores": datasets.Sequence(datasets.Value("float64")), "references": labels}
            ),
        )

    def _compute(self, prediction_scores, references):
        return {"auc": scores.auc(prediction_scores, references)}
