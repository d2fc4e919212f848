"""Rows to train on and to judge by: read from a source, checked, split reproducibly, decoded one by one."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from datasets import ClassLabel, Image, List
from torch.utils.data import Dataset

from hf_mhex.data.images import read_image
from hf_mhex.data.labels import LabelEncoder
from hf_mhex.data.opening import LABELS, find_input, holds, open_splits
from hf_mhex.data.settings import DataSettings
from hf_mhex.families import KINDS, Kind

VALIDATION = ("validation", "val", "valid", "dev")


@dataclass
class RawSplit:
    """One split as the source has it, one entry a row.

    Args:
        inputs: images as `read_image` takes them, or texts as lists of their parts.
        labels: a value, or one value a label.
        names: names of the labels, where the source knows them.
        ids: what the rows are called, such as their files' paths.
        axis: places of a signal's points, where the source knows them.
    """

    inputs: Sequence
    labels: Sequence
    names: list[str] | None = None
    ids: Sequence[str] | None = None
    axis: list[float] | None = None


class Joined(Sequence):
    """Several text columns as one sequence of lists of parts."""

    def __init__(self, columns: list[Sequence]):
        self.columns = columns

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, row):
        return [column[row] for column in self.columns]

    def __iter__(self):
        return (list(parts) for parts in zip(*self.columns))


def read_splits(settings: DataSettings, kind: str) -> dict[str, RawSplit]:
    """The splits of the source for models of a kind of input, "image", "text" or "signal".

    Raises ValueError for a source that cannot be read and for columns that are not there or cannot be told.
    """
    found = open_splits(settings, kind=kind)
    return {name: _split_of(rows, settings, KINDS[kind]) for name, rows in found.items()}


def _split_of(rows, settings: DataSettings, kind: Kind) -> RawSplit:
    """The input and label columns of a data set, by the settings or found by kind and usual name."""
    axis = getattr(rows, "axis", None)
    inputs = settings.input_columns or [find_input(rows, kind, "data.input_columns")]
    labels = settings.label_columns or [_find_labels(rows)]
    absent = [name for name in [*inputs, *labels] if name not in rows.column_names]
    if absent:
        raise ValueError(f"the data have no column {absent[0]!r}; there are {', '.join(rows.column_names)}.")
    ids = rows["id"] if "id" in rows.column_names else None
    if kind.name in ("image", "signal"):
        if len(inputs) != 1:
            raise ValueError(f"data.input_columns must be one column of {kind.name}s, got {', '.join(inputs)}.")
        if kind.name == "image" and holds(rows.features.get(inputs[0]), kind):
            rows = rows.cast_column(inputs[0], Image(decode=False))
        column = rows[inputs[0]]
    else:
        for name in inputs:
            if not holds(rows.features.get(name), kind):
                raise ValueError(f"column {name!r} must hold texts, but holds {rows.features.get(name, 'numbers')}.")
        column = Joined([rows[name][:] for name in inputs])
    if len(labels) > 1:
        return RawSplit(column, list(zip(*(rows[name][:] for name in labels))), labels, ids, axis)
    feature, found = rows.features.get(labels[0]), rows[labels[0]][:]
    names = feature.names if isinstance(feature, ClassLabel) else None
    if isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
        names = feature.feature.names
        found = [None if label is None else [int(k in label) for k in range(len(names))] for label in found]
    return RawSplit(column, found, names, ids, axis)


def _find_labels(rows) -> str:
    """The one column with a usual name of labels; ValueError where none or several have one."""
    found = [name for name in rows.column_names if name.lower() in LABELS]
    if len(found) != 1:
        raise ValueError(
            f"the label column cannot be told among {', '.join(rows.column_names)}; set data.label_columns."
        )
    return found[0]


class Rows(Dataset):
    """Rows of one split: `rows[i]` is a dict of what `read(input)` made of the input, `labels` and `draw`.

    `draw` (seed, epoch, row) is what augmentation draws its random numbers from, None for rows that get none; so it
    depends on nothing that a killed and resumed run has lost.
    """

    def __init__(self, raw: RawSplit, labels: np.ndarray, indices: np.ndarray, read: Callable):
        self.raw, self.all_labels, self.indices, self.read = raw, labels, indices, read
        self.seed: int | None = None
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live on see it change

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> dict:
        index = int(self.indices[row])
        try:
            found = self.read(self.raw.inputs[index])
        except BadRow as error:
            named = row_name(self.raw, index)
            raise ValueError(f"{named} has a {error}; see data.on_bad_row and data.check_images.") from error
        draw = None if self.seed is None else (self.seed, self.epoch, index)
        return {**found, "labels": self.all_labels[index], "draw": draw}

    @property
    def epoch(self) -> int:
        """The epoch that the rows are read for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's data loaders before each epoch."""
        self._epoch.fill_(epoch)

    @property
    def labels(self) -> np.ndarray:
        """The rows' labels, [N] or [N, K]."""
        return self.all_labels[self.indices]

    def part(self, chosen: np.ndarray) -> Rows:
        """The rows at the positions `chosen`."""
        return Rows(self.raw, self.all_labels, self.indices[chosen], self.read)


