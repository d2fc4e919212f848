"""Embedded samples: three small data sets, as Parquet, read through `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hf_mhex.environment import named_extra

if TYPE_CHECKING:
    from datasets import DatasetDict

FOLDER = Path(__file__).parent
SAMPLES = ("fashion_mnist", "product_reviews", "coffee")


def load_sample(name: str) -> DatasetDict:
    """One of the embedded samples with its splits "train" and "test"; SOURCES.md beside this file describes them.

    Args:
        name: "fashion_mnist" (`image` 28 x 28 gray, `label` of 10), "product_reviews" (`text`, `label` of 2 and
            `score`, the mean human rating in [-4, 4]) or "coffee" (`signal`, an infrared spectrum of 1,841 points,
            `label` of 3 origins).

    Raises ValueError for another name.
    """
    if name not in SAMPLES:
        raise ValueError(f"name must be one of {', '.join(map(repr, SAMPLES))}, the embedded samples; got {name!r}.")
    with named_extra():
        from datasets import load_dataset

    files = {split: str(FOLDER / f"{name}-{split}.parquet") for split in ("train", "test")}
    return load_dataset("parquet", data_files=files)
