"""Which metrics are there? Local `evaluate` modules, by name; nothing is downloaded.

`evaluate.load(str(hf_mhex.evaluation.metrics.module_path("auc")))` loads one as any other module; `measure`
computes several.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np

CLASSES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "BalancedAccuracy",
    "macro_f1": "MacroF1",
    "auc": "Auc",
    "medmnist": "Medmnist",
    "regression": "Regression",
}
BY_SCORE = ("auc", "medmnist")
DEFAULTS = {
    "single_label_classification": ("accuracy", "balanced_accuracy", "macro_f1", "auc"),
    "multi_label_classification": ("accuracy", "balanced_accuracy", "macro_f1", "auc"),
    "regression": ("regression",),
}


def module_path(name: str) -> Path:
    """The file of a metric, for `evaluate.load`; ValueError for a name that is none of them."""
    if name not in CLASSES:
        raise ValueError(f"metric must be one of {', '.join(CLASSES)}; got {name!r}.")
    return Path(__file__).with_name(f"{name}.py")


def measure(names, logits, references, problem_type: str) -> dict[str, float]:
    """The named metrics of logits [N, K] against references ([N], or [N, K] for several labels or numbers).

    Probabilities are softmax, or sigmoid for several labels (predicted at 0.5). Raises ValueError for an unknown name,
    for one that does not fit the problem type, and where a metric is not defined on these rows.
    """
    logits, references = np.asarray(logits, dtype=np.float64), np.asarray(references)
    names = DEFAULTS[problem_type] if names is None else names
    regression = problem_type == "regression"
    if regression:
        probabilities, predictions = None, logits if references.ndim == 2 else logits[:, 0]
    else:
        probabilities = probabilities_of(logits, problem_type)
        several = problem_type == "multi_label_classification"
        predictions = (probabilities >= 0.5).astype(int) if several else probabilities.argmax(-1)
        references = references.astype(int)
    found = {}
    for name in names:
        module_path(name)
        if (name == "regression") != regression:
            raise ValueError(f"metric {name!r} does not fit problem_type={problem_type!r}.")
        module = import_module(f"hf_mhex.evaluation.metrics.{name}")
        config = "multilabel" if references.ndim == 2 else "default"
        metric = getattr(module, CLASSES[name])(config_name=config, keep_in_memory=True)
        given = {"prediction_scores": probabilities} if name in BY_SCORE else {"predictions": predictions}
        found |= metric.compute(references=references, **given)
    return found


def probabilities_of(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Softmax over the last axis, or sigmoid for several labels."""
    if problem_type == "multi_label_classification":
        return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
