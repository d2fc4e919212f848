"""Signals in tables and arrays: one row a signal, with the axis in the columns' names or in an array."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hf_mhex.data.arrays import ArrayRows

FEWEST = 8  # columns with numbers as names that make a table one of signals
SPLITS = {"train": "train", "validation": "val", "test": "test"}


def axis_of_columns(names: list[str]) -> dict[str, float]:
    """The columns whose names are numbers ("1650.2"), with these numbers."""
    found = {}
    for name in names:
        try:
            found[name] = float(name)
        except ValueError:
            continue
    return {name: place for name, place in found.items() if np.isfinite(place)}


def gather_signals(rows):
    """A table with a column a point as rows with a `signal` [L] each; any other table as it is.

    The axis is the columns' names, in the file's order: `rows.axis`.
    """
    places = axis_of_columns(list(rows.column_names or ()))
    if len(places) < FEWEST or not hasattr(rows, "to_pandas"):
        return rows
    table = rows.to_pandas()
    signals = table[list(places)].to_numpy(dtype=np.float32)
    others = {name: table[name].tolist() for name in rows.column_names if name not in places}
    return ArrayRows(signal=signals, **others).on_axis(list(places.values()))


def holds_signals(path: Path) -> bool:
    """Whether a .npz has an array `signal`, or `train_signal` and the like."""
    with np.load(path, allow_pickle=False) as arrays:
        return any(name == "signal" or name.endswith("_signal") for name in arrays)


def read_signals(path: Path) -> dict[str, ArrayRows]:
    """Splits of a .npz with `signal` [N, L] or [N, C, L], `label` [N] and perhaps `axis` [L]; or `train_signal`,
    `train_label`, `val_...` and `test_...`.

    Raises ValueError for arrays of another form.
    """
    splits = {}
    with np.load(path, allow_pickle=False) as arrays:
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