class BadRow(Exception):
    """A row that cannot be used; its text says what is wrong with it."""


@dataclass
class Data:
    """The three splits of a run, the names of its labels, and how many rows were left out, by split and reason.

    axis: places of the signals' points, where the source knows them.
    """

    train: Rows
    validation: Rows
    test: Rows
    names: list[str]
    skipped: dict[str, dict[str, int]]
    axis: list[float] | None = None


def read_data(settings: DataSettings, kind: str, problem_type: str, num_channels: int | None = None) -> Data:
    """All of it: read, encode, check, split.

    Args:
        kind: of input, "image", "text" or "signal".
        problem_type: as in transformers' configurations.
        num_channels: of images, as in `read_image`.

    Raises ValueError for what the source lacks, for bad rows (unless they are to be skipped), and for training rows of
    one class only.
    """
    raw = read_splits(settings, kind)
    sides = choose_splits(raw, settings)
    train = raw[sides["train"] or "train"]
    names = settings.label_names or train.names
    encoder = LabelEncoder(problem_type, train.labels, names, settings.label_values, numbered=bool(train.names))
    read = reader_of(kind, num_channels)
    rows, skipped = {}, {}
    for split in dict.fromkeys(name for name in sides.values() if name):
        if raw[split].axis != train.axis:
            raise ValueError(f"split {split!r} has another axis than the training rows; resample it to their places.")
        rows[split], counts = check(raw[split], split, encoder, read, settings)
        if counts:
            skipped[split] = counts
    parts = {side: rows[name] for side, name in sides.items() if name}
    for side, fraction in (("test", settings.test_fraction), ("validation", settings.validation_fraction)):
        if side not in parts:
            parts["train"], parts[side] = split_off(parts["train"], fraction, settings.split_seed, side)
    if settings.max_train_rows is not None and settings.max_train_rows < len(parts["train"]):
        parts["train"] = take(parts["train"], settings.max_train_rows, settings.split_seed)
    check_classes(parts["train"], encoder)
    return Data(**parts, names=encoder.names, skipped=skipped, axis=train.axis)


def choose_splits(raw: dict[str, RawSplit], settings: DataSettings) -> dict[str, str | None]:
    """Which of the source's splits is for what; None for one that is to be split off the training rows."""
    found = {"train": settings.train_split, "validation": settings.validation_split, "test": settings.test_split}
    for side, name in found.items():
        if name is not None and name not in raw:
            raise ValueError(f"data.{side}_split={name!r} is not there; the source has {', '.join(raw)}.")
    if found["test"] is None and "test" in raw and "test" not in found.values():
        found["test"] = "test"
    if found["validation"] is None:
        found["validation"] = next((name for name in VALIDATION if name in raw and name not in found.values()), None)
    if len({name for name in found.values() if name}) < sum(name is not None for name in found.values()):
        raise ValueError(f"data: one split serves twice: {found}.")
    return found


