"""Files of arrays: those of MedMNIST (.npz), and the IDX files of MNIST and the sets published in its form."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

STEMS = {"train": "train", "test": "t10k"}
IMAGES, LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
BYTES = 8  # IDX's number for unsigned bytes
SPLITS = {"train": "train", "validation": "val", "test": "test"}  # as the names of a .npz's arrays begin


class ArrayRows:
    """Rows in memory, read as those of a `datasets.Dataset`: by number a dict, by name a column."""

    features: dict = {}
    axis: list[float] | None = None  # places of a signal's points

    def __init__(self, **columns: np.ndarray):
        self.columns = columns

    def on_axis(self, axis: list[float] | None) -> ArrayRows:
        """The same rows, whose signals' points stand at `axis`."""
        self.axis = axis
        return self

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.columns)

    def select_columns(self, names: list[str]) -> ArrayRows:
        """The rows with these columns only."""
        return ArrayRows(**{name: self.columns[name] for name in names}).on_axis(self.axis)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, place: int | str):
        if isinstance(place, str):
            return self.columns[place]
        return {name: values[place] for name, values in self.columns.items()}


@contextmanager
def open_arrays(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The arrays of a .npz by name, each read when it is taken; ValueError for a file that is cut short or corrupt."""
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is no .npz or lacks its end")
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}); it is cut short or corrupt: fetch it again.") from error


def read_medmnist(path: Path) -> dict[str, ArrayRows]:
    """Splits of a .npz with arrays `train_images` [N, H, W] or [N, H, W, 3] of bytes, `train_labels` [N, K], and so on.

    Raises ValueError for a file that is not there or of another form.
    """
    if not path.is_file():
        raise ValueError(f"source={str(path)!r} is not there; MedMNIST's files are on zenodo.org (record 10519652).")
    splits = {}
    with open_arrays(path) as arrays:
        names = ", ".join(arrays)
        for split, name in SPLITS.items():
            if f"{name}_images" not in arrays or f"{name}_labels" not in arrays:
                continue
            images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
            gray, colour = images.ndim == 3, images.ndim == 4 and images.shape[-1] == 3
            if images.dtype != np.uint8 or not (gray or colour) or len(images) != len(labels):
                raise ValueError(
                    f"{path.name}: {name}_images must be bytes [N, H, W] or [N, H, W, 3] with N labels; got "
                    f"{images.dtype} {list(images.shape)} and labels {list(labels.shape)}."
                )
            single = labels.ndim == 2 and labels.shape[1] == 1
            splits[split] = ArrayRows(image=images, label=labels[:, 0] if single else labels)
    if not splits:
        wanted = "no array train_images with train_labels, signal or train_signal"
        raise ValueError(f"source={str(path)!r} has {wanted}; it has {names or 'none'}.")
    return splits


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds `train-images-idx3-ubyte`, `t10k-images-idx3-ubyte` or either of them with .gz."""
    return any(_find(folder, stem + IMAGES) for stem in STEMS.values())


def read_idx_folder(folder: Path) -> dict[str, ArrayRows]:
    """Images [H, W] of bytes and their labels, for "train" and "test" where the folder has them.

    Raises ValueError for a file that is missing, cut short or of another form, and for images and labels that differ in
    number.
    """
    splits = {}
    for split, stem in STEMS.items():
        paths = {kind: _find(folder, stem + kind) for kind in (IMAGES, LABELS)}
        found = {kind: path for kind, path in paths.items() if path is not None}
        if not found:
            continue
        for kind in paths.keys() - found.keys():
            raise ValueError(f"{folder} must hold {stem}{kind}.gz (or without .gz) beside the other {stem} file.")
        images, labels = _read_idx(found[IMAGES], 3), _read_idx(found[LABELS], 1)
        if len(images) != len(labels):
            names = f"{found[IMAGES].name} and {found[LABELS].name}"
            raise ValueError(f"{names} must have as many rows as each other, got {len(images)} and {len(labels)}.")
        splits[split] = ArrayRows(image=images, label=labels)
    return splits


def _find(folder: Path, name: str) -> Path | None:
    """The file of that name, packed or not."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """The array of bytes with `rank` dimensions in an IDX file, packed by gzip or not.

    The header is 0, 0, the type's number, the rank, and then each size as four bytes, the highest first.
    """
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}); it is cut short or corrupt: fetch it again.") from error
    start = 4 + 4 * rank
    if len(data) < start or data[:4] != bytes([0, 0, BYTES, rank]):
        raise ValueError(f"{path} must be an IDX file of bytes with {rank} dimensions; it starts with {data[:4]!r}.")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, offset=4))
    if len(data) - start != np.prod(shape, dtype=object):
        raise ValueError(
            f"{path} holds {len(data) - start} bytes, but its header says {' x '.join(map(str, shape))}; "
            "it is cut short or corrupt: fetch it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
