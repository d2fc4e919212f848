"""Measures by name: functions of logits, and files that `evaluate` loads. Nothing is downloaded.

`measure` computes several of predictions; `evaluate.load(str(module_path("auc")))` loads one, of predictions or maps.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hf_mhex.evaluation.metrics import scores

OF_PREDICTIONS = {
    "accuracy": scores.accuracy,
    "balanced_accuracy": scores.balanced_accuracy,
    "macro_f1": scores.macro_f1,
    "auc": scores.auc,
    "medmnist": scores.medmnist,
    "regression": scores.regression_errors,
}
OF_MAPS = ("average_drop", "completeness", "grid_pointing", "map_similarity", "pointing_game")
BY_SCORE = ("auc", "medmnist")
DEFAULTS = {
    "single_label_classification": ("accuracy", "balanced_accuracy", "macro_f1", "auc"),
    "multi_label_classification": ("accuracy", "balanced_accuracy", "macro_f1", "auc"),
    "regression": ("regression",),
}


def module_path(name: str) -> Path:
    """The file of a measure, for `evaluate.load`; ValueError for a name that is none of them."""
    return Path(__file__).with_name(f"{known(name, (*OF_PREDICTIONS, *OF_MAPS))}.py")


def known(name: str, names) -> str:
    """The name; ValueError where it is not among `names`."""
    if name not in names:
        raise ValueError(f"metric must be one of {', '.join(names)}; got {name!r}.")
    return name


def measure(names, logits, references, problem_type: str) -> dict[str, float]:
    """The named metrics of logits [N, K] against references ([N], or [N, K] for several labels or numbers).

    Probabilities are softmax, or sigmoid for several labels (predicted at 0.5). `names` of None are the defaults of the
    problem type; one that these rows do not define is left out, with a warning. Raises ValueError for an unknown name,
    for one that does not fit the problem type, and for a named metric that is not defined on these rows; RuntimeError
    without scikit-learn (extra `train`).
    """
    logits, references = np.asarray(logits, dtype=np.float64), np.asarray(references)
    regression = problem_type == "regression"
    if regression:
        probabilities, predictions = None, logits if references.ndim == 2 else logits[:, 0]
    else:
        probabilities = probabilities_of(logits, problem_type)
        several = problem_type == "multi_label_classification"
        predictions = (probabilities >= 0.5).astype(int) if several else probabilities.argmax(-1)
        references = references.astype(int)[:, None] if several and references.ndim == 1 else references.astype(int)
    found: dict[str, float] = {}
    for name in DEFAULTS[problem_type] if names is None else names:
        if (known(name, OF_PREDICTIONS) == "regression") != regression:
            raise ValueError(f"metric {name!r} does not fit problem_type={problem_type!r}.")
        try:
            value: Any = OF_PREDICTIONS[name](probabilities if name in BY_SCORE else predictions, references)
        except scores.Undefined as error:
            if names is not None:
                raise
            warnings.warn(f"{name} is left out: {error}", stacklevel=2)
            continue
        found |= value if isinstance(value, dict) else {name: value}
    return found


def probabilities_of(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Softmax over the last axis, or sigmoid for several labels."""
    if problem_type == "multi_label_classification":
        return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
