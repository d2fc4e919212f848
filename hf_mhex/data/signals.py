"""Signals in tables and arrays: one row a signal, with the axis in the columns' names or in an array; or one a file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hf_mhex.data.arrays import SPLITS, ArrayRows, open_arrays
from hf_mhex.data.tables import encoding_of, records_of, separator_of

FEWEST = 8  # columns with numbers as names that make a table one of signals
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*")


def axis_of_columns(names: list[str]) -> dict[str, float]:
    """The columns whose names are numbers ("1650.2"), with these numbers."""
    found = {}
    for name in names:
        try:
            found[name] = float(name)
        except ValueError:
            continue
    return {name: place for name, place in found.items() if np.isfinite(place)}


def check_places(path: Path, encoding: str, separator: str) -> None:
    """ValueError for a table with a column a point in which two columns are named by one place.

    What reads the table would name the second one "1650.1", which is a place of its own.
    """
    found = records_of(path, encoding, separator, 1)
    places = axis_of_columns(list(dict.fromkeys(found[0][1]))) if found else {}
    names = [name for name in found[0][1] if name in places] if found else []
    twice = next((name for name in names if sum(places[name] == places[other] for other in names) > 1), None)
    if len(names) >= FEWEST and twice is not None:
        raise ValueError(
            f"{path}: two columns are named {twice!r}, one place of a signal; name each by a place of its own."
        )


def gather_signals(rows, source: str, named: Iterable[str] = ()):
    """A table with a column a point as rows with a `signal` [L] each; any other table as it is.

    The axis is the columns' names, in the file's order: `rows.axis`. Columns of `named` are no points.

    Raises ValueError, naming the source and the column, for decimal commas and for what is no number.
    """
    names = [name for name in rows.column_names or () if name not in set(named)]
    commas = [name for name in names if DECIMAL_COMMA.fullmatch(name)]
    if len(commas) >= FEWEST:
        raise ValueError(f"{source}: column {commas[0]!r} has a decimal comma in its name; write it with a point.")
    places = axis_of_columns(names)
    if len(places) < FEWEST or not hasattr(rows, "to_pandas"):
        return rows
    table = rows.to_pandas()
    try:
        signals = table[list(places)].to_numpy(dtype=np.float32)
    except (ValueError, TypeError) as error:
        name, cell = next((name, cell) for name in places for cell in table[name] if not _is_number(cell))
        cure = "write decimal commas as points" if DECIMAL_COMMA.fullmatch(str(cell)) else "leave a missing one empty"
        raise ValueError(f"{source}: column {name!r} must hold numbers, got {cell!r}; {cure}.") from error
    others = {name: table[name].tolist() for name in rows.column_names if name not in places}
    return ArrayRows(signal=signals, **others).on_axis(list(places.values()))


def holds_signals(path: Path) -> bool:
    """Whether a .npz has an array `signal`, or `train_signal`, `val_signal` or `test_signal`."""
    with open_arrays(path) as arrays:
        return any(name in arrays for name in ("signal", *(f"{split}_signal" for split in SPLITS.values())))


def read_signals(path: Path) -> dict[str, ArrayRows]:
    """Splits of a .npz with `signal` [N, L] or [N, C, L], `label` [N] and perhaps `axis` [L]; or `train_signal`,
    `train_label`, `val_...` and `test_...`.

    Raises ValueError for arrays of another form.
    """
    splits = {}
    with open_arrays(path) as arrays:
        axis = arrays["axis"].tolist() if "axis" in arrays else None
        for split, prefix in ({"train": ""} if "signal" in arrays else {k: f"{v}_" for k, v in SPLITS.items()}).items():
            if f"{prefix}signal" not in arrays:
                continue
            signals = arrays[f"{prefix}signal"]
            labels = arrays.get(f"{prefix}label")
            wrong = labels is not None and len(labels) != len(signals)
            if signals.dtype.kind != "f" or signals.ndim not in (2, 3) or wrong:
                raise ValueError(
                    f"{path.name}: {prefix}signal must be floats [N, L] or [N, C, L] with N labels; got "
                    f"{signals.dtype} {list(signals.shape)} and {None if labels is None else len(labels)} labels."
                )
            if axis is not None and len(axis) != signals.shape[-1]:
                raise ValueError(f"{path.name}: axis must have {signals.shape[-1]} places, got {len(axis)}.")
            columns = {"signal": signals} | ({} if labels is None else {"label": labels})
            splits[split] = ArrayRows(**columns).on_axis(axis)
    return splits


def read_signal(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """One signal of a file, [L] or of a .npy also [C, L], and its axis [L] where the file has one.

    A table has its points below each other, in one column or two (axis, value), with or without names above; or in one
    line, perhaps with the axis as the line above; columns whose name there is no number (a label) are left out.

    Raises ValueError for a file of another form, of several signals, with decimal commas, and for what is no number.
    """
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is no array of numbers that numpy saved.") from error
        if values.dtype.kind not in "fiu" or values.ndim not in (1, 2):
            raise ValueError(f"{path} must hold one signal, [L] or [C, L]; got {values.dtype} {list(values.shape)}.")
        return values.astype(np.float64), None
    encoding = encoding_of(path)
    separator = separator_of(path, encoding)
    cells = [line for _, line in records_of(path, encoding, separator) if any(map(str.strip, line))]
    _refuse_decimal_commas(path, cells, separator)
    lines = [[_number(cell) for cell in line] for line in cells]
    wide = max((np.isfinite(line).sum() for line in lines), default=0)
    if wide >= FEWEST:
        if len(lines) > 2:
            raise ValueError(f"{path} holds {len(lines) - 1} signals; give a file with one of them.")
        kept = np.isfinite(lines[0]) if len(lines) == 2 else slice(None)
        axis, values = (np.array(lines[0])[kept] if len(lines) == 2 else None), np.array(lines[-1])[kept]
    else:
        named = lines and not np.isfinite(lines[0]).any()
        points = lines[1:] if named else lines
        if len(points) < FEWEST or {len(line) for line in points} - {1, 2} or len({len(line) for line in points}) > 1:
            raise ValueError(
                f"{path} must hold one signal: its points in one line, or below each other in one column or two "
                f"(axis, value), at least {FEWEST} of them."
            )
        table = np.array(points)
        axis, values = (table[:, 0] if table.shape[1] == 2 else None), table[:, -1]
    bad = next((part for part in (axis, values) if part is not None and not np.isfinite(part).all()), None)
    if bad is not None:
        raise ValueError(f"{path}: point {int((~np.isfinite(bad)).argmax())} is no finite number.")
    return values, axis


def _refuse_decimal_commas(path: Path, cells: list[list[str]], separator: str) -> None:
    """ValueError for a cell "0,5", and for the two columns of whole numbers that a comma makes of one column of such.

    The latter are told by a first column that neither rises nor falls as an axis does, or by a second one with "05".
    """
    for line in cells:
        for place, cell in enumerate(line, 1):
            if DECIMAL_COMMA.fullmatch(cell):
                raise ValueError(f"{path}, column {place}: {cell!r} has a decimal comma; write it with a point.")
    if separator == "," and all(DECIMAL_COMMA.fullmatch(",".join(line)) for line in cells):
        steps = np.diff([_number(first) for first, _ in cells])
        if not ((steps > 0).all() or (steps < 0).all()) or any(re.match(r"0\d", second) for _, second in cells):
            first = ",".join(cells[0])
            raise ValueError(f"{path}, column 1: no axis, so {first!r} has a decimal comma; write it with a point.")


def _is_number(cell) -> bool:
    """Whether a cell is a number or missing."""
    try:
        float(cell)
    except (ValueError, TypeError):
        return cell is None
    return True


def _number(cell: str) -> float:
    """A cell's number; NaN where it is none."""
    try:
        return float(cell)
    except ValueError:
        return float("nan")
