"""Text files as people have them: their encoding, and what separates the columns of a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

SEPARATORS = (",", ";", "\t")
LOOKED_AT = 1000  # records that tell a table's separator
LONGEST = 2**31 - 1  # characters of a field
KINDS = 1000  # most values of a column of labels


def encoding_of(path: Path) -> str:
    """The name of a text file's encoding: UTF-8, with or without a byte order mark, or cp1252 (Windows, Latin-1).

    Raises ValueError, naming file and place, for a file that is neither or both.
    """
    first = place = None
    has_utf8 = False
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
                has_utf8 |= not line.isascii()
                bad = line.find(b"\0")
            except UnicodeDecodeError as error:
                bad, first = error.start, first or (number, error.start + 1)
                if _is_cp1252(line):
                    continue
            if bad >= 0:
                place = (number, bad + 1)
                break
    if place is None and first and has_utf8:  # other lines are UTF-8: these bytes are damage
        place = first
    if place:
        raise ValueError(
            f"{path} is no text in UTF-8 or cp1252: see line {place[0]}, byte {place[1]}; save it as UTF-8."
        )
    return "cp1252" if first else "utf-8-sig"


def _is_cp1252(line: bytes) -> bool:
    try:
        return "\0" not in line.decode("cp1252")
    except UnicodeDecodeError:
        return False


def records_of(path: Path, encoding: str, separator: str, most: int | None = None) -> list[tuple[int, list[str]]]:
    """The first `most` records of a table that are not empty, each with the number of the line where it ends."""
    with open(path, encoding=encoding, newline="") as file, _long_fields():
        reader = csv.reader(file, delimiter=separator)
        return [(reader.line_num, record) for record in islice(reader, most) if record]


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields of any length for the readers of `csv`, as pandas reads them; the process's own limit comes back."""
    before = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def separator_of(path: Path, encoding: str) -> str:
    """What separates a table's columns: a comma, a semicolon or a tab; a comma where it has one column.

    Raises ValueError, naming file and line, where several would do, and for a record longer than the first.
    """
    candidates = {}
    for separator in SEPARATORS:
        found = records_of(path, encoding, separator, LOOKED_AT)
        records = [(line, len(record)) for line, record in found]
        width = records[0][1] if records else 1
        longer = next((record for record in records if record[1] > width), None)
        candidates[separator] = (width, sum(record[1] == width for record in records), longer)
    several = {separator: found for separator, found in candidates.items() if found[0] > 1}
    fitting = {separator: found for separator, found in several.items() if found[2] is None} or several
    if not fitting:
        fitting = {",": candidates[","]}
    best = max(fitting, key=lambda separator: fitting[separator][1])
    if sum(found[1] == fitting[best][1] for found in fitting.values()) > 1:
        named = " or ".join(map(repr, fitting))
        cure = "keep one of them, and write decimal commas as points"
        raise ValueError(f"{path}, line 1: its columns are separated by {named}, it cannot be told; {cure}.")
    width, _, longer = fitting[best]
    if longer:
        raise ValueError(
            f"{path}, line {longer[0]}: {longer[1]} fields separated by {best!r}, but the first line has {width}; "
            "put texts in quotes."
        )
    return best


class Column:
    """What the cells of one column have in common: few values that come again, or numbers."""

    def __init__(self):
        self.count, self.values, self.numbers = 0, set(), True

    def add(self, cell: str) -> None:
        """Count a cell."""
        self.count += 1
        if len(self.values) <= KINDS:
            self.values.add(cell)
        self.numbers = self.numbers and _is_float(cell)

    def is_told(self) -> bool:
        """Whether a cell of this column can be told from a piece of text."""
        return self.count > 0 and (self.numbers or len(self.values) <= min(KINDS, self.count / 2))

    def fits(self, cell: str) -> bool:
        """Whether a cell may be of this column."""
        return cell in self.values or (self.numbers and _is_float(cell))


def check_quotes(path: Path, encoding: str, separator: str) -> None:
    """ValueError, naming file and line, for a quote that is not closed in its row and makes the next rows its text.

    Such a text runs over several lines, and what closes it is followed by more text; or all its whole lines would be
    rows by themselves: of as many fields as the table, with a label or a number where others have one. Texts of several
    lines that are neither are read.
    """
    with open(path, "rb") as file:
        if not any(b'"' in line for line in file):
            return
    columns: list[Column] = []
    suspects: list[tuple[int, list[list[str]]]] = []
    with open(path, encoding=encoding, newline="") as file, _long_fields():
        reader = csv.reader(file, delimiter=separator, strict=True)
        while True:
            first = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error:
                if reader.line_num > first:
                    raise _unclosed(path, first) from None
                continue
            if record is None:
                break
            if reader.line_num > first:
                rows = _rows_within(record, separator, len(columns))
                suspects += [(first, rows)] if rows else []
            elif not columns:
                columns = [Column() for _ in record]  # of the names
            else:
                for column, cell in zip(columns, record):
                    column.add(cell)
    told = [place for place, column in enumerate(columns) if column.is_told()]
    for first, rows in suspects:
        if all(columns[place].fits(row[place]) for row in rows for place in told) and (told or len(rows) > 2):
            raise _unclosed(path, first)


def _rows_within(record: list[str], separator: str, width: int) -> list[list[str]]:
    """The lines within a field of a record as rows; none where one of them is no row of `width` fields."""
    for place, field in enumerate(record):
        lines = field.splitlines()
        if len(lines) < 2 or width < 2:
            continue
        rows = [record[:place] + _cells(lines[0], separator), *(_cells(line, separator) for line in lines[1:-1])]
        if all(len(row) == width for row in rows):
            return rows
    return []


def _cells(line: str, separator: str) -> list[str]:
    """The fields of one line."""
    return next(csv.reader([line], delimiter=separator), [])


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _unclosed(path: Path, line: int) -> ValueError:
    """The error of a quote that takes the next rows into its text."""
    return ValueError(
        f"{path}, line {line}: a quote is opened that is not closed in its row, so that the next rows become its text; "
        'close it, or write a quote that is meant as two within quotes (""). Texts of several lines that are right are '
        "read from .jsonl or .parquet."
    )
