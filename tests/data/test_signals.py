"""Signals in tables, arrays and the embedded sample: one row a signal, and what is refused."""

import numpy as np
import pytest

import hf_mhex
from hf_mhex.data.opening import open_splits
from hf_mhex.data.rows import read_data
from hf_mhex.data.settings import DataSettings
from hf_mhex.data.signals import read_signal

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
    with pytest.raises(
        ValueError, match="all 32 training rows are of label 'a': nothing can be learnt from one class only"
    ):
        read_data(settings, "signal", "single_label_classification")


def test_the_sample_of_coffees():
    found = hf_mhex.load_sample("coffee")
    assert [len(found[split]) for split in ("train", "test")] == [42, 18]
    assert len(found["test"][0]["signal"]) == 1841 and found["train"].features["label"].names[0] == "Ethiopia"


POINTS, AXIS = [0.5, -1.0, 2.25, 3.0, 4.0, 5.5, 6.0, 7.0, 8.0], [900.0 - 5 * place for place in range(9)]


def joined(*lines):
    """Lines of a table."""
    return "".join(",".join(map(str, line)) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("text", "has_axis"),
    [
        (joined(POINTS), False),
        (joined(AXIS, POINTS), True),
        (joined(["label", *AXIS], ["a", *POINTS]), True),
        (joined(*[[point] for point in POINTS]), False),
        (joined(["value"], *[[point] for point in POINTS]), False),
        (joined(*zip(AXIS, POINTS)), True),
        (joined(["wavenumber", "absorbance"], *zip(AXIS, POINTS)), True),
        (joined(*zip(AXIS, POINTS)).replace(",", ";"), True),
        (joined(*zip(AXIS, POINTS)).replace(",", "\t"), True),
    ],
)
def test_one_signal_of_a_table(tmp_path, text, has_axis):
    """In one line or below each other, with or without axis and names, by commas, semicolons and tabs."""
    (tmp_path / "one.csv").write_text(text)
    values, axis = read_signal(tmp_path / "one.csv")
    assert values.tolist() == POINTS and (axis.tolist() == AXIS if has_axis else axis is None)


@pytest.mark.parametrize("shape", [(9,), (3, 3)])
def test_one_signal_of_an_array(tmp_path, shape):
    np.save(tmp_path / "one.npy", np.array(POINTS, dtype=np.float32).reshape(shape))
    values, axis = read_signal(tmp_path / "one.npy")
    assert values.shape == shape and values.flatten().tolist() == POINTS and axis is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (joined(AXIS, POINTS, POINTS), "holds 2 signals"),
        (joined(AXIS, [*POINTS[:-1], "x"]), "point 8 is no finite number"),
        (joined(["", *POINTS[1:]]), "point 0 is no finite number"),
        (joined(*[[point] for point in POINTS[:-1]], ["x"]), "point 8 is no finite number"),
        (joined(POINTS[:3]), "must hold one signal"),
        (joined(*[[point, 1, 2] for point in POINTS]), "must hold one signal"),
        ("", "must hold one signal"),
        ("a text\n", "must hold one signal"),
    ],
)
def test_what_is_no_signal_is_refused(tmp_path, text, message):
    (tmp_path / "one.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_signal(tmp_path / "one.csv")


@pytest.mark.parametrize("array", [np.zeros((2, 3, 4)), np.array(["a"] * 9), np.array([None] * 9, dtype=object)])
def test_an_array_that_is_no_signal_is_refused(tmp_path, array):
    np.save(tmp_path / "one.npy", array)
    with pytest.raises(ValueError, match=r"one\.npy (must hold one signal|is no array of numbers)"):
        read_signal(tmp_path / "one.npy")