def check(
    raw: RawSplit, split: str, encoder: LabelEncoder, read: Callable, settings: DataSettings
) -> tuple[Rows, dict[str, int]]:
    """The good rows of a split, and its bad ones counted by reason; ValueError where they may not be skipped."""
    labels, bad = encoder.encode(raw.labels)
    causes = {row: f"{reason}: {raw.labels[row]!r}" for row, reason in bad.items()}
    if read in (read_text, read_signal) or (settings.check_images and not isinstance(raw.inputs, np.ndarray)):
        for row, item in enumerate(raw.inputs):
            if row not in bad:
                try:
                    read(item)
                except BadRow as error:
                    bad[row] = str(error)
                    causes[row] = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
    counts = dict(Counter(bad.values()))
    found = ", ".join(f"{count} with {reason}" for reason, count in counts.items())
    if bad and settings.on_bad_row == "error":
        first = min(bad)
        raise ValueError(
            f"split {split!r} has {len(bad)} bad rows of {len(labels)} ({found}; the first is {row_name(raw, first)}, "
            f"{causes[first]}). Mend them, or leave them out with --on-bad-row skip; a verb without it takes "
            "data.on_bad_row=skip."
        )
    if bad:
        warnings.warn(f"split {split!r}: {len(bad)} of {len(labels)} rows are left out ({found}).", stacklevel=2)
    good = np.array([row for row in range(len(labels)) if row not in bad], dtype=np.int64)
    if len(good) == 0:
        raise ValueError(f"split {split!r} has no row that can be used.")
    return Rows(raw, labels, good, read), counts


def row_name(raw: RawSplit, row: int) -> str:
    """What an error calls a row: its number, and its id where it has one."""
    return f"row {row}" if raw.ids is None else f"row {row} ({raw.ids[row]})"


def reader_of(kind: str, num_channels: int | None = None) -> Callable:
    """What makes of a raw input the entries of a row; it raises BadRow."""
    readers: dict[str, Callable] = {
        "text": read_text,
        "signal": read_signal,
        "image": partial(read_picture, num_channels=num_channels),
    }
    return readers[kind]


def read_signal(item) -> dict:
    """The numbers of a row; BadRow where there are none or where one is not finite."""
    if item is None or not len(item):
        raise BadRow("missing signal")
    values = np.array(item, dtype=np.float32)
    if not np.isfinite(values).all():
        raise BadRow("points that are NaN or infinite")
    return {"signal": values}


def read_text(parts: list) -> dict:
    """The text that the parts of a row make; BadRow where nothing is in it."""
    text = " ".join(part.strip() for part in parts if part)
    if not text.strip():
        raise BadRow("empty text")
    return {"text": text}


def read_picture(item, num_channels: int | None = None) -> dict:
    """The decoded image of a row; BadRow where it cannot be decoded to the end."""
    if item is None or (isinstance(item, dict) and item.get("bytes") is None and item.get("path") is None):
        raise BadRow("missing image")
    try:
        return {"image": read_image(item, num_channels)}
    except FileNotFoundError as error:
        raise BadRow("missing image") from error
    except ValueError as error:
        raise BadRow("corrupt image") from error


