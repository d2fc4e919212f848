"""Batches of rows with labels, as a saved model is judged on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from hf_mhex.data.images import to_pixel_values
from hf_mhex.data.labels import LabelEncoder
from hf_mhex.data.rows import Rows, check, read_data, read_splits, reader_of
from hf_mhex.data.settings import DataSettings
from hf_mhex.processors import max_length

SPLITS = ("train", "validation", "test")


def rows_for(
    model, processor, settings: DataSettings, split: str | None, batch_size: int, problem_type: str | None = None
) -> tuple[Iterator[dict], dict[str, int]]:
    """Batches of one split, with `labels` numbered as the model's config does, and its rows left out by reason.

    Args:
        settings: the source and its columns.
        split: of the source, None for "test" or the only one; with `problem_type` one of `SPLITS`.
        problem_type: of a training run whose own splits are to be made again; None takes the source's splits.

    Raises ValueError for a split that is not there and for bad rows, such as labels that the model's config lacks.
    """
    kind = {"pixel_values": "image", "input_values": "signal"}.get(model.main_input_name, "text")
    if problem_type is None:
        rows, skipped = _source_rows(model, kind, settings, split)
    else:
        rows, skipped = _run_rows(model, kind, settings, split or "test", problem_type)

    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        labels = torch.stack([torch.as_tensor(row["labels"]) for row in batch])
        inputs = [row[kind] for row in batch]
        if kind == "signal":
            return {**processor(inputs, return_tensors="pt"), "labels": labels}
        if kind == "image":
            return {
                "pixel_values": torch.stack([to_pixel_values(item, processor) for item in inputs]),
                "labels": labels,
            }
        longest = max_length(model, processor) if hasattr(model, "max_tokens") else processor.model_max_length
        found = processor(inputs, truncation=True, max_length=longest, padding=True, return_tensors="pt")
        return {**found, "labels": labels}

    return iter(DataLoader(rows, batch_size=batch_size, collate_fn=collate)), skipped


def _run_rows(model, kind: str, settings: DataSettings, split: str, problem_type: str) -> tuple[Rows, dict[str, int]]:
    """Rows of one of the three splits of a run; bad rows are counted over all of the source."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)} for a recipe; got {split}.")
    found = read_data(settings, kind, problem_type, getattr(model.config, "num_channels", None))
    names = [model.config.id2label[k] for k in range(model.config.num_labels)]
    if names != found.names:
        raise ValueError(f"the model's labels {names} are not those of the recipe: {found.names}.")
    return getattr(found, split), dict(sum(map(Counter, found.skipped.values()), Counter()))


def _source_rows(model, kind: str, settings: DataSettings, split: str | None) -> tuple[Rows, dict[str, int]]:
    """Rows of one split of a source, their labels numbered as the model's config does."""
    raw = read_splits(settings, kind)
    split = split or ("test" if "test" in raw else next(iter(raw)) if len(raw) == 1 else None)
    if split not in raw:
        raise ValueError(f"split must be one of {', '.join(raw)}; got {split}.")
    config = model.config
    names = [config.id2label[k] for k in range(config.num_labels)]
    problem_type = config.problem_type or "single_label_classification"
    stands_for = settings.label_values
    given = raw[split].names
    if stands_for is None and given and problem_type == "single_label_classification":
        stands_for = _numbers_of(given, config)
    encoder = LabelEncoder(problem_type, raw[split].labels, names, stands_for, numbered=bool(given))
    return check(raw[split], split, encoder, reader_of(kind, getattr(config, "num_channels", None)), settings)


def _numbers_of(source_names: list[str], config) -> list[str] | None:
    """For each label of the model, its number in a source that names its labels; a label that it lacks gets none.

    None where no name is shared: then the numbers mean the same on both sides.
    """
    if not set(source_names) & set(config.id2label.values()):
        return None
    places = {name: str(number) for number, name in enumerate(source_names)}
    return [places.get(config.id2label[k], f"no {config.id2label[k]}") for k in range(config.num_labels)]
