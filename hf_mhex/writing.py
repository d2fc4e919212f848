"""Writing of files and folders that are there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_folder(path: Path) -> None:
    """Raise ValueError where a file is in the way of a folder; called before work whose results go there."""
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{str(there)!r} is a file, and a folder is needed there; name another place.")


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, where they are not there; ValueError where a file is in the way."""
    check_folder(path)
    path.mkdir(parents=True, exist_ok=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside `path`, to write a file or a folder to.

    What was written there takes its place when the block ends. An error or Ctrl-C leaves nothing, and what stood at
    `path` before as it was. Files that are written beside the path (`model.onnx.data`) move with it.
    """
    make_folder(path.parent)
    hidden = Path(tempfile.mkdtemp(prefix=".mhex-", dir=path.parent))
    try:
        yield hidden / path.name
        for made in sorted(hidden.iterdir()):
            place = path.with_name(made.name)
            if made.is_dir() and place.is_dir():
                place.rmdir()  # an empty one; OSError for another
            os.replace(made, place)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8, as a whole or not at all."""
    with whole(path) as place:
        place.write_text(text, encoding="utf-8")
