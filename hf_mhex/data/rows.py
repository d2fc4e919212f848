"""Which rows are trained on and which are judged? Checked, split reproducibly, and read one by one."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from hf_mhex.data.labels import LabelEncoder
from hf_mhex.data.opening import RawSplit, read_splits
from hf_mhex.data.settings import DataSettings

VALIDATION = ("validation", "val", "valid", "dev")


class Rows(Dataset):
    """Rows of one split: `rows[i]` is a dict of what `read(input)` made of the input, `labels` and `draw`.

    `draw` (seed, epoch, row) is what augmentation draws its random numbers from, None for rows that get none; so it
    depends on nothing that a killed and resumed run has lost.
    """

    def __init__(self, inputs: Sequence, labels: np.ndarray, indices: np.ndarray, read: Callable):
        self.inputs, self.all_labels, self.indices, self.read = inputs, labels, indices, read
        self.seed: int | None = None
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live on see it change

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> dict:
        index = int(self.indices[row])
        try:
            found = self.read(self.inputs[index])
        except BadRow as error:
            raise ValueError(f"row {index} has a {error}; see data.on_bad_row and data.check_images.") from error
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
        return Rows(self.inputs, self.all_labels, self.indices[chosen], self.read)


class BadRow(Exception):
    """A row that cannot be used; its text says what is wrong with it."""


@dataclass
class Data:
    """The three splits of a run, the names of its labels and how many rows were left out, by split and reason."""

    train: Rows
    validation: Rows
    test: Rows
    names: list[str]
    skipped: dict[str, dict[str, int]]


def read_data(settings: DataSettings, family: str, problem_type: str) -> Data:
    """All of it: read, encode, check, split.

    Raises ValueError for what the source lacks, for bad rows (unless they are to be skipped), and for training rows of
    one class only.
    """
    raw = read_splits(settings, family)
    sides = choose_splits(raw, settings)
    train = raw[sides["train"]]
    names = settings.label_names or train.names
    encoder = LabelEncoder(problem_type, train.labels, names, settings.label_values)
    read = read_image if family == "resnet" else read_text
    rows, skipped = {}, {}
    for split in dict.fromkeys(name for name in sides.values() if name):
        rows[split], counts = check(raw[split], split, encoder, read, settings)
        if counts:
            skipped[split] = counts
    parts = {side: rows[name] for side, name in sides.items() if name}
    for side, fraction in (("test", settings.test_fraction), ("validation", settings.validation_fraction)):
        if side not in parts:
            parts["train"], parts[side] = split_off(parts["train"], fraction, settings.split_seed, side)
    if settings.max_train_rows:
        share = settings.max_train_rows / len(parts["train"])
        if share < 1:
            parts["train"] = split_off(parts["train"], share, settings.split_seed, "max_train_rows")[1]
    check_classes(parts["train"], encoder)
    return Data(**parts, names=encoder.names, skipped=skipped)


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
    if read is read_text or (settings.check_images and not isinstance(raw.inputs, np.ndarray)):
        for row, item in enumerate(raw.inputs):
            if row not in bad:
                try:
                    read(item)
                except BadRow as error:
                    bad[row] = str(error)
    counts = dict(Counter(bad.values()))
    if bad and settings.on_bad_row == "error":
        parts = [f"{count} with {reason}" for reason, count in counts.items()]
        first = min(bad)
        what = f"{bad[first]}: {raw.labels[first]!r}" if "label" in bad[first] else bad[first]
        raise ValueError(
            f"split {split!r} has {len(bad)} bad rows of {len(labels)} ({', '.join(parts)}; the first is row {first}, "
            f"{what}). Mend them, or leave them out with --on-bad-row skip."
        )
    if bad:
        found = ", ".join(f"{count} with {reason}" for reason, count in counts.items())
        warnings.warn(f"split {split!r}: {len(bad)} of {len(labels)} rows are left out ({found}).", stacklevel=2)
    good = np.array([row for row in range(len(labels)) if row not in bad], dtype=np.int64)
    if len(good) == 0:
        raise ValueError(f"split {split!r} has no row that can be used.")
    return Rows(raw.inputs, labels, good, read), counts


def read_text(parts: list) -> dict:
    """The text that the parts of a row make; BadRow where nothing is in it."""
    text = " ".join(part.strip() for part in parts if part)
    if not text.strip():
        raise BadRow("empty text")
    return {"text": text}


def read_image(item) -> dict:
    """The decoded image of a row; BadRow where it cannot be decoded to the end."""
    if isinstance(item, np.ndarray):
        return {"image": Image.fromarray(item)}
    if not item or (item.get("bytes") is None and item.get("path") is None):
        raise BadRow("missing image")
    try:
        image = Image.open(item["path"] if item.get("bytes") is None else io.BytesIO(item["bytes"]))
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRow("corrupt image") from error
    return {"image": image}


def split_off(rows: Rows, fraction: float, seed: int, side: str) -> tuple[Rows, Rows]:
    """The rest and a share of the rows, the same for the same seed; of each label alike where rows have one label."""
    if fraction <= 0:
        raise ValueError(f"the source has no {side} split and data.{side}_fraction is 0; give one of them.")
    generator = np.random.default_rng(seed)
    labels = rows.labels
    groups = labels if labels.dtype.kind == "i" else np.zeros(len(rows), dtype=np.int64)
    chosen = np.zeros(len(rows), dtype=bool)
    for label in np.unique(groups):
        members = generator.permutation(np.flatnonzero(groups == label))
        chosen[members[: max(round(fraction * len(members)), 0)]] = True
    if not chosen.any() or chosen.all():
        raise ValueError(f"{len(rows)} rows are too few to split a share of {fraction} off for {side}.")
    return rows.part(np.flatnonzero(~chosen)), rows.part(np.flatnonzero(chosen))


def check_classes(rows: Rows, encoder: LabelEncoder) -> None:
    """ValueError where the training rows have nothing to tell apart."""
    labels = rows.labels
    if len(np.unique(labels, axis=0)) < 2:
        kind = f"of label {encoder.names[int(labels[0])]!r}" if encoder.single else "alike in their labels"
        raise ValueError(f"all {len(rows)} training rows are {kind}: nothing can be learnt from one class only.")
