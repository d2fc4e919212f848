"""Reports of a model's predictions: metrics, confusion, calibration, and every head alone.

Works on the logits of all heads, which are small: B x K numbers a row, whatever the maps' size.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from hf_mhex.evaluation.metrics import DEFAULTS, measure, probabilities_of, scores

DECAYS = (0.0, 0.25, 0.5, 0.8, 0.9, 1.0)


@torch.inference_mode()
def collect(model, batches: Iterable[dict], heads: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Logits [N, K], labels [N] or [N, K] and, with `heads`, the blocks' logits [N, blocks, K], over batches.

    Without `heads` no more is kept of a batch than its logits, however many blocks the model has. Raises ValueError for
    no batch, and for logits that are not finite.
    """
    logits, labels, blocks = [], [], []
    for batch in batches:
        inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
        outputs = model(**inputs)
        logits.append(outputs.logits.float().cpu().numpy())
        labels.append(batch["labels"].numpy())
        if heads:
            blocks.append(outputs.block_logits.float().cpu().numpy())
    if not logits:
        raise ValueError("there is no row to evaluate on.")
    found = np.concatenate(logits)
    if not np.isfinite(found).all():
        raise ValueError("the model's logits are not finite on these rows; its weights are broken.")
    return found, np.concatenate(labels), np.concatenate(blocks) if heads else None


def report(logits: np.ndarray, labels: np.ndarray, config) -> dict:
    """All metrics of the problem type; confusion and calibration of classifiers. A measure that these rows do not
    define is left out and named in `undefined`, with the reason.
    """
    kind = problem_of(config, labels)
    found: dict = {"rows": len(labels), "problem_type": kind, "metrics": {}, "undefined": {}}
    for name in DEFAULTS[kind]:
        try:
            found["metrics"] |= measure([name], logits, labels, kind)
        except ValueError as error:
            found["undefined"][name] = str(error)
    if kind == "regression":
        return found
    names = [config.id2label[k] for k in range(config.num_labels)]
    probabilities = probabilities_of(logits, kind)
    if kind == "multi_label_classification":
        predictions = (probabilities >= 0.5).astype(int)
        labels = truth = labels.astype(int).reshape(predictions.shape)
        found["confusion"] = {
            name: scores.confusion(predictions[:, k], truth[:, k], 2).tolist() for k, name in enumerate(names)
        }
        confidence, right = np.maximum(probabilities, 1 - probabilities).ravel(), (predictions == truth).ravel()
    else:
        predictions = probabilities.argmax(-1)
        found["confusion"] = scores.confusion(predictions, labels, len(names)).tolist()
        confidence, right = probabilities.max(-1), predictions == labels
    calibration, bins = scores.calibration(confidence, right)
    found |= {"labels": names, "calibration_error": calibration, "calibration": bins}
    found["recall"] = recall_by_name(predictions, labels, names)
    return found


def head_report(block_logits: np.ndarray, labels: np.ndarray, config, decays: Iterable[float] = DECAYS) -> dict:
    """Accuracy and per-label recall of every head alone, and of all heads combined at each decay.

    Args:
        block_logits: [N, blocks, K].
        decays: block b of B weighs `decay ** (B - 1 - b)`; the model's own `head_decay` is always among them.

    Of a regression, errors stand in the place of accuracy and recall.
    """
    kind = problem_of(config, labels)
    blocks = block_logits.shape[1]
    exponents = blocks - 1 - np.arange(blocks)
    alone = [{"block": b, **head_scores(block_logits[:, b], labels, kind, config)} for b in range(blocks)]
    combined = []
    for decay in sorted({*map(float, decays), float(config.head_decay)}):
        weights = np.power(decay, exponents, dtype=np.float64)
        logits = np.einsum("b,nbk->nk", weights, block_logits.astype(np.float64))
        own = decay == float(config.head_decay)
        combined.append({"decay": decay, "own": own, **head_scores(logits, labels, kind, config)})
    return {"heads": alone, "combined": combined}


def head_scores(logits: np.ndarray, labels: np.ndarray, kind: str, config) -> dict:
    """Accuracy, balanced accuracy and recall by label of one head's logits [N, K]; errors of a regression."""
    if kind == "regression":
        return measure(["regression"], logits, labels, kind)
    several = kind == "multi_label_classification"
    predictions = (logits >= 0).astype(int) if several else logits.argmax(-1)
    truth = labels.astype(int).reshape(predictions.shape)
    return {
        "accuracy": scores.accuracy(predictions, truth),
        "balanced_accuracy": scores.balanced_accuracy(predictions, truth),
        "recall": recall_by_name(predictions, truth, [config.id2label[k] for k in range(config.num_labels)]),
    }


def recall_by_name(predictions: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, float | None]:
    """Recall of each label; None for one without a row."""
    found = scores.recalls(predictions, labels.astype(int), len(names))
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, found)}


def problem_of(config, labels: np.ndarray) -> str:
    """The config's problem type, or what labels of this shape and dtype mean."""
    if config.problem_type:
        return config.problem_type
    if labels.ndim == 2:
        return "multi_label_classification"
    return "single_label_classification" if labels.dtype.kind == "i" else "regression"
