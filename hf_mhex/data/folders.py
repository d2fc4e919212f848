"""Folders of images: folder/split/class/name.png, folder/class/name.png or names alone."""

from __future__ import annotations

import warnings
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow

from hf_mhex.escaping import visible

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")


def files_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images, and the other files that are not hidden, of a folder at any depth, as sorted relative paths."""
    Pillow.init()
    suffixes = {suffix for suffix, kind in Pillow.EXTENSION.items() if kind in Pillow.OPEN}
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    paths = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    images = [path for path in paths if path.suffix.lower() in suffixes]
    return images, [path for path in paths if path.suffix.lower() not in suffixes]


def read_image_folder(folder: Path, images: list[Path], others: list[Path]) -> dict[str, Dataset]:
    """Splits with `id` (path relative to the folder), `image` and, where there are class folders, `label`.

    An image beside the class folders has no label. Other files, and images beside the splits, are left out and named by
    a warning.
    """
    outer = {path.parts[0] for path in images if len(path.parts) > 1}
    has_splits = bool(outer) and outer <= set(SPLITS)
    splits: dict[str, list[Path]] = {}
    for path in images:
        if has_splits and len(path.parts) == 1:
            others = [*others, path]
        else:
            splits.setdefault(SPLITS[path.parts[0]] if has_splits else "train", []).append(path)
    if others:
        named = ", ".join(path.as_posix() for path in others[:5]) + (", ..." if len(others) > 5 else "")
        left = f"left out, no images of it, {len(others)} file{'s' * (len(others) > 1)}: {visible(named)}"
        warnings.warn(f"{str(folder)!r}: {left}.", stacklevel=2)
    depth = int(has_splits)
    classes = sorted({path.parts[depth] for path in images if len(path.parts) > depth + 1})
    found = {}
    for split, paths in splits.items():
        columns: dict[str, list] = {
            "id": [path.as_posix() for path in paths],
            "image": [str(folder / path) for path in paths],
        }
        features = Features(id=Value("string"), image=Image())
        if classes:
            columns["label"] = [path.parts[depth] if len(path.parts) > depth + 1 else None for path in paths]
            features["label"] = ClassLabel(names=classes)
        found[split] = Dataset.from_dict(columns, features=features)
    return found
