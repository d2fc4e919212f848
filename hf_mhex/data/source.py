"""Rows of one split, to be explained: shards of consecutive rows, read in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import ClassLabel, Dataset, Image

from hf_mhex.data import Row
from hf_mhex.data.labels import has_words
from hf_mhex.data.opening import OpenRows, find_input, holds, open_splits
from hf_mhex.data.settings import DataSettings
from hf_mhex.families import Kind

LOOKED_AT = 10_000  # rows, evenly spread, whose contents tell one source from another; of a stream the first ones
LOOKED_AT_OF_STREAM = 100


def open_data(
    source: str | PathLike, split: str | None = None, streaming: bool = False, kind: str | None = None
) -> OpenRows:
    """The rows of one split of a source, see `open_splits`.

    Args:
        split: the split to take; the only one where there is one.
        kind: of input that the rows are read for, None where it is not known.

    Raises ValueError for a source that cannot be read and where a split must be named.
    """
    found = open_splits(DataSettings(source=fspath(source)), streaming, kind)
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split is None:
        cure = f"name the one to read by split, on the command line by --split {next(iter(found))}"
        raise ValueError(f"{str(source)!r} has the splits {', '.join(map(repr, found))}: {cure}.")
    if split not in found:
        raise ValueError(f"split must be one of {', '.join(map(repr, found))} in {str(source)!r}, got {split!r}.")
    return found[split]


class RowSource:
    """The rows of `data`, in shards of `rows_per_shard` consecutive ones.

    Args:
        data: what `open_data` answers, read by number unless it streams; a data frame of pandas; or an iterable of
            dicts, read in order, whose columns are those of its first row.
        kind: of the model's input.
        column: of the images or texts; found by its type or name if None.
        id_column: of the rows' ids; if None a column "id", or else the row's number.
        target_column: of the label to explain, its name or number, or None.
        labels: names of the model's labels, in order. Numbers of a source that names its labels become names: its own
            where the model has one of them, else the model's.

    Raises ValueError where a column is not there or cannot be told, and for several splits; TypeError for other data.
    """

    def __init__(
        self,
        data,
        kind: Kind,
        rows_per_shard: int,
        column: str | None = None,
        id_column: str | None = None,
        target_column: str | None = None,
        labels: Sequence[str] = (),
    ):
        self.rows_per_shard, self.target_column = rows_per_shard, target_column
        data, names = rows_and_columns(data)
        features = getattr(data, "features", None) or {}
        self.column = column or (find_input(data if features else names, kind, "column") if names else kind.column)
        self.id_column = id_column or ("id" if "id" in names or not names else None)
        for argument, name in (("column", column), ("id_column", id_column), ("target_column", target_column)):
            if name is not None and names and name not in names:
                raise ValueError(f"{argument}={name!r} must be a column of the data: {', '.join(names)}.")
        feature = features.get(target_column)
        own = feature.names if isinstance(feature, ClassLabel) else []
        if has_words(own) and has_words(labels) and not set(own) & set(labels):
            raise ValueError(
                f"target_column={target_column!r} has labels of other names ({', '.join(own)}) than the model's "
                f"({', '.join(labels)}); rename them, or give a column of the model's names."
            )
        self.target_names = own if set(own) & set(labels) else list(labels) if own else []
        self.renumbered = self.target_names not in ([], list(labels))
        wanted = [name for name in (self.column, self.id_column, self.target_column) if name is not None]
        if hasattr(data, "select_columns"):
            data = data.select_columns(list(dict.fromkeys(wanted)))
        if kind.name == "image" and holds(features.get(self.column), kind):
            data = data.cast_column(self.column, Image(decode=False))  # one that cannot be read must stop no run
        self.data = data
        self.by_number = hasattr(data, "__getitem__") and hasattr(data, "__len__")

    def fingerprint(self) -> str:
        """16 hex digits that tell these rows from others of equal number, by the contents of up to `LOOKED_AT`.

        What it reads of a stream is kept for `shards`.
        """
        if self.by_number:
            numbers = np.linspace(0, len(self.data) - 1, min(len(self.data), LOOKED_AT), dtype=int)
            items = [self.data[int(number)] for number in numbers]
        else:
            stream = iter(self.data)
            items = list(islice(stream, LOOKED_AT_OF_STREAM))
            self.data = chain(items, stream)
        digest = hashlib.sha256(repr(self.target_names).encode() if self.renumbered else b"")
        for item in items:
            for name in (self.column, self.id_column, self.target_column):
                digest.update(_contents(item.get(name)) + b"\0")
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        """Number of rows; TypeError for a stream."""
        return len(self.data)

    @property
    def num_shards(self) -> int | None:
        """Number of shards, None for a stream."""
        return -(-len(self.data) // self.rows_per_shard) if self.by_number else None

    def rows_in(self, shard: int) -> int:
        """Number of rows of a shard, of rows that are read by number."""
        return min(self.rows_per_shard, len(self.data) - shard * self.rows_per_shard)

    def shards(self, wanted) -> Iterator[tuple[int, Iterator[Row]]]:
        """(number of the shard, its rows) for each number with `wanted(number)`. Rows are read as they are taken."""
        count = self.num_shards
        if count is not None:
            for shard in range(count):
                if wanted(shard):
                    first = shard * self.rows_per_shard
                    last = first + self.rows_in(shard)
                    yield shard, (self._row(number, self.data[number]) for number in range(first, last))
            return
        stream = enumerate(self.data)
        for number, item in stream:  # `number` is the first of its shard
            shard = number // self.rows_per_shard
            rows = self._rows_of_stream(stream, number, item)
            if wanted(shard):
                yield shard, rows
            for _ in rows:  # pass over what was not taken
                pass

    def _rows_of_stream(self, stream, number: int, item: dict) -> Iterator[Row]:
        yield self._row(number, item)
        for _ in range(self.rows_per_shard - 1):
            following = next(stream, None)
            if following is None:
                return
            yield self._row(*following)

    def _row(self, number: int, item: dict) -> Row:
        found = None if self.id_column is None else item.get(self.id_column)
        return Row(number, str(number if found is None else found), item.get(self.column), self._target_of(item))

    def _target_of(self, item: dict):
        """The label that a row asks for: its name where the source names labels, else what the column holds."""
        target = None if self.target_column is None else item.get(self.target_column)
        names = self.target_names
        return names[target] if names and target is not None and 0 <= target < len(names) else target


def rows_and_columns(data) -> tuple[Any, list[str]]:
    """The rows of data that a user gave, and the names of their columns; none where there is no row.

    Raises ValueError for several splits, TypeError for what holds no rows.
    """
    if isinstance(data, (str, PathLike)):
        raise TypeError(f"data must hold rows, got the name {fspath(data)!r}; datasets.load_dataset reads files.")
    if isinstance(data, Mapping):
        keys = ", ".join(map(repr, data))
        if all(hasattr(part, "select_columns") for part in data.values()):
            raise ValueError(f"data must be one split, got {keys}; give data[{next(iter(data), '')!r}] for example.")
        raise TypeError(f"data must hold rows, got a dict of {keys}; datasets.Dataset.from_dict makes rows of columns.")
    if isinstance(data, pd.DataFrame):
        data = Dataset.from_pandas(data, preserve_index=False)
    names = list(getattr(data, "features", None) or getattr(data, "column_names", None) or ())
    if names:
        return data, names
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        first = [data[0]] if len(data) else []
    elif hasattr(data, "__iter__"):
        stream = iter(data)
        first = list(islice(stream, 1))
        data = chain(first, stream)
    else:
        raise TypeError(f"data must be a data set, a data frame or an iterable of dicts, got {type(data).__name__}.")
    if first and not isinstance(first[0], Mapping):
        raise TypeError(
            f"data must hold rows as dicts, got {type(first[0]).__name__} as the first; "
            "of texts for example [{'text': text} for text in texts]."
        )
    return data, [name for row in first for name in row]


def _contents(value) -> bytes:
    """The bytes of an image, a text, numbers or a tensor, all of them, with their shape; of a file its contents."""
    if isinstance(value, dict) and "bytes" in value:
        value = value["bytes"] if value["bytes"] is not None else Path(value.get("path") or "")
    if isinstance(value, Path):
        return value.read_bytes() if value.is_file() else str(value).encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if hasattr(value, "__array__") and not isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype != object:
            return f"{array.dtype} {array.shape} ".encode() + array.tobytes()
        value = array.tolist()
    if isinstance(value, Mapping):
        value = [part for entry in value.items() for part in entry]
    if isinstance(value, (list, tuple)) and not all(isinstance(part, (str, int, float)) for part in value):
        parts = [_contents(part) for part in value]
        return b"".join(b"%d " % len(part) + part for part in parts)
    return repr(value).encode()
