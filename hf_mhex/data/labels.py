"""Labels as a model reads them: numbers 0 to K - 1, rows of 0 and 1, or floats; with the names of the labels."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

MISSING = "missing label"
UNKNOWN = "unknown label"
MANY = 10_000


class LabelEncoder:
    """Encodes raw labels; made once, from the training split, and used for every split.

    Args:
        problem_type: as in transformers' configs.
        labels: the training split's raw labels; what they are is learnt from them where nothing else says it.
        names: names of the labels in order, or None.
        values: what stands for each label in the data, or None (its name or its number; where names are numbers too,
            what more of the labels fit). Booleans go by "True" and "False" where these stand for labels, else by 1
            and 0.
        numbered: whether the data are known to hold numbers in the order of `names`.

    Raises ValueError where the labels cannot be told.
    """

    def __init__(
        self,
        problem_type: str,
        labels: Sequence,
        names: list[str] | None = None,
        values: list[str] | None = None,
        numbered: bool = False,
    ):
        self.single = problem_type == "single_label_classification"
        self.regression = problem_type == "regression"
        if values is not None and (names is None or len(values) != len(names) or not self.single):
            raise ValueError("data.label_values must be as many as data.label_names, for single labels.")
        if not self.single:
            width = next((np.size(label) for label in labels if label is not None), 1)
            self.names = list(names or [f"LABEL_{k}" for k in range(width)])
            if len(self.names) != width:
                raise ValueError(f"data.label_names names {len(self.names)} labels, but rows have {width}.")
            return
        found = {key for label in labels for key in keys_of(label)[:1]}
        if names is None:
            names = values = sorted(found, key=lambda key: (not key.lstrip("-").isdecimal(), as_number(key), key))
            if len(names) > MANY or any("." in name and is_float(name) for name in names[:MANY]):
                raise ValueError(
                    "labels look like numbers, not classes; set model.problem_type=regression or name the labels."
                )
        self.names = [str(name) for name in names]
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"data.label_names must differ from each other, got {self.names}.")
        places = [str(k) for k in range(len(self.names))]
        if values is not None:
            readings = [list(map(str, values))]
        elif numbered or len(found & set(places)) > len(found & set(self.names)):
            readings = [places, self.names]
        else:
            readings = [self.names, places]
        if len(readings) == 2 and not set(self.names).isdisjoint(places):  # labels called "1" to "5", say
            readings = readings[:1]
        self.numbers = {value: k for reading in readings for k, value in enumerate(reading)}

    def encode(self, labels: Sequence) -> tuple[np.ndarray, dict[int, str]]:
        """Labels as int64 [N] or float32 [N, K] ([N] for one number a row), and row -> what is wrong with it."""
        return self.encode_single(labels) if self.single else self.encode_several(labels)

    def encode_single(self, labels: Sequence) -> tuple[np.ndarray, dict[int, str]]:
        """The number of each row's label, -100 where it is bad."""
        encoded, bad = np.full(len(labels), -100, dtype=np.int64), {}
        for row, label in enumerate(labels):
            keys = keys_of(label)
            known = next((key for key in keys if key in self.numbers), None)
            if known is not None:
                encoded[row] = self.numbers[known]
            else:  # -1 is how `datasets` writes a missing class
                bad[row] = MISSING if keys in ((), ("-1",)) else UNKNOWN
        return encoded, bad

    def encode_several(self, labels: Sequence) -> tuple[np.ndarray, dict[int, str]]:
        """Rows of 0 and 1, or of numbers."""
        encoded, bad = np.full((len(labels), len(self.names)), np.nan, dtype=np.float32), {}
        for row, label in enumerate(labels):
            values = [None] if label is None else list(np.atleast_1d(np.asarray(label, dtype=object)))
            keys = [key for key in map(key_of, values) if key is not None]
            if len(keys) < len(values):
                bad[row] = MISSING
            elif len(keys) != len(self.names) or not all(map(is_float, keys)):
                bad[row] = UNKNOWN
            else:
                encoded[row] = [float(key) for key in keys]
        if not self.regression:
            strange = ~np.isnan(encoded).any(1) & ~np.isin(encoded, (0, 1)).all(1)
            bad |= {int(row): UNKNOWN for row in np.flatnonzero(strange)}
        return (encoded[:, 0] if self.regression and len(self.names) == 1 else encoded), bad


def keys_of(label) -> tuple[str, ...]:
    """What a label may be called, the likeliest first: a boolean by its word, then by 0 or 1; none where missing."""
    key = key_of(label)
    if isinstance(label, (bool, np.bool_)):
        word = str(bool(label))
        return word, word.lower(), word.upper(), str(key)
    return () if key is None else (key,)


def has_words(names: Sequence[str]) -> bool:
    """Whether labels have names that mean something, not their numbers or LABEL_0."""
    return not all(re.fullmatch(r"(LABEL_)?\d+", name) for name in names)


def key_of(label) -> str | None:
    """A label's value as text: 1, 1.0, "1" and " 1 " are alike; None where it is missing."""
    if label is None or (isinstance(label, (float, np.floating)) and not np.isfinite(label)):
        return None
    if isinstance(label, (bool, np.bool_)):
        label = int(label)
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        label = int(label)
    return str(label).strip() or None


def is_float(key: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return bool(np.isfinite(float(key)))
    except ValueError:
        return False


def as_number(key: str) -> int:
    """For sorting: the number that a text is, or 0."""
    return int(key) if key.lstrip("-").isdecimal() else 0
