"""What are MedMNIST's AUC and ACC? Those of its evaluator, for its four kinds of tasks."""

import datasets
import evaluate
import numpy as np

from hf_mhex.evaluation.metrics import scores


class Medmnist(evaluate.Metric):
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
        given = np.asarray(prediction_scores)
        several = np.ndim(references) == 2
        found = (given >= 0.5).astype(int) if several else given.argmax(-1)
        return {
            "medmnist_auc": scores.auc(given, references),
            "medmnist_acc": scores.accuracy(found, np.asarray(references)),
        }
