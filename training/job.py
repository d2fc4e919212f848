"""What a recipe amounts to before the first step: a model, its processor, rows for three splits and a collator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedModel, set_seed

from hf_mhex.data.rows import read_data
from hf_mhex.training.inputs import ImageCollator, SignalCollator, TextCollator, TokenizedRows
from hf_mhex.training.losses import balanced_weights
from hf_mhex.training.models import build, build_of_signals, channels_of
from hf_mhex.training.recipe import Recipe


@dataclass
class Job:
    """All that a loop needs; `skipped` counts bad rows by split and reason."""

    model: PreTrainedModel
    processor: Any
    train: Dataset
    validation: Dataset
    test: Dataset
    collate: TextCollator | ImageCollator | SignalCollator
    names: list[str]
    skipped: dict[str, dict[str, int]]


def prepare(recipe: Recipe, seed: int) -> Job:
    """Read, check and split the data, and build the model, all from `seed`.

    Raises ValueError or TypeError where the recipe and the data do not go together.
    """
    kind, channels = recipe.model.registered.kind, channels_of(recipe.model)
    data = read_data(recipe.data, kind, recipe.model.problem_type, channels)
    set_seed(seed)
    if kind == "signal":
        model, processor = build_of_signals(recipe.model, recipe.processing, data)
    else:
        model, processor = build(recipe.model, recipe.processing, data.names)
    weights = (recipe.model.config or {}).get("class_weights")  # those of a run that it starts from are not its own
    if recipe.optimisation.class_weights == "balanced":
        weights = balanced_weights(data.train.labels, len(data.names))
    model.config.class_weights = weights
    rows: tuple = (data.train, data.validation, data.test)
    collate: TextCollator | ImageCollator | SignalCollator
    if kind == "text":
        rows = tuple(TokenizedRows(part, processor) for part in rows)
        collate = TextCollator(processor)
    elif kind == "signal":
        collate = SignalCollator(processor)
    else:
        data.train.seed = seed  # that the training rows draw their augmentation from
        collate = ImageCollator(processor, recipe.processing, channels)
    train, validation, test = rows
    return Job(model, processor, train, validation, test, collate, data.names, data.skipped)


def check_batch(rows: Dataset, batch: int) -> None:
    """ValueError where the training rows do not fill one batch over all processes."""
    if len(rows) < batch:
        raise ValueError(
            f"training has {len(rows)} rows, fewer than one batch of {batch}; lower "
            "training.per_device_train_batch_size or add rows."
        )
