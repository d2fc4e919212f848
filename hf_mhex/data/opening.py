"""Where do rows come from? Any source of `datasets.load_dataset`, arrays of MedMNIST and MNIST, embedded samples.

All of them answer as splits of raw columns: inputs that are read when asked for, and labels as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Image, List, Value, load_dataset, load_from_disk
from datasets.exceptions import DatasetNotFoundError

from hf_mhex.data.idx import is_idx_folder, read_idx_folder
from hf_mhex.data.samples import load_sample
from hf_mhex.data.settings import DataSettings

READERS = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
}
LABELS = ("label", "labels", "class", "target", "fine_label")
TEXTS = ("text", "sentence", "content", "review")
MEDMNIST_SPLITS = {"train": "train", "validation": "val", "test": "test"}


@dataclass
class RawSplit:
    """One split as the source has it: `inputs` one a row, `labels` one a row (a value, or one value a label).

    An image stands in `inputs` as a dict of bytes and path, or as an array [H, W] or [H, W, 3] of bytes; a text as a
    list of its parts.
    """

    inputs: Sequence
    labels: Sequence
    names: list[str] | None = None


class Joined(Sequence):
    """Several text columns as one sequence of lists of parts."""

    def __init__(self, columns: list[Sequence]):
        self.columns = columns

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, row: int) -> list:
        return [column[row] for column in self.columns]

    def __iter__(self):
        return (list(parts) for parts in zip(*self.columns))


def read_splits(settings: DataSettings, family: str) -> dict[str, RawSplit]:
    """The splits of the source for a `family` of models ("resnet": images, "bert": texts).

    Raises ValueError for a source that cannot be read and for columns that are not there or cannot be told.
    """
    source = settings.source
    if (source is None) == (settings.files is None):
        raise ValueError("one of data.source and data.files must say where the rows are.")
    path = Path(source or "").expanduser()
    if source and (path.suffix == ".npz" or is_idx_folder(path)):
        if family != "resnet":
            raise ValueError(f"data.source={source!r} holds images, but model.family={family!r} reads texts.")
        return read_medmnist(path) if path.suffix == ".npz" else read_idx(path)
    return {name: split_of(rows, settings, family) for name, rows in load(settings).items()}


def load(settings: DataSettings) -> DatasetDict:
    """The source through `datasets`."""
    source = settings.source
    if source and source.startswith("sample:"):
        return load_sample(source.removeprefix("sample:"))
    if settings.files:
        paths = {split: str(Path(path).expanduser()) for split, path in settings.files.items()}
        return load_files(paths, settings)
    path = Path(source).expanduser()
    if path.is_file():
        return load_files({"train": str(path)}, settings)
    if path.is_dir():
        return load_folder(path, settings.config_name)
    if path.suffix.lower() in READERS or source.startswith((".", "/", "~")):
        raise ValueError(f"data.source={source!r} is no file or folder.")
    try:
        return load_dataset(source, settings.config_name, revision=settings.revision)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise ValueError(f"data.source={source!r} is no file, and no data set that can be reached: {error}") from error


def load_folder(path: Path, config_name: str | None) -> DatasetDict:
    """A folder of images or of data files, or one that `save_to_disk` wrote."""
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        found = load_from_disk(str(path))
        return found if isinstance(found, DatasetDict) else DatasetDict({"train": found})
    try:
        return load_dataset(str(path), config_name)
    except (FileNotFoundError, DatasetNotFoundError) as error:
        raise ValueError(f"data.source={str(path)!r} holds no data that can be read: {error}") from error


def load_files(paths: dict[str, str], settings: DataSettings) -> DatasetDict:
    """One file a split, all of one kind."""
    kinds = {Path(path).suffix.lower() for path in paths.values()}
    missing = [path for path in paths.values() if not Path(path).is_file()]
    if missing:
        raise ValueError(f"data file {missing[0]!r} is not there.")
    if len(kinds) != 1 or not kinds <= set(READERS):
        raise ValueError(f"data files must be of one kind among {', '.join(READERS)} (or .npz); got {sorted(kinds)}.")
    reader, options = READERS[kinds.pop()]
    if settings.column_names:
        if reader != "csv":
            raise ValueError("data.column_names are for .csv and .tsv files, whose columns may have no names.")
        options = options | {"column_names": settings.column_names}
    if reader == "csv":
        options = options | {"keep_default_na": False, "na_values": [""]}
    return load_dataset(reader, data_files=paths, **options)


def split_of(rows: Dataset, settings: DataSettings, family: str) -> RawSplit:
    """The input and label columns of a data set, by the settings or found by kind and usual name."""
    labels = settings.label_columns or [find(rows, LABELS, "label")]
    if family == "resnet":
        images = [name for name, feature in rows.features.items() if isinstance(feature, Image)]
        inputs = settings.input_columns or images[:1]
    else:
        inputs = settings.input_columns or [find(rows, TEXTS, "input")]
    absent = [name for name in [*inputs, *labels] if name not in rows.column_names]
    if absent or not inputs or (family == "resnet" and len(inputs) != 1):
        wanted = f"no column {absent[0]!r}" if absent else "not one column of images"
        raise ValueError(f"the data have {wanted}; there are {', '.join(rows.column_names)}. Set data.input_columns.")
    if family == "resnet":
        column = rows.cast_column(inputs[0], Image(decode=False))[inputs[0]]
    else:
        for name in inputs:
            if not (isinstance(rows.features[name], Value) and "string" in rows.features[name].dtype):
                raise ValueError(f"column {name!r} must hold texts, but holds {rows.features[name]}.")
        column = Joined([rows[name][:] for name in inputs])
    if len(labels) > 1:
        return RawSplit(column, list(zip(*(rows[name][:] for name in labels))), labels)
    feature = rows.features[labels[0]]
    names = feature.names if isinstance(feature, ClassLabel) else None
    if isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
        names = feature.feature.names
        hot = [None if found is None else [int(k in found) for k in range(len(names))] for found in rows[labels[0]][:]]
        return RawSplit(column, hot, names)
    return RawSplit(column, rows[labels[0]][:], names)


def find(rows: Dataset, usual: tuple[str, ...], what: str) -> str:
    """The one column with a usual name; ValueError where none or several have one."""
    found = [name for name in rows.column_names if name.lower() in usual]
    if len(found) != 1:
        raise ValueError(
            f"the {what} column cannot be told among {', '.join(rows.column_names)}; set data.{what}_columns."
        )
    return found[0]


def read_idx(folder: Path) -> dict[str, RawSplit]:
    """A folder of IDX files, which name no classes: what MNIST and Fashion-MNIST are published as."""
    return {split: RawSplit(images, labels) for split, (images, labels) in read_idx_folder(folder).items()}


def read_medmnist(path: Path) -> dict[str, RawSplit]:
    """A MedMNIST file: arrays `train_images` [N, H, W] or [N, H, W, 3] of bytes, `train_labels` [N, K], and so on."""
    if not path.is_file():
        raise ValueError(
            f"data.source={str(path)!r} is not there; MedMNIST's files are on zenodo.org (record 10519652)."
        )
    splits = {}
    with np.load(path, allow_pickle=False) as arrays:
        for split, name in MEDMNIST_SPLITS.items():
            if f"{name}_images" not in arrays or f"{name}_labels" not in arrays:
                continue
            images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
            gray, colour = images.ndim == 3, images.ndim == 4 and images.shape[-1] == 3
            if images.dtype != np.uint8 or not (gray or colour) or len(images) != len(labels):
                raise ValueError(
                    f"{path.name}: {name}_images must be bytes [N, H, W] or [N, H, W, 3] with N labels; got "
                    f"{images.dtype} {list(images.shape)} and labels {list(labels.shape)}."
                )
            splits[split] = RawSplit(images, labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels)
    if not splits:
        raise ValueError(f"data.source={str(path)!r} has no array train_images with train_labels.")
    return splits