def split_off(rows: Rows, fraction: float, seed: int, side: str) -> tuple[Rows, Rows]:
    """The rest and a share of the rows, the same for the same seed; of each label alike where rows have one label.

    A label with two rows or more has one on each side, however small its share; an only row stays with the rest. Labels
    of as many rows as each other stay so.
    """
    if fraction <= 0:
        raise ValueError(f"the source has no {side} split and data.{side}_fraction is 0; give one of them.")
    _, counts = np.unique(groups_of(rows), return_counts=True)
    exact = fraction * counts
    found = np.round(exact).astype(np.int64) if len(set(counts)) == 1 else rounded(exact, fraction * len(rows))
    chosen = draw(rows, np.clip(found, np.minimum(counts - 1, 1), counts - 1), seed)
    if rows.labels.ndim == 2 and np.isin(rows.labels, (0, 1)).all():
        chosen = on_both_sides(rows.labels, chosen, seed)
    if not chosen.any():
        raise ValueError(
            f"{len(rows)} rows are too few to split a share of {fraction} off for {side}: no label has two of them. "
            f"Give more rows, or a {side} split."
        )
    return rows.part(np.flatnonzero(~chosen)), rows.part(np.flatnonzero(chosen))


def take(rows: Rows, wanted: int, seed: int) -> Rows:
    """So many of the rows, the same for the same seed, of each label alike where rows have one label.

    Each label has one at least; a warning says how many have none where there are more labels than rows.
    """
    _, counts = np.unique(groups_of(rows), return_counts=True)
    exact, least = wanted / len(rows) * counts, int(wanted >= len(counts))
    found = np.maximum(rounded(exact, wanted), least)
    while found.sum() > wanted:  # what `least` has added is taken from the labels that have most too many
        found[np.where(found > least, found - exact, -np.inf).argmax()] -= 1
    if not least:
        none = f"{(found == 0).sum()} of them get no row"
        warnings.warn(f"data.max_train_rows={wanted} is below the {len(counts)} labels: {none}.", stacklevel=2)
    return rows.part(np.flatnonzero(draw(rows, found, seed)))


def groups_of(rows: Rows) -> np.ndarray:
    """What splits keep the shares of: the rows' labels where each has one, else nothing, [N]."""
    return rows.labels if rows.labels.dtype.kind == "i" else np.zeros(len(rows), dtype=np.int64)


def rounded(exact: np.ndarray, total: float) -> np.ndarray:
    """Shares [labels] as whole numbers; the largest remainders go up where rounding is a row or more off the total."""
    found = np.round(exact).astype(np.int64)
    if abs(found.sum() - total) > 1 - 1e-6:
        found = np.floor(exact + 1e-9).astype(np.int64)
        largest = np.argsort(found - exact, kind="stable")
        found[largest[: round(total) - found.sum()]] += 1
    return found


def draw(rows: Rows, wanted: np.ndarray, seed: int) -> np.ndarray:
    """So many rows of each label as `wanted` says, drawn from `seed`, as a mask [N]."""
    generator = np.random.default_rng(seed)
    groups, chosen = groups_of(rows), np.zeros(len(rows), dtype=bool)
    for label, count in zip(np.unique(groups), wanted):
        chosen[generator.permutation(np.flatnonzero(groups == label))[:count]] = True
    return chosen


def on_both_sides(labels: np.ndarray, chosen: np.ndarray, seed: int) -> np.ndarray:
    """The mask of a split, [N], in which a label of several, [N, K], with two rows or more has one on each side."""
    generator, chosen = np.random.default_rng((seed, 1)), chosen.copy()
    for label in np.argsort(labels.sum(0), kind="stable"):  # the rarest first
        members = np.flatnonzero(labels[:, label])
        if len(members) > 1 and len(np.unique(chosen[members])) == 1:
            chosen[generator.choice(members)] ^= True
    return chosen


def check_classes(rows: Rows, encoder: LabelEncoder) -> None:
    """ValueError where the training rows have nothing to tell apart."""
    labels = rows.labels
    if len(np.unique(labels, axis=0)) < 2:
        kind = f"of label {encoder.names[int(labels[0])]!r}" if encoder.single else "alike in their labels"
        raise ValueError(f"all {len(rows)} training rows are {kind}: nothing can be learnt from one class only.")
