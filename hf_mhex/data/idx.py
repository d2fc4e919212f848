"""What do IDX files hold? The images and labels of MNIST and the sets that are published in its form."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

STEMS = {"train": "train", "test": "t10k"}
IMAGES, LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
BYTES = 8  # IDX's number for unsigned bytes


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds `train-images-idx3-ubyte`, `t10k-images-idx3-ubyte` or either of them with .gz."""
    return any(find(folder, stem + IMAGES) for stem in STEMS.values())


def read_idx_folder(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images [N, H, W] and labels [N] of bytes, for "train" and "test" where the folder has them.

    Raises ValueError for a file that is missing, cut short or of another form, and for images and labels that differ in
    number.
    """
    splits = {}
    for split, stem in STEMS.items():
        found = {kind: find(folder, stem + kind) for kind in (IMAGES, LABELS)}
        if not any(found.values()):
            continue
        for kind, path in found.items():
            if path is None:
                raise ValueError(f"{folder} must hold {stem}{kind}.gz (or without .gz) beside the other {stem} file.")
        images, labels = read_idx(found[IMAGES], 3), read_idx(found[LABELS], 1)
        if len(images) != len(labels):
            names = f"{found[IMAGES].name} and {found[LABELS].name}"
            raise ValueError(f"{names} must have as many rows as each other, got {len(images)} and {len(labels)}.")
        splits[split] = images, labels
    return splits


def find(folder: Path, name: str) -> Path | None:
    """The file of that name, packed or not."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def read_idx(path: Path, rank: int) -> np.ndarray:
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
