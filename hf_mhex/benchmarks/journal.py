"""Journal of a long measurement: JSON lines in a file, so that a stopped run goes on where it was."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from hf_mhex.writing import write_whole


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

    def add(self, row: dict) -> None:
        """Append a row, at once."""
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def without_folders(override: str) -> str:
    """A key=value without the folders of this machine, as published rows tell it."""
    key, mark, value = override.partition("=")
    return f"{key}{mark}{Path(value).name if Path(value).exists() else value}"
