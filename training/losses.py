"""What is the loss when labels have weights? That of the model, with each row or each presence counted by its label."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from hf_mhex.modeling.mhex import check_labels


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


def weighted_loss(
    logits: torch.Tensor, block_logits: torch.Tensor, labels: torch.Tensor, config, weights: torch.Tensor, num_items
) -> tuple[torch.Tensor, torch.Tensor]:
    """The total loss [] and the blocks' [blocks] of logits [B, K], block_logits [B, blocks, K] and label weights [K].

    Divided by `num_items` (the label entries of the whole accumulated batch; None: of this one), never by the weights
    in the batch, so that the gradient does not depend on how a batch is split.
    """
    labels = check_labels(labels.to(logits.device), logits.shape, config)
    weights = weights.to(logits)
    heads = torch.cat([logits[:, None], block_logits], dim=1)
    smoothing = config.label_smoothing
    if config.problem_type == "single_label_classification":
        each = F.cross_entropy(
            heads.transpose(1, 2),
            labels[:, None].expand(heads.shape[:2]),
            label_smoothing=smoothing,
            reduction="none",
        )
        each = each * weights[labels.clamp(min=0)][:, None]
        count = (labels != -100).sum().clamp(min=1)
    else:
        goal = (labels.to(heads) * (1 - smoothing) + smoothing / 2)[:, None].expand_as(heads)
        each = F.binary_cross_entropy_with_logits(heads, goal, pos_weight=weights, reduction="none").sum(-1)
        count = labels.numel()
    losses = each.sum(0) / (count if num_items is None else num_items)
    return losses[0] + config.deep_supervision_weight * losses[1:].sum(), losses[1:]


def recipe_loss(outputs, labels: torch.Tensor, config, weights: torch.Tensor | None, num_items):
    """A model's total loss [] and its blocks' ([0] for a plain model), with label weights [K] if there are any."""
    logits = outputs["logits"]
    plain = "block_logits" not in outputs
    blocks = logits[:, None][:, :0] if plain else outputs["block_logits"]
    if weights is None:
        return outputs["loss"], logits.new_zeros(0) if plain else outputs["block_losses"]
    loss, block_losses = weighted_loss(logits, blocks, labels, config, weights, num_items)
    # the model's own loss reaches weights that no head reads, and DDP waits for a gradient of every weight
    return loss + 0 * outputs["loss"], block_losses
