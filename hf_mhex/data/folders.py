"""Folders of images: folder/split/class/name.png, folder/class/name.png or names alone; and of tables, by split."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow

from hf_mhex.escaping import visible

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")

OF_TABLES = SPLITS | dict.fromkeys(("eval", "evaluation"), "test")  # as `datasets` knows them for files of data


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
        left = f"left out, no images of it, {len(others)} file{'s' * (len(others) > 1)}: {_some(others)}"
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


def splits_of_tables(folder: Path, paths: list[Path]) -> dict[str, list[Path]]:
    """The files of tables by split, as their names tell it, or else their folders; all "train" where none does.

    A word for a split may be written in capitals, and stands apart (`reviews_Train.csv`) or at one end, where others
    differ by it alone (`mytrain.csv`, `mytest.csv`).

    Raises ValueError where only some tell a split.
    """
    found = {path: _split_of(path) for path in paths}
    glued = [(path, *pair) for path, split in found.items() if split is None for pair in _glued(path.stem.casefold())]
    for path, rest, split in glued:
        if any(other == rest and another != split for _, other, another in glued):
            found[path] = split
    told, untold = ([path for path in paths if (found[path] is None) == missing] for missing in (False, True))
    if told and untold:
        raise ValueError(
            f"source={str(folder)!r} has files whose names tell a split ({_some(told)}) and others ({_some(untold)}); "
            "rename these, move them away, or give one file a split by data.files."
        )
    splits: dict[str, list[Path]] = {}
    for split in ("train", "validation", "test"):
        chosen = [path for path in paths if (found[path] or "train") == split]
        if chosen:
            splits[split] = chosen
    return splits


def _split_of(path: Path) -> str | None:
    """The split that a file's name tells, else its innermost folder that tells one."""
    for part in (path.stem, *reversed(path.parent.parts)):
        words = re.split(r"[\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part).casefold())
        splits = {OF_TABLES[word] for word in words if word in OF_TABLES}
        if len(splits) == 1:
            return splits.pop()
    return None


def _glued(stem: str) -> list[tuple[str, str]]:
    """What is left of a file's name without a word for a split at either end, with that split."""
    ends = [(stem.removesuffix(word), split) for word, split in OF_TABLES.items() if stem.endswith(word)]
    return ends + [(stem.removeprefix(word), split) for word, split in OF_TABLES.items() if stem.startswith(word)]


def _some(paths: list[Path]) -> str:
    """The first of some paths, for an error."""
    return visible(", ".join(path.as_posix() for path in paths[:5])) + ", ..." * (len(paths) > 5)
