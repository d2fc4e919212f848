"""Measures of predictions, most of them scikit-learn's.

Truth is [N] label numbers, or [N, K] of 0 and 1 for several labels; scores are [N, K], higher for a likelier label.
"""

from __future__ import annotations

import numpy as np

from hf_mhex.baselines import library


def accuracy(predictions, references) -> float:
    """Share of right predictions; with several labels, [N, K], the mean over labels."""
    predictions, references = paired(predictions, references)
    return float(library("sklearn.metrics").accuracy_score(references.ravel(), predictions.ravel()))


def confusion(predictions, references, num_labels: int) -> np.ndarray:
    """Rows by truth (first axis) and prediction (second), [K, K]."""
    predictions, references = paired(predictions, references)
    return library("sklearn.metrics").confusion_matrix(references, predictions, labels=range(num_labels))


def recalls(predictions, references, num_labels: int) -> np.ndarray:
    """Recall of each label, [K]; NaN for a label without a row."""
    predictions, references = paired(predictions, references)
    if references.ndim == 2:
        hits, present, _ = present_counts(predictions, references)
        return np.divide(hits, present, out=np.full(len(hits), np.nan), where=present > 0)
    labels = range(num_labels)
    recall = library("sklearn.metrics").recall_score
    return recall(references, predictions, labels=labels, average=None, zero_division=np.nan)


def balanced_accuracy(predictions, references) -> float:
    """Mean recall over the labels that have rows; with several labels, that of present and absent, over labels."""
    predictions, references = paired(predictions, references)
    if references.ndim == 2:
        return float(np.mean([balanced_accuracy(p, r) for p, r in zip(predictions.T, references.T)]))
    there = np.unique(references)
    return float(library("sklearn.metrics").recall_score(references, predictions, labels=there, average="macro"))


def macro_f1(predictions, references) -> float:
    """Mean over labels of 2 TP / (2 TP + FP + FN); labels that neither truth nor prediction names are left out."""
    predictions, references = paired(predictions, references)
    if references.ndim == 2:
        hits, present, named = present_counts(predictions, references)
        there = present + named > 0
        return float((2 * hits[there] / (present + named)[there]).mean()) if there.any() else 0.0
    f1 = library("sklearn.metrics").f1_score(references, predictions, average="macro", zero_division=np.nan)
    return float(np.nan_to_num(f1))


def present_counts(predictions: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of each of several labels that are hit, that have it and that are given it, [K] each.

    Counted here, since scikit-learn takes [N, 1] for two classes, of which the first is the label's absence.
    """
    predictions, references = predictions.astype(bool), references.astype(bool)
    return (predictions & references).sum(0), references.sum(0), predictions.sum(0)


class Undefined(ValueError):
    """A measure has no value on these rows."""


def auc(scores, references) -> float:
    """Area under the ROC curve: of the second label where there are two, else the mean of each against the rest.

    For several labels the mean over labels; MedMNIST's AUC is defined so. Raises Undefined, a ValueError, for a label
    without a row or with all of them: there is no pair to compare.
    """
    scores, references = np.asarray(scores), np.asarray(references)
    if references.ndim == 1:
        references = references[:, None] == np.arange(scores.shape[1])
        if scores.shape[1] == 2:
            scores, references = scores[:, 1:], references[:, 1:]
    scores, references = paired(scores, references)
    for present in references.sum(0):
        if present in (0, len(references)):
            kind = "every row" if present else "no row"
            raise Undefined(f"AUC needs rows with and without the label; {kind} of {len(references)} has it.")
    return float(library("sklearn.metrics").roc_auc_score(references, scores, average="macro"))


def regression_errors(predictions, references) -> dict[str, float]:
    """Mean absolute error, root of the mean squared error, and R^2 (0 where truth is constant)."""
    predictions, references = (values.astype(np.float64) for values in paired(predictions, references))
    metrics, flat = library("sklearn.metrics"), (references.ravel(), predictions.ravel())
    varies = (references != references[0]).any()
    return {
        "mae": float(metrics.mean_absolute_error(*flat)),
        "rmse": float(metrics.root_mean_squared_error(*flat)),
        "r2": float(metrics.r2_score(references, predictions, multioutput="variance_weighted")) if varies else 0.0,
    }


def medmnist(scores, references) -> dict[str, float]:
    """MedMNIST's AUC and ACC, as its evaluator has them for its kinds of tasks."""
    scores, references = np.asarray(scores), np.asarray(references)
    found = (scores >= 0.5).astype(int) if references.ndim == 2 else scores.argmax(-1)
    return {"medmnist_auc": auc(scores, references), "medmnist_acc": accuracy(found, references)}


def calibration(probabilities, right, bins: int = 15) -> tuple[float, list[dict]]:
    """Expected calibration error of the confidences [N] against whether they were right [N], and its bins.

    Bins are equal parts of (0, 1]; the error is the mean |accuracy - confidence| over bins, weighed by their rows.
    """
    probabilities, right = paired(probabilities, right)
    numbers = np.clip(np.ceil(probabilities * bins).astype(int) - 1, 0, bins - 1)
    found, error = [], 0.0
    for number in np.unique(numbers):
        here = numbers == number
        confidence, share = float(probabilities[here].mean()), float(right[here].mean())
        found.append({"rows": int(here.sum()), "confidence": confidence, "accuracy": share})
        error += here.mean() * abs(share - confidence)
    return float(error), found


def paired(left, right) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of one shape with at least one row; ValueError otherwise."""
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape or len(left) == 0:
        raise ValueError(
            f"predictions and references must be alike in shape and not empty: {left.shape}, {right.shape}."
        )
    return left, right
