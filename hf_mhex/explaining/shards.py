"""Parquet shards of the explanations of a data set, each there in full or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_mhex.writing import make_folder, write_whole

STORED = {"float16": (pa.float16(), np.float16), "int8": (pa.int8(), np.int8)}
SETTINGS = "settings.json"


def shard_path(folder: Path, shard: int) -> Path:
    """Where the shard of this number stands."""
    return folder / f"shard-{shard:06d}.parquet"


def store_map(values: np.ndarray, kind: str) -> tuple[np.ndarray, float]:
    """A float map as (stored, scale) with `stored * scale` near the map, and equal where it is 0.

    "float16": scale is a power of 2 that brings the largest size into (1/2, 1], so that nothing small is lost beside
    float16's own 11 bits. "int8": the largest size is 127.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return values.astype(STORED[kind][1]), 1.0
    if kind == "float16":
        scale = float(2.0 ** np.ceil(np.log2(largest)))
        return (values / scale).astype(np.float16), scale
    scale = largest / 127
    return np.rint(values / scale).astype(np.int8), scale


def restore_map(stored, scale: float) -> np.ndarray:
    """The float32 map of a row: `restore_map(row["map"], row["map_scale"])`."""
    return np.asarray(stored, dtype=np.float32) * np.float32(scale)


class ShardWriter:
    """Writes one shard, row group by row group, under a name that nobody reads until `close`.

    Args:
        path: the finished shard's.
        is_image: whether maps are [H, W] (or [T]).
        kind: "float16" or "int8", see `store_map`.
        blocks, words: whether the blocks' own maps, and words, are among the columns.
    """

    def __init__(self, path: Path, is_image: bool, kind: str, blocks: bool, words: bool):
        # a name of its own: a worker that was given up may still write
        self.path, self.part = path, path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        number = STORED[kind][0]
        map_type = pa.list_(pa.list_(number)) if is_image else pa.list_(number)
        fields = [("row", pa.int64()), ("id", pa.string()), ("error", pa.string()), ("target", pa.int64())]
        fields += [("label", pa.string()), ("logits", pa.list_(pa.float32())), ("score", pa.float32())]
        fields += [("explained", pa.float32()), ("map", map_type), ("map_scale", pa.float32())]
        if blocks:
            fields += [("block_maps", pa.list_(map_type)), ("block_scales", pa.list_(pa.float32()))]
        if not is_image:
            fields += [("truncated", pa.bool_())]
        if words:
            fields += [("words", pa.list_(pa.string())), ("word_scores", pa.list_(pa.float32()))]
            fields += [("special", pa.float32())]
        self.schema, self.kind, self.rows = pa.schema(fields), kind, 0
        self.writer = pq.ParquetWriter(self.part, self.schema, compression="zstd")

    def write(self, records: Sequence[dict]) -> None:
        """Append records (column name to value; what is missing is null) as one row group; maps are float arrays."""
        if not records:
            return
        stored = [self._stored(record) for record in records]
        columns = []
        for field in self.schema:
            values = [record.get(field.name) for record in stored]
            columns.append(_nested(values, field.type))
        self.writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))
        self.rows += len(records)

    def close(self) -> None:
        """Finish the shard and give it its name, in one step."""
        self.writer.close()
        os.replace(self.part, self.path)

    def _stored(self, record: dict) -> dict:
        if record.get("map") is None:
            return record
        found, scale = store_map(record["map"], self.kind)
        record = record | {"map": found, "map_scale": scale}
        if "block_maps" in self.schema.names:
            pairs = [store_map(values, self.kind) for values in record["block_maps"]]
            record |= {"block_maps": [pair[0] for pair in pairs], "block_scales": [pair[1] for pair in pairs]}
        return record


def _nested(values: list, kind: pa.DataType) -> pa.Array:
    """An Arrow array of nested lists (None for null) whose innermost level may be given as numpy arrays."""
    if not pa.types.is_list(kind) or not pa.types.is_list(kind.value_type):
        if pa.types.is_list(kind) and any(isinstance(value, np.ndarray) for value in values):
            lengths = [None if value is None else len(value) for value in values]
            flat = [value for value in values if value is not None]
            return pa.ListArray.from_arrays(_offsets(lengths), pa.array(np.concatenate(flat), kind.value_type))
        return pa.array(values, kind)
    lengths = [None if value is None else len(value) for value in values]
    inner = [row for value in values if value is not None for row in value]
    return pa.ListArray.from_arrays(_offsets(lengths), _nested(inner, kind.value_type))


def _offsets(lengths: list[int | None]) -> pa.Array:
    """Where each list starts, and the end; null where a list is null."""
    ends = np.cumsum([0] + [length or 0 for length in lengths])
    missing = np.array([length is None for length in lengths] + [False])
    return pa.array(ends.astype(np.int32), mask=missing)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed have left, once none is at work."""
    for path in folder.glob("*.part"):
        path.unlink(missing_ok=True)


def _told(settings: dict, names: Sequence[str]) -> str:
    """Some settings as a dict is printed, each in at most 80 characters: an axis may have a thousand places."""
    said = ((name, repr(settings[name])) for name in names)
    return "{" + ", ".join(f"{name!r}: {one if len(one) <= 80 else one[:76] + ' ...'}" for name, one in said) + "}"


def keep_settings(folder: Path, settings: dict) -> None:
    """Write what decides the explanations to `folder`, or compare with what stands there, by what both name.

    Raises ValueError where the folder holds explanations made with other settings, or other shards.
    """
    make_folder(folder)
    path = folder / SETTINGS
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        if any(folder.glob("*.parquet")):
            raise ValueError(f"output={str(folder)!r} holds Parquet files of another kind; name a new folder.")
        write_whole(path, json.dumps(settings, indent=2) + "\n")
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name in settings if name in before and settings[name] != before[name]]
    if changed:
        was, now = (_told(found, changed) for found in (before, settings))
        raise ValueError(f"output={str(folder)!r} was begun with {was}, not {now}; use them, or name a new folder.")
