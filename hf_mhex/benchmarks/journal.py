"""Journal of a long measurement: JSON lines in a file, so that a stopped run goes on where it was."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path

from hf_mhex.writing import make_folder, write_whole


class Journal:
    """JSON lines in a file, found again by what they are about. A line cut short by a kill is left out and redone."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows = []
        for line in lines:
            with suppress(json.JSONDecodeError):
                self.rows.append(json.loads(line))
        if len(self.rows) < len(lines):
            write_whole(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def find(self, **about) -> dict | None:
        """The row about this, or None."""
        return next((row for row in self.rows if all(row.get(name) == value for name, value in about.items())), None)

    def check(self, made_with: Mapping, **about) -> None:
        """ValueError where a line about this was made with something else: one table would mix them.

        What a line does not name is not compared, as weights in older lines. Of a dict, as the weights of several
        networks, a line must have all that is asked for, and may have more.
        """
        for row in self.rows:
            if any(row.get(name) != value for name, value in about.items()):
                continue
            for name, value in made_with.items():
                had = row.get(name, value)
                if had != (had | value if isinstance(value, dict) else value):
                    raise ValueError(
                        f"output={str(self.path.parent)!r} holds rows that were made with {name}={had!r}, not "
                        f"{value!r}; name another folder."
                    )

    def add(self, row: dict) -> None:
        """Append a row, at once."""
        self.rows.append(row)
        make_folder(self.path.parent)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def without_folders(override: str) -> str:
    """A key=value without the folders of this machine, as a shell takes it and published rows tell it."""
    key, mark, value = override.partition("=")
    return shlex.quote(f"{key}{mark}{Path(value).name if Path(value).exists() else value}")


def source_name(source: str | PathLike) -> str:
    """A Hub id, folder or file as published commands name it: "outputs/train/coffee/model" as given.

    Of a path outside the working directory the last name is left, or the last two where it ends in "model".
    """
    path = Path(source)
    if path.is_absolute() or ".." in path.parts:
        return "/".join(path.parts[-2:] if path.name == "model" else path.parts[-1:])
    return path.as_posix()


def command_line(verb: str, words: Sequence[str], overrides: Sequence[str] | None, options: Mapping) -> str:
    """The command that published rows were made by; options that are None are left out."""
    given = [verb, *words, *map(without_folders, overrides or [])]
    named = {name: value for name, value in options.items() if value is not None}
    return " ".join([*given, *(f"--{name} {shlex.quote(str(value))}" for name, value in named.items())])
