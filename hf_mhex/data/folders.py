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

    Names of splits may be written in capitals. An image beside the class folders has no label. Other files, and images
    beside the splits, are left out and named by a warning.

    Raises ValueError where other folders stand beside the splits.
    """
    outer = {path.parts[0] for path in images if len(path.parts) > 1}
    named = {name: SPLITS[name.casefold()] for name in outer if name.casefold() in SPLITS}
    odd = sorted(outer - named.keys())
    has_splits = bool(named) and not odd
    if odd and any(path.parts[0] in named for path in images if len(path.parts) > 2):
        beside = ", ".join(map(repr, odd[:5])) + ", ..." * (len(odd) > 5)
        cure = "move these away, or name the folder of one split"
        splits_there = ", ".join(sorted(named))
        raise ValueError(
            f"source={str(folder)!r} has folders of splits ({splits_there}) and beside them {beside}; {cure}."
        )
    splits: dict[str, list[Path]] = {}
    for path in images:
        if has_splits and len(path.parts) == 1:
            others = [*others, path]
        else:
            splits.setdefault(named[path.parts[0]] if has_splits else "train", []).append(path)
    if others:
        some = ", ".join(path.as_posix() for path in others[:5]) + (", ..." if len(others) > 5 else "")
        left = f"left out, no images of it, {len(others)} file{'s' * (len(others) > 1)}: {visible(some)}"
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
