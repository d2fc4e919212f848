"""What does a recipe amount to before the first step? A model, its processor, rows for three splits and a collator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, set_seed

from hf_mhex.data.rows import read_data
from hf_mhex.training.inputs import ImageCollator, TextCollator, TokenizedRows
from hf_mhex.training.losses import balanced_weights
from hf_mhex.training.models import build
from hf_mhex.training.recipe import Recipe


@dataclass
class Job:
    """All that a loop needs. `class_weights` [K] or None; `skipped` counts bad rows by split and reason."""

    model: PreTrainedModel
    processor: object
    train: Dataset
    validation: Dataset
    test: Dataset
    collate: TextCollator | ImageCollator
    class_weights: torch.Tensor | None
    names: list[str]
    skipped: dict[str, dict[str, int]]


def prepare(recipe: Recipe, seed: int) -> Job:
    """Read, check and split the data, and build the model, all from `seed`.

    Raises ValueError or TypeError where the recipe and the data do not go together.
    """
    kind = recipe.model.problem_type
    data = read_data(recipe.data, recipe.model.family, kind)
    set_seed(seed)
    model, processor = build(recipe.model, recipe.processing, data.names)
    weights = None
    if recipe.optimisation.class_weights == "balanced":
        weights = balanced_weights(data.train.labels, len(data.names))
    rows = text_rows(data, processor) if recipe.model.family == "bert" else image_rows(data, seed)
    if recipe.model.family == "bert":
        collate = TextCollator(processor)
    else:
        collate = ImageCollator(processor, recipe.processing, recipe.model.num_channels)
    return Job(model, processor, *rows, collate, weights, data.names, data.skipped)


def text_rows(data, tokenizer) -> tuple[Dataset, Dataset, Dataset]:
    """The three splits, tokenized."""
    return tuple(TokenizedRows(rows, tokenizer) for rows in (data.train, data.validation, data.test))


def image_rows(data, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """The three splits; the training rows draw their augmentation from `seed`."""
    data.train.seed = seed
    return data.train, data.validation, data.test


def check_batch(rows: Dataset, batch: int) -> None:
    """ValueError where the training rows do not fill one batch over all processes."""
    if len(rows) < batch:
        raise ValueError(
            f"training has {len(rows)} rows, fewer than one batch of {batch}; lower "
            "training.per_device_train_batch_size or add rows."
        )
