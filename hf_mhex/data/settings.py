"""Settings of a data source: where its rows are, which columns count, how they are split."""

import math
from dataclasses import dataclass, field


def choose(name: str, value, choices: tuple) -> None:
    """ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}.")


def bounded(name: str, value, low: float, high: float = float("inf")) -> None:
    """TypeError unless `value` is a number, ValueError unless it is finite and lies in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not (low <= value <= high and math.isfinite(value)):
        allowed = f"lie in [{low}, {high}]" if math.isfinite(high) else f"be finite and at least {low}"
        raise ValueError(f"{name} must {allowed}, got {value}.")


@dataclass
class DataSettings:
    """Where the rows are, which columns count and how the rows are split."""

    source: str | None = field(
        default=None,
        metadata={
            "help": "sample:NAME, a .npz (MedMNIST, signals), a .csv/.parquet/.json file, "
            "a folder (also of IDX files), Hub id"
        },
    )
    files: dict | None = field(default=None, metadata={"help": "one file a split, instead of source"})
    config_name: str | None = field(default=None, metadata={"help": "configuration of a Hub data set"})
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of a Hub data set"})
    column_names: list[str] | None = field(default=None, metadata={"help": "columns of a .csv without a header"})
    input_columns: list[str] | None = field(
        default=None, metadata={"help": "the image's or signal's column, or the texts' to join"}
    )
    label_columns: list[str] | None = field(
        default=None, metadata={"help": "one column, or one a label (0/1 or number)"}
    )
    label_names: list[str] | None = field(default=None, metadata={"help": "names of the labels in order"})
    label_values: list[str] | None = field(default=None, metadata={"help": "what stands for them in the label column"})
    train_split: str = field(default="train", metadata={"help": "split to train on"})
    validation_split: str | None = field(default=None, metadata={"help": "split to choose by; found or split off"})
    test_split: str | None = field(default=None, metadata={"help": "split to report on; found or split off"})
    validation_fraction: float = field(default=0.1, metadata={"help": "share split off where the source has none"})
    test_fraction: float = field(default=0.1, metadata={"help": "share split off where the source has none"})
    split_seed: int = field(default=0, metadata={"help": "seed of the split"})
    max_train_rows: int | None = field(default=None, metadata={"help": "train on this many rows only"})
    on_bad_row: str = field(default="error", metadata={"help": "error, or skip: leave bad rows out and count them"})
    check_images: bool = field(default=True, metadata={"help": "decode every image once before training"})

    def __post_init__(self):
        choose("data.on_bad_row", self.on_bad_row, ("error", "skip"))
        bounded("data.validation_fraction", self.validation_fraction, 0, 0.9)
        bounded("data.test_fraction", self.test_fraction, 0, 0.9)
        if self.max_train_rows is not None:
            bounded("data.max_train_rows", self.max_train_rows, 1)
        for name in ("input_columns", "label_columns"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])
        if not self.check_images and self.on_bad_row == "skip":
            raise ValueError("data.on_bad_row='skip' needs data.check_images=true: unseen images cannot be counted.")
