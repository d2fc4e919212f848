"""Measures as local `evaluate` modules: of predictions, and those of maps that need nothing but maps or probabilities.

Each has a file of its name beside this one, which `evaluate.load` takes: a module is found as the one class of a file.
"""

from collections.abc import Callable

import datasets
import evaluate
import torch

from hf_mhex.evaluation import drop, localisation, sanity
from hf_mhex.evaluation.metrics import scores

Sequence, Value = datasets.Sequence, datasets.Value
MAP = Sequence(Sequence(Value("float32")))  # a list of lines


class Measure(evaluate.Metric):
    """Base of the modules. The functions that they call say what is measured.

    Args:
        function: it. inputs: features of what is judged, by name, and of `references`; by default label numbers.
    """

    function: Callable
    inputs = {"predictions": Value("int32"), "references": Value("int32")}

    def _info(self):
        lists = self.config_name == "multilabel"
        single = {name for name, kind in self.inputs.items() if lists and isinstance(kind, Value)}
        inputs = {name: Sequence(kind) if name in single else kind for name, kind in self.inputs.items()}
        return evaluate.MetricInfo(
            description=type(self).function.__doc__,
            citation="",
            inputs_description="",
            features=datasets.Features(inputs),
        )

    def _compute(self, **given):
        found = type(self).function(**given)
        return found if isinstance(found, dict) else {type(self).function.__name__: found}


class Accuracy(Measure):
    """Accuracy; as below, configuration "multilabel" takes lists of 0 and 1."""

    function = scores.accuracy


class BalancedAccuracy(Measure):
    """Balanced accuracy."""

    function = scores.balanced_accuracy


class MacroF1(Measure):
    """Macro F1."""

    function = scores.macro_f1


class Auc(Measure):
    """Area under the ROC curve; of `scores` instead of predictions."""

    function: Callable = scores.auc
    inputs = {"prediction_scores": Sequence(Value("float64")), "references": Value("int32")}

    def _compute(self, prediction_scores, references):
        return super()._compute(scores=prediction_scores, references=references)


class Medmnist(Auc):
    """MedMNIST's two measures."""

    function: Callable = scores.medmnist


class Regression(Measure):
    """Errors of predicted numbers; configuration "multilabel" takes lists of them."""

    function = scores.regression_errors
    inputs = {"predictions": Value("float64"), "references": Value("float64")}


class AverageDrop(Measure):
    """Average drop: predictions are p' (the marked part removed), references p, both of the same class."""

    function = drop.average_drop
    inputs = Regression.inputs

    def _compute(self, predictions, references):
        after, before = (torch.tensor(values, dtype=torch.float64) for values in (predictions, references))
        return {"average_drop": float(drop.relative_change(before, after).mean())}


class Completeness(Measure):
    """Completeness error of maps against what they should add up to."""

    function = sanity.completeness_error
    inputs = {"predictions": MAP, "references": Value("float32")}

    def _compute(self, predictions, references):
        found = sanity.completeness_error(torch.tensor(predictions), torch.tensor(references))
        return {"completeness_error": float(found.max()), "mean": float(found.mean())}


class GridPointing(Measure):
    """Grid Pointing Game of maps against the numbers of the right cells."""

    function = localisation.positive_share
    inputs = {"predictions": MAP, "references": Value("int32")}

    def _compute(self, predictions, references, grid=2):
        shares = localisation.positive_share(torch.tensor(predictions), torch.tensor(references), grid)
        lower, median, upper = shares.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=shares.dtype)).tolist()
        found = {"grid_pointing": float(shares.mean()), "median": median}
        return found | {"lower_quartile": lower, "upper_quartile": upper}


class MapSimilarity(Measure):
    """Likeness of two maps of the same rows."""

    function = sanity.similarity
    inputs = {"predictions": MAP, "references": MAP}

    def _compute(self, predictions, references, how="spearman"):
        return {"similarity": float(sanity.similarity(torch.tensor(predictions), torch.tensor(references), how).mean())}


class PointingGame(Measure):
    """Pointing game of maps against masks."""

    function = localisation.pointing_game
    inputs = {"predictions": MAP, "references": Sequence(Sequence(Value("int8")))}

    def _compute(self, predictions, references, tolerance=0):
        found = localisation.pointing_game(torch.tensor(predictions), torch.tensor(references), tolerance)
        return {"pointing_game": float(found.mean())}
