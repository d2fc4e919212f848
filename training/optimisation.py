"""Optimisation beyond TrainingArguments: frozen blocks, learning rates by depth, and the order of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn
from torch.utils.data import Sampler

from hf_mhex.training.losses import within
from hf_mhex.training.settings import OptimisationSettings

MEGABATCH = 50  # batches whose rows are sorted by length together


def depths(model: nn.Module) -> dict[str, int | None]:
    """Each parameter's depth: 0 the stem or the embeddings, b + 1 block b, None what a plain checkpoint lacks.

    What stands between two blocks belongs to the later one, and what follows the last one to that.
    """
    whole = within(model)
    body = whole.base_model
    blocks = list(whole.blocks if hasattr(whole, "blocks") else body.blocks)
    fresh = [*getattr(body, "gates", ()), getattr(body, "pooler", None)]
    if hasattr(body, "get_classifier"):  # timm's network, whole
        fresh.append(body.get_classifier())
    new = {id(weight) for module in fresh if module is not None for weight in module.parameters()}
    old = {id(weight) for weight in body.parameters()} - new
    place = {id(weight): 1 + number for number, block in enumerate(blocks) for weight in block.parameters()}
    weights = list(model.named_parameters())
    found: dict[str, int | None] = {}
    depth = len(blocks)
    for name, weight in reversed(weights):
        depth = place.get(id(weight), depth)
        found[name] = depth if id(weight) in old else None
    for name, weight in weights:
        if id(weight) in place:
            break
        if found[name] is not None:
            found[name] = 0
    return found


def freeze(model: nn.Module, settings: OptimisationSettings) -> list[nn.Module]:
    """Freeze the stem or embeddings and the first blocks; gates and heads always learn.

    Returns the batch norms that are to stay in eval mode while the model trains: those of frozen blocks, or all.
    Raises ValueError for more blocks than there are.
    """
    found = depths(model)
    deepest = max(depth for depth in found.values() if depth is not None)
    wanted = deepest if settings.freeze_blocks == -1 else settings.freeze_blocks
    if wanted > deepest:
        raise ValueError(f"optimisation.freeze_blocks={wanted}, but the model has {deepest} blocks.")
    frozen = {name for name, depth in found.items() if wanted and depth is not None and depth <= wanted}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, norms) and (settings.freeze_batch_norm or f"{name}.weight" in frozen)
    ]


def parameter_groups(
    model: nn.Module, settings: OptimisationSettings, learning_rate: float, weight_decay: float, decayed: set[str]
) -> list[dict]:
    """Groups for an optimiser, by learning rate and weight decay (which `decayed` names get).

    Block b of B learns at `learning_rate * layer_decay ** (B - 1 - b)`, stem or embeddings as before block 0; gates and
    heads at `head_learning_rate` or, without one, at `learning_rate`.
    """
    found = depths(model)
    deepest = max(depth for depth in found.values() if depth is not None)
    new_rate = learning_rate if settings.head_learning_rate is None else settings.head_learning_rate
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            depth = found[name]
            rate = new_rate if depth is None else learning_rate * settings.layer_decay ** (deepest - depth)
            groups.setdefault((rate, weight_decay if name in decayed else 0.0), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


class EpochSampler(Sampler):
    """The order of an epoch, drawn from (seed, epoch) alone, so that a resumed run sees the rows that it had left.

    Args:
        rows: has `labels`, `epoch` and, for "by_length", `lengths`.
        sampling: "shuffle"; "balanced" (each label as often as the others, with replacement); "by_length" (batches of
            texts alike in length).
        batch_size: rows of one optimiser step, for "by_length".

    Raises ValueError for a sampling that the rows do not allow.
    """

    def __init__(self, rows, sampling: str, seed: int, batch_size: int):
        if sampling == "balanced" and (rows.labels.ndim != 1 or rows.labels.dtype.kind != "i"):
            raise ValueError("optimisation.sampling='balanced' needs one label a row; weigh several by class_weights.")
        if sampling == "by_length" and not hasattr(rows, "lengths"):
            raise ValueError("optimisation.sampling='by_length' is for texts; images and signals are alike in length.")
        self.rows, self.sampling, self.seed, self.batch_size = rows, sampling, seed, batch_size

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.rows.epoch))
        if self.sampling == "balanced":
            labels = self.rows.labels
            weights = 1 / np.bincount(labels)[labels]
            order = generator.choice(len(self), size=len(self), p=weights / weights.sum())
        else:
            order = generator.permutation(len(self))
        if self.sampling == "by_length":
            order = self.group(order, generator)
        yield from order.tolist()

    def group(self, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Rows sorted by length within each megabatch; the batches then shuffled, a smaller last one kept last."""
        size = self.batch_size
        batches = []
        for start in range(0, len(order), size * MEGABATCH):
            mega = order[start : start + size * MEGABATCH]
            mega = mega[np.argsort(-self.rows.lengths[mega], kind="stable")]
            batches += [mega[at : at + size] for at in range(0, len(mega), size)]
        last = [batches.pop()] if len(batches[-1]) < size else []
        shuffled = [batches[number] for number in generator.permutation(len(batches))]
        return np.concatenate(shuffled + last)
