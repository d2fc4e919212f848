"""Batches of rows with labels, as a saved model is judged on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.utils.data import DataLoader

from hf_mhex.data.images import to_pixel_values
from hf_mhex.data.labels import LabelEncoder, has_words, keys_of
from hf_mhex.data.rows import RawSplit, Rows, check, read_data, read_splits, reader_of
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
    source, read = raw[split], reader_of(kind, getattr(config, "num_channels", None))
    if problem_type == "single_label_classification":
        values, numbered = _values_of(source, names, settings)
        return check(source, split, LabelEncoder(problem_type, source.labels, names, values, numbered), read, settings)
    given = settings.label_names or source.names
    places = _places_of(given, names, several=True) if given else None
    if places is not None:
        source = replace(source, labels=[_in_order(row, places) for row in source.labels])
    return check(source, split, LabelEncoder(problem_type, source.labels, names, settings.label_values), read, settings)


def _values_of(source: RawSplit, names: list[str], settings: DataSettings) -> tuple[list[str] | None, bool]:
    """What stands for each of the model's labels in the source, None for its name or number; and whether numbers do."""
    given, values = settings.label_names or source.names, settings.label_values
    called = settings.label_names or []
    keys = [next((key for key in keys if key in called), keys[-1]) for keys in map(keys_of, source.labels) if keys]
    numbered = bool(source.names) or (bool(called) and all(key.isdecimal() for key in keys))
    if values is not None and source.names:  # a source that names its labels holds their numbers
        values = [str(source.names.index(value)) if value in source.names else value for value in map(str, values)]
    if given and (numbered if values is None else settings.label_names):
        places = _places_of(given, names)
        stand = list(map(str, range(len(given)))) if values is None else values
        if len(stand) != len(given):
            raise ValueError(
                f"data.label_values must be as many as data.label_names, got {len(stand)} for {len(given)}."
            )
        if places is not None:
            values = [f"no {name}" if place is None else stand[place] for name, place in zip(names, places)]
    return values, numbered


def _places_of(given: list[str], names: list[str], several: bool = False) -> list | None:
    """For each of the model's labels its place among the source's, None for one that is not there.

    Names are compared without regard to capitals where that tells them apart. None in place of all where no name is
    shared and the names of either are numbers or LABEL_0: then places mean the same on both sides.

    Raises ValueError where named labels share no name, or where rows have `several` and not the same ones.
    """
    forms = (str.casefold, str)
    form = next((form for form in forms if all(len(set(map(form, own))) == len(own) for own in (given, names))), str)
    places = {form(name): place for place, name in enumerate(given)}
    found = [places.get(form(name)) for name in names]
    shared = sum(place is not None for place in found)
    if several and len(names) > 1 and shared and not shared == len(given) == len(names):
        cure = "name the columns of the model's labels by label_columns, or what the model calls them by label_names"
    elif shared == 0 and all(map(has_words, (given, names))) and len(names) > 1:
        cure = "say what stands for each of the model's, in its order, by label_values, or rename them"
        cure = "say what the model calls each, in the source's order, by label_names" if several else cure
    else:
        return found if shared else None
    raise ValueError(f"the source's labels {_some(given)} are not the model's ({_some(names)}); {cure}.")


def _in_order(row, places: list[int]):
    """A row of several labels in the model's order; one of another length is left to be refused."""
    return row if row is None or len(row) != len(places) else [row[place] for place in places]


def _some(names: list[str]) -> str:
    """The first names of a list, for an error."""
    return ", ".join(names[:10]) + ", ..." * (len(names) > 10)
