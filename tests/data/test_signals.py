"""Signals in tables, arrays and the embedded sample: one row a signal, and what is refused."""

import numpy as np
import pytest

import hf_mhex
from hf_mhex.data.opening import open_splits
from hf_mhex.data.rows import read_data
from hf_mhex.data.settings import DataSettings

SIGNALS = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
LABELS = np.array(["a", "b"] * 20)


def write(path, signals=SIGNALS, labels=LABELS):
    lines = ["label," + ",".join(str(1000.5 - 10 * place) for place in range(12))]
    lines += [f"{label}," + ",".join(map(repr, row)) for label, row in zip(labels, signals.tolist())]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_with_a_column_a_point(tmp_path):
    rows = open_splits(DataSettings(source=str(write(tmp_path / "spectra.csv"))))["train"]
    assert rows.axis == [1000.5 - 10 * place for place in range(12)] and rows["label"] == LABELS.tolist()
    assert np.array_equal(rows["signal"], SIGNALS)


def test_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", signal=SIGNALS, label=LABELS, axis=np.arange(12.0))
    rows = open_splits(DataSettings(source=str(tmp_path / "a.npz")))["train"]
    assert rows.axis == list(range(12)) and rows["signal"].shape == (40, 12)
    np.savez(tmp_path / "b.npz", signal=SIGNALS, label=LABELS[:5])
    with pytest.raises(ValueError, match="with N labels; got float32 .* and 5 labels"):
        open_splits(DataSettings(source=str(tmp_path / "b.npz")))
    np.savez(tmp_path / "c.npz", signal=SIGNALS, axis=np.arange(11.0))
    with pytest.raises(ValueError, match="axis must have 12 places, got 11"):
        open_splits(DataSettings(source=str(tmp_path / "c.npz")))


def test_rows_to_train_on(tmp_path):
    found = read_data(
        DataSettings(source=str(write(tmp_path / "spectra.csv"))), "signal", "single_label_classification"
    )
    assert found.names == ["a", "b"] and found.train[0]["signal"].shape == (12,)
    hole = SIGNALS.copy()
    hole[3, 2] = np.nan
    settings = DataSettings(source=str(write(tmp_path / "hole.csv", hole)))
    with pytest.raises(ValueError, match="1 with points that are NaN or infinite; the first is row 3"):
        read_data(settings, "signal", "single_label_classification")
    settings = DataSettings(source=str(write(tmp_path / "one.csv", labels=["a"] * 40)))
    with pytest.raises(ValueError, match="one class only|nothing to tell apart|at least two|must"):
        read_data(settings, "signal", "single_label_classification")


def test_the_sample_of_coffees():
    found = hf_mhex.load_sample("coffee")
    assert [len(found[split]) for split in ("train", "test")] == [42, 18]
    assert len(found["test"][0]["signal"]) == 1841 and found["train"].features["label"].names[0] == "Ethiopia"
