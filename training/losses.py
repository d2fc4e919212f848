"""What is the loss when labels have weights? That of the model, with each row or each presence counted by its label."""

from __future__ import annotations

import numpy as np
import torch

from hf_mhex.modeling.mhex_loss import deep_supervision_loss


def balanced_weights(labels: np.ndarray, num_labels: int) -> torch.Tensor:
    """Weights [K] inverse to how many rows a label has.

    Single label [N]: `N / (K n_k)`, so that the mean over the rows is 1. Several labels [N, K]: absent rows over
    present ones, the factor on a present label's loss. Raises ValueError for a label without a row.
    """
    single = labels.ndim == 1
    if labels.dtype.kind == "f" and (single or not np.isin(labels, (0, 1)).all()):
        raise ValueError("optimisation.class_weights='balanced' has no meaning for regression; set it to 'none'.")
    counts = np.bincount(labels, minlength=num_labels) if single else labels.sum(0)
    if (counts == 0).any():
        empty = np.flatnonzero(counts == 0).tolist()
        raise ValueError(f"class weights cannot be balanced: no training row has the labels {empty}.")
    weights = len(labels) / (num_labels * counts) if single else (len(labels) - counts) / counts
    return torch.tensor(weights, dtype=torch.float32)


def labels_by_row(labels: torch.Tensor) -> torch.Tensor:
    """Labels [N] or [N, K] as they stand; of mosaics, [M, R, S] or [M, R, S, K], those of all parts in a row."""
    return labels.flatten(0, 2) if labels.ndim > 2 else labels


def recipe_loss(outputs, labels: torch.Tensor, config, weights: torch.Tensor | None, num_items):
    """A model's total loss [] and its blocks' ([0] for a plain model), with label weights [K] if there are any."""
    logits = outputs["logits"]
    plain = "block_logits" not in outputs
    blocks = logits[:, None][:, :0] if plain else outputs["block_logits"]
    if weights is None:
        return outputs["loss"], logits.new_zeros(0) if plain else outputs["block_losses"]
    absent_losses = outputs.get("absent_losses")
    loss, block_losses = deep_supervision_loss(logits, blocks, labels, config, num_items, absent_losses, weights)
    # the model's own loss reaches weights that no head reads, and DDP waits for a gradient of every weight
    return loss + 0 * outputs["loss"], block_losses
