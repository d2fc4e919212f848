"""How good are precision and recall together, on average over labels?"""

import datasets
import evaluate

from hf_mhex.evaluation.metrics import scores


class MacroF1(evaluate.Metric):
    """As an `evaluate` module; configuration "multilabel" takes lists of 0 and 1."""

    def _info(self):
        label = datasets.Value("int32")
        labels = datasets.Sequence(label) if self.config_name == "multilabel" else label
        return evaluate.MetricInfo(
            description=scores.macro_f1.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": labels, "references": labels}),
        )

    def _compute(self, predictions, references):
        return {"macro_f1": scores.macro_f1(predictions, references)}
