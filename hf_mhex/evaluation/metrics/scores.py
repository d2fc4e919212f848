"""How good are scores against truth? The measures of classification and regression, in numpy.

Truth is [N] label numbers, or [N, K] of 0 and 1 for several labels; scores are [N, K], higher for a likelier label.
"""

from __future__ import annotations

import numpy as np


def accuracy(predictions, references) -> float:
    """Share of right predictions; with several labels, [N, K], the mean over labels."""
    predictions, references = paired(predictions, references)
    return float((predictions == references).mean())


def confusion(predictions, references, num_labels: int) -> np.ndarray:
    """Rows by truth (first axis) and prediction (second), [K, K]."""
    predictions, references = paired(predictions, references)
    found = np.zeros((num_labels, num_labels), dtype=np.int64)
    np.add.at(found, (references, predictions), 1)
    return found


def recalls(predictions, references, num_labels: int | None = None) -> np.ndarray:
    """Recall of each label, [K]; NaN for a label without a row."""
    predictions, references = paired(predictions, references)
    if references.ndim == 2:
        hits, there = (predictions * references).sum(0), references.sum(0)
    else:
        labels = np.arange(num_labels or max(references.max(), predictions.max()) + 1)
        there = (references[:, None] == labels).sum(0)
        hits = ((references[:, None] == labels) & (predictions == references)[:, None]).sum(0)
    return np.divide(hits, there, out=np.full(len(there), np.nan), where=there > 0)


def balanced_accuracy(predictions, references) -> float:
    """Mean recall over the labels that have rows; with several labels, that of present and absent, over labels."""
    predictions, references = paired(predictions, references)
    if references.ndim == 2:
        return float(np.mean([balanced_accuracy(p, r) for p, r in zip(predictions.T, references.T)]))
    found = recalls(predictions, references)
    return float(np.nanmean(found))


def macro_f1(predictions, references) -> float:
    """Mean over labels of 2 TP / (2 TP + FP + FN); labels that neither truth nor prediction names are left out."""
    predictions, references = paired(predictions, references)
    if references.ndim == 1:
        labels = np.union1d(predictions, references)
        predictions, references = predictions[:, None] == labels, references[:, None] == labels
    hits = (predictions * references).sum(0)
    named = predictions.sum(0) + references.sum(0)
    return float(np.mean(2 * hits[named > 0] / named[named > 0])) if named.any() else 0.0


def binary_auc(scores, truth) -> float:
    """Probability that a row of the label scores higher than one without (ties count half), by ranks.

    Raises ValueError where truth holds one kind of rows only: there is no pair to compare.
    """
    scores, truth = paired(scores, truth)
    truth = truth.astype(bool)
    present, absent = int(truth.sum()), int((~truth).sum())
    if present == 0 or absent == 0:
        kind = "no row" if present == 0 else "every row"
        raise ValueError(f"AUC needs rows with and without the label; {kind} of {len(truth)} has it.")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - present * (present + 1) / 2) / (present * absent))


def auc(scores, references) -> float:
    """Area under the ROC curve: of the second label where there are two, else the mean of each against the rest.

    For several labels the mean over labels; MedMNIST's AUC is defined so. Raises ValueError for a label without a row
    or with all of them.
    """
    scores, references = np.asarray(scores), np.asarray(references)
    if references.ndim == 2:
        return float(np.mean([binary_auc(s, r) for s, r in zip(scores.T, references.T)]))
    if scores.shape[1] == 2:
        return binary_auc(scores[:, 1], references == 1)
    return float(np.mean([binary_auc(scores[:, label], references == label) for label in range(scores.shape[1])]))


def regression_errors(predictions, references) -> dict[str, float]:
    """Mean absolute error, root of the mean squared error, and R^2 (NaN-free: 0 where truth is constant)."""
    predictions, references = paired(predictions, references)
    errors = predictions.astype(np.float64) - references
    spread = ((references - references.mean(0)) ** 2).sum()
    explained = 1 - float((errors**2).sum() / spread) if spread > 0 else 0.0
    return {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt((errors**2).mean())), "r2": explained}


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
