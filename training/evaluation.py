"""Which rows is a saved model judged on? Those of any source of a recipe, with the labels that its config names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from torch.utils.data import DataLoader

from hf_mhex.data.labels import LabelEncoder
from hf_mhex.data.opening import read_splits
from hf_mhex.data.rows import Rows, check, read_data, read_image, read_text
from hf_mhex.data.settings import DataSettings
from hf_mhex.training.inputs import ImageCollator, TextCollator, TokenizedRows
from hf_mhex.training.recipe import load_recipe, recipe_names, set_value
from hf_mhex.training.settings import ProcessingSettings

SPLITS = ("train", "validation", "test")


def rows_for(
    model, processor, data: str, split: str | None, overrides: Iterable[str], batch_size: int
) -> tuple[Iterator[dict], dict[str, int]]:
    """Batches of one split, and how many of its rows were left out for which reason.

    Args:
        data: what a recipe's `data.source` may be; or a recipe, whose own splits are made again.
        split: None for "test", or the only split there is.
        overrides: `key=value` of a recipe's data section (input_columns, label_columns, label_values, on_bad_row ...).

    Raises ValueError for a split that is not there and for bad rows, such as labels that the model's config lacks.
    """
    images = model.main_input_name == "pixel_values"
    if data.endswith((".yaml", ".yml")) or data in recipe_names():
        rows, skipped = recipe_rows(model, data, split or "test", overrides)
    else:
        rows, skipped = source_rows(model, data, split, overrides)
    if images:
        collate = ImageCollator(processor, ProcessingSettings(), model.config.num_channels)
    else:
        rows, collate = TokenizedRows(rows, processor), TextCollator(processor)
    return iter(DataLoader(rows, batch_size=batch_size, collate_fn=collate)), skipped


def recipe_rows(model, name: str, split: str, overrides: Iterable[str]) -> tuple[Rows, dict[str, int]]:
    """Rows of one of the three splits that a run by the recipe has; bad rows are counted over all of the source."""
    recipe = load_recipe(name, overrides)
    found = read_data(recipe.data, recipe.model.family, recipe.model.problem_type)
    if split not in SPLITS:
        raise ValueError(f"--split must be one of {', '.join(SPLITS)} for a recipe; got {split}.")
    names = [model.config.id2label[k] for k in range(model.config.num_labels)]
    if names != found.names:
        raise ValueError(f"the model's labels {names} are not those of recipe {name!r}: {found.names}.")
    return getattr(found, split), dict(sum(map(Counter, found.skipped.values()), Counter()))


def source_rows(model, source: str, split: str | None, overrides: Iterable[str]) -> tuple[Rows, dict[str, int]]:
    """Rows of one split of a source, their labels numbered as the model's config does."""
    values: dict = {"data": {"source": source}}
    for override in overrides:
        set_value(values, override)
    if set(values) != {"data"}:
        raise ValueError(f"only keys of a recipe's data section apply here; got {', '.join(set(values) - {'data'})}.")
    settings = DataSettings(**values["data"])
    images = model.main_input_name == "pixel_values"
    raw = read_splits(settings, "resnet" if images else "bert")
    split = split or ("test" if "test" in raw else next(iter(raw)) if len(raw) == 1 else None)
    if split not in raw:
        raise ValueError(f"--split must be one of {', '.join(raw)}; got {split}.")
    config = model.config
    names = [config.id2label[k] for k in range(config.num_labels)]
    kind = config.problem_type or "single_label_classification"
    stands_for = settings.label_values
    if stands_for is None and raw[split].names and kind == "single_label_classification":
        stands_for = numbers_of(raw[split].names, config)
    encoder = LabelEncoder(kind, raw[split].labels, names, stands_for)
    return check(raw[split], split, encoder, read_image if images else read_text, settings)


def numbers_of(source_names: list[str], config) -> list[str] | None:
    """For each label of the model, its number in a source that names its labels; a label that it lacks gets none.

    None where no name is shared: then the numbers mean the same on both sides.
    """
    if not set(source_names) & set(config.label2id):
        return None
    places = {name: str(number) for number, name in enumerate(source_names)}
    return [places.get(config.id2label[k], f"no {config.id2label[k]}") for k in range(config.num_labels)]
