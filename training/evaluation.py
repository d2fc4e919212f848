"""Rows that a saved model is judged on, by a recipe's name or by any source of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hf_mhex.data import batches
from hf_mhex.data.settings import DataSettings
from hf_mhex.training.recipe import check_keys, load_recipe, recipe_names, set_value


def rows_for(
    model, processor, data: str, split: str | None, overrides: Iterable[str], batch_size: int
) -> tuple[Iterator[dict], dict[str, int]]:
    """Batches of one split, and how many of its rows were left out for which reason, see `hf_mhex.data.batches`.

    Args:
        data: what a recipe's `data.source` may be; or a recipe, whose own splits are made again.
        split: None for "test", or the only split there is.
        overrides: `key=value` of a recipe's data section (input_columns, label_columns, label_values, on_bad_row ...).
    """
    if data.endswith((".yaml", ".yml")) or data in recipe_names():
        recipe = load_recipe(data, overrides)
        return batches.rows_for(model, processor, recipe.data, split, batch_size, recipe.model.problem_type)
    values: dict = {"data": {"source": data}}
    for override in overrides:
        set_value(values, override)
    if set(values) != {"data"}:
        raise ValueError(f"only keys of a recipe's data section apply here; got {', '.join(set(values) - {'data'})}.")
    check_keys("data", values["data"], DataSettings)
    return batches.rows_for(model, processor, DataSettings(**values["data"]), split, batch_size)
