"""What only our recipes teach with: labels that weigh alike, and mosaics whose parts are classified one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn

from hf_mhex.modeling.mhex import MHEXClassifierOutput
from hf_mhex.modeling.mhex_loss import absent_loss, deep_supervision_loss
from hf_mhex.modeling.mhex_maps import Features, block_map, decay_factors, no_autocast, pooled_descriptor


def within(model: nn.Module) -> nn.Module:
    """The classifier in the wrappers of parallel training (DDP, FSDP, DeepSpeed) and of PEFT."""
    found = extract_model_from_parallel(model)
    return found.get_base_model() if hasattr(found, "get_base_model") else found


def outside_graph(model: nn.Module, call: Callable) -> Callable:
    """A callback of the forward of a model: a compiled one leaves its graph for it."""
    inside = (model, getattr(model, "module", model))
    compiled = any(hasattr(found, "_orig_mod") or found._compiled_call_impl is not None for found in inside)
    return torch.compiler.disable(call) if compiled else call


def balanced_weights(labels: np.ndarray, num_labels: int) -> list[float]:
    """Weights inverse to how many rows a label has, K numbers for `config.class_weights`.

    Single label [N]: `N / (K n_k)`, so that the mean over the rows is 1. Several labels [N, K]: absent rows over
    present ones, the factor on a present label's loss. Raises ValueError for a label that no row has, or every row.
    """
    single = labels.ndim == 1
    if labels.dtype.kind == "f" and (single or not np.isin(labels, (0, 1)).all()):
        raise ValueError("optimisation.class_weights='balanced' has no meaning for regression; set it to 'none'.")
    counts = np.bincount(labels, minlength=num_labels) if single else labels.sum(0)
    for kind, wrong in (("no", counts == 0), ("every", (counts == len(labels)) & (not single))):
        if wrong.any():
            places = np.flatnonzero(wrong).tolist()
            raise ValueError(f"class weights cannot be balanced: {kind} training row has the labels {places}.")
    weights = len(labels) / (num_labels * counts) if single else (len(labels) - counts) / counts
    return weights.tolist()


def label_entries(labels: torch.Tensor) -> torch.Tensor:
    """The label entries of a batch that count, []: all numbers, and of single labels those that are not -100."""
    return torch.ones_like(labels, dtype=torch.bool).sum() if labels.is_floating_point() else (labels != -100).sum()


def mosaic_loss(model: nn.Module, inputs: dict, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
    """The deep-supervision loss [] of images joined to mosaics, each part classified by the positions of its own.

    Args:
        model: an MHEX image classifier, also wrapped by DDP, FSDP, DeepSpeed or PEFT.
        inputs: those of its forward, with pixel_values of M mosaics (`mosaics_of` joins them).
        labels: one label a part, [M, R, S], or several, [M, R, S, K], for a grid of R x S parts.
        num_items_in_batch: what the loss's sum is divided by (Trainer's count over accumulated batches).

    Raises ValueError or TypeError for inputs or labels that do not fit the model.
    """
    return mosaic_outputs(model, inputs, labels, num_items_in_batch).loss


def mosaic_outputs(model: nn.Module, inputs: dict, labels: torch.Tensor, num_items_in_batch=None):
    """loss [], block_losses [blocks], and logits and block_logits of all M * R * S parts; see `mosaic_loss`."""
    if labels.ndim not in (3, 4):
        raise ValueError(f"labels of mosaics must be [M, R, S] or [M, R, S, K], got {list(labels.shape)}.")
    whole = within(model)
    config, heads, gates = whole.config, whole.heads, whole.base_model.gates
    found: dict[int, tuple] = {}  # by block: one that is checkpointed passes twice

    def teach(block: int, features: Features) -> None:
        """Keep what the head of a block says of every part [M * R * S, K], and what absent labels cost there."""
        gate, head = gates[block], heads[block]
        with no_autocast(features.p.device):
            parts = parts_of(features, tuple(labels.shape[1:3]))
            logits = head(gate(torch.stack([part.p for part in parts], dim=1).flatten(0, 1)))
            absent = None
            if config.instance_share:
                every = torch.eye(head.out_features, dtype=logits.dtype, device=logits.device)
                rows = gate(head(every, rows=True), rows=True)[None]
                costs = [absent_loss(block_map(rows, part).flatten(2)) for part in parts]
                absent = torch.stack(costs, dim=1).flatten(0, 1)
        found[block] = logits, absent

    outputs = model(**inputs, labels=labels[:, 0, 0], explain=outside_graph(model, teach))
    device = outputs.logits.device
    block_logits = torch.stack([found[block][0].to(device) for block in range(len(heads))], dim=1)
    absent = None
    if config.instance_share:
        absent = torch.stack([found[block][1].to(device) for block in range(len(heads))], dim=1)
    factors = decay_factors(list(range(len(heads))), config.head_decay)
    logits = (block_logits.new_tensor(factors)[:, None] * block_logits).sum(1)
    loss, block_losses = deep_supervision_loss(
        logits, block_logits, labels.flatten(0, 2), config, num_items_in_batch, absent
    )
    # the model's own loss reaches weights that no head reads, and DDP waits for a gradient of every weight
    loss = loss + 0 * outputs.loss
    return MHEXClassifierOutput(loss=loss, logits=logits, block_logits=block_logits, block_losses=block_losses)


def parts_of(features: Features, grid: tuple[int, int]) -> list[Features]:
    """The parts of a grid of R x S, row by row; where the sides do not divide, neighbours overlap."""

    def cuts(size: int, count: int) -> list[slice]:
        return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]

    if len(features.shape) != 2 or features.valid is not None:
        raise ValueError("mosaics are joined of images; this model's positions are no image's.")
    z = features.added().summands[0].unflatten(2, features.shape)
    rows, columns = (cuts(size, count) for size, count in zip(features.shape, grid))
    parts = []
    for part in (z[:, :, row, column] for row in rows for column in columns):
        flat = part.flatten(2)
        parts.append(Features((flat,), pooled_descriptor((flat,)), tuple(part.shape[2:])))
    return parts
