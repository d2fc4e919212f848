"""Which rows does a source of data hold, and which are a process's? Shards of consecutive rows, read in order."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from PIL import Image

BUILDERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".txt": "text"}
NAMES = {"pixel_values": ("image", "img", "picture"), "input_ids": ("text", "sentence", "content", "review")}


@dataclass(frozen=True)
class Row:
    """Row number `number` of the source, its `id`, the image or text itself and, where asked for, its target."""

    number: int
    id: str
    value: Any
    target: int | None = None


def open_data(source: str | PathLike, split: str | None = None, streaming: bool = False):
    """A `datasets` source from a folder, a file or a Hub id.

    Args:
        source: a folder that `save_to_disk` wrote, a folder of images or data files, a file (Parquet, CSV, TSV, JSON,
            JSON lines, text with an item a line), or the Hub id of a data set.
        split: the split to take; the only one where there is one.
        streaming: read rows as they are needed, without a prepared copy on disk.

    Raises ValueError for a file of an unknown kind and where a split must be named.
    """
    from datasets import DatasetDict, IterableDatasetDict, load_dataset, load_from_disk

    path, name = Path(source), fspath(source)
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        data = load_from_disk(name)
        if streaming:
            raise ValueError(f"streaming=True does not apply to {name!r}, which save_to_disk wrote and is read lazily.")
    elif path.is_file():
        kind = BUILDERS.get(path.suffix.lower())
        if kind is None:
            raise ValueError(f"data={name!r} must be a file of {', '.join(BUILDERS)}, a folder or a Hub id.")
        extra = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
        data = load_dataset(kind, data_files=name, streaming=streaming, **extra)
    else:
        data = load_dataset(name, streaming=streaming)
    if not isinstance(data, (DatasetDict, IterableDatasetDict)):
        return data
    if split is None and len(data) == 1:
        return next(iter(data.values()))
    if split not in data:
        raise ValueError(f"split must be one of {', '.join(map(repr, data))} in {name!r}, got {split!r}.")
    return data[split]


class RowSource:
    """The rows of `data`, in shards of `rows_per_shard` consecutive ones.

    Args:
        data: a `datasets.Dataset`, read by number; or an `IterableDataset` or another iterable of dicts, read in order.
        main_input: the model's, "pixel_values" (images) or "input_ids" (texts).
        column: of the images or texts; found by its type or name if None.
        id_column: of the rows' ids; if None a column "id", or else the row's number.
        target_column: of the class to explain, or None.

    Raises ValueError where a column is not there or cannot be told.
    """

    def __init__(self, data, main_input, rows_per_shard, column=None, id_column=None, target_column=None):
        self.rows_per_shard, self.target_column = rows_per_shard, target_column
        features = getattr(data, "features", None)
        names = list(features or getattr(data, "column_names", None) or ())
        self.column = column or _find_column(names, features or {}, main_input)
        self.id_column = id_column or ("id" if "id" in names or not names else None)
        for argument, name in (("column", column), ("id_column", id_column), ("target_column", target_column)):
            if name is not None and names and name not in names:
                raise ValueError(f"{argument}={name!r} must be a column of the data: {', '.join(names)}.")
        wanted = [name for name in (self.column, self.id_column, self.target_column) if name is not None]
        if names:
            data = data.select_columns(list(dict.fromkeys(wanted)))
        if features and type(features[self.column]).__name__ == "Image":
            from datasets import Image as EncodedImage

            data = data.cast_column(self.column, EncodedImage(decode=False))  # one that cannot be read must stop no run
        self.data = data
        self.by_number = hasattr(data, "__getitem__") and hasattr(data, "__len__")

    def __len__(self) -> int:
        """Number of rows; TypeError for a stream."""
        return len(self.data)

    @property
    def num_shards(self) -> int | None:
        """Number of shards, None for a stream."""
        return -(-len(self.data) // self.rows_per_shard) if self.by_number else None

    def shards(self, wanted) -> Iterator[tuple[int, Iterator[Row]]]:
        """(number of the shard, its rows) for each number with `wanted(number)`. Rows are read as they are taken."""
        if self.by_number:
            for shard in range(self.num_shards):
                if wanted(shard):
                    first = shard * self.rows_per_shard
                    last = min(first + self.rows_per_shard, len(self.data))
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

    def _rows_of_stream(self, stream, number, item) -> Iterator[Row]:
        yield self._row(number, item)
        for _ in range(self.rows_per_shard - 1):
            following = next(stream, None)
            if following is None:
                return
            yield self._row(*following)

    def _row(self, number: int, item: dict) -> Row:
        found = None if self.id_column is None else item.get(self.id_column)
        target = None if self.target_column is None else item.get(self.target_column)
        return Row(number, str(number if found is None else found), item.get(self.column), target)


def read_image(value, num_channels: int) -> Image.Image:
    """The image of a row (PIL, array, path, or a dict of bytes and path) in the mode that `num_channels` asks for.

    Raises ValueError for an empty row; whatever Pillow raises for a file that it cannot read.
    """
    if isinstance(value, dict):
        value = io.BytesIO(value["bytes"]) if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise ValueError("the row holds no image.")
    if hasattr(value, "__array_interface__") and not isinstance(value, Image.Image):
        value = Image.fromarray(value)
    image = value if isinstance(value, Image.Image) else Image.open(value)
    return image.convert({1: "L", 3: "RGB"}.get(num_channels, image.mode))


def _find_column(names: Iterable[str], features: dict, main_input: str) -> str:
    """The column of the images or texts, by its type where there is one of it, else by its name."""
    if main_input == "pixel_values":
        typed = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    else:
        typed = [name for name, feature in features.items() if getattr(feature, "dtype", None) in TEXT_TYPES]
    named = [name for name in NAMES[main_input] if name in names]
    if len(typed) == 1 or (typed and not named):
        named = typed
    if not names:
        named = [NAMES[main_input][0]]  # an iterable of dicts that does not say what it holds
    if len(named) != 1:
        raise ValueError(f"column must name the column of inputs, one of {', '.join(names)}; it cannot be told.")
    return named[0]


TEXT_TYPES = ("string", "large_string")
