"""Signals in tables, arrays and the embedded sample: one row a signal, and what is refused."""

import csv

import numpy as np
import pytest

import hf_mhex
from hf_mhex.data.opening import open_splits
from hf_mhex.data.rows import read_data
from hf_mhex.data.settings import DataSettings
from hf_mhex.data.signals import read_signal
from hf_mhex.data.source import open_data

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


def test_columns_called_by_numbers_are_no_signal_to_a_model_of_texts(tmp_path):
    """Labels "0" to "9", or years, beside a text."""
    names = [str(number) for number in range(10)]
    lines = [",".join(["text", *names])]
    lines += [",".join([f"text {row}", *(str(int(row % 10 == label)) for label in range(10))]) for row in range(40)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    found = read_data(DataSettings(source=str(path), label_columns=names), "text", "multi_label_classification")
    assert found.names == names and found.train[0]["labels"].sum() == 1
    years = read_data(DataSettings(source=str(path), label_columns=["7"]), "text", "single_label_classification")
    assert years.names == ["0", "1"] and years.train[0]["text"].startswith("text ")
    for settings in ({"label_columns": names}, {"input_columns": names[:3]}):
        [rows] = open_splits(DataSettings(source=str(path), **settings)).values()
        assert set(names) <= set(rows.column_names) and "signal" not in rows.column_names


def test_a_column_of_numbers_is_a_label_where_the_settings_say_so(tmp_path):
    path = tmp_path / "spectra.csv"
    table = np.column_stack([SIGNALS, np.arange(40) % 2])
    lines = [",".join(map(str, range(100, 113)))] + [",".join(map(repr, row)) for row in table.tolist()]
    path.write_text("\n".join(lines) + "\n")
    found = read_data(DataSettings(source=str(path), label_columns=["112"]), "signal", "single_label_classification")
    assert found.train[0]["signal"].shape == (12,) and found.axis == list(range(100, 112)) and found.names == ["0", "1"]


@pytest.mark.parametrize("again", ["1000.5", "1000.50"])
def test_a_place_that_two_columns_have_is_refused(tmp_path, again):
    path = write(tmp_path / "spectra.csv")
    path.write_text(path.read_text().replace("970.5", again))
    for kind in ("signal", None):
        with pytest.raises(ValueError, match="spectra.csv: two columns are named '1000.5', one place of a signal"):
            open_splits(DataSettings(source=str(path)), kind=kind)
    assert len(open_splits(DataSettings(source=str(path)), kind="text")["train"]) == 40


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


def test_arrays_of_other_names_are_named(tmp_path):
    np.savez(tmp_path / "d.npz", ecg_signal=SIGNALS, label=LABELS)
    with pytest.raises(ValueError, match=r"d\.npz' has no array train_images .*; it has ecg_signal, label"):
        open_data(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", val_signal=SIGNALS, val_label=LABELS)
    assert len(open_data(tmp_path / "e.npz", "validation")) == 40


@pytest.mark.parametrize("names", [("signal", "label"), ("train_images", "train_labels")])
@pytest.mark.parametrize("damage", ["cut", "page", "empty", "changed", "changed where packed"])
def test_a_broken_file_of_arrays_is_named(tmp_path, names, damage):
    path = tmp_path / "a.npz"
    first = SIGNALS if names[0] == "signal" else np.random.default_rng(0).integers(0, 256, (40, 9, 9), dtype=np.uint8)
    save = np.savez_compressed if damage == "changed where packed" else np.savez
    save(path, **dict(zip(names, (first, np.arange(40)))))
    data = path.read_bytes()
    middle = len(data) // 2
    changed = data[:middle] + bytes(255 - byte for byte in data[middle : middle + 40]) + data[middle + 40 :]
    path.write_bytes({"cut": data[:middle], "page": b"<html>", "empty": b""}.get(damage, changed))
    with pytest.raises(ValueError, match=r"a\.npz cannot be unpacked .*cut short or corrupt: fetch it again"):
        open_data(path)


@pytest.mark.parametrize(
    ("place", "cell", "message"),
    [
        ("{}", "0,25", "column '996' must hold numbers, got '0,25'; write decimal commas as points"),
        ("{}", "none", "column '996' must hold numbers, got 'none'; leave a missing one empty"),
        ("{},5", "0.25", "column '1000,5' has a decimal comma in its name; write it with a point"),
    ],
)
def test_what_is_no_number_in_a_table_is_named(tmp_path, place, cell, message):
    header = ["label", *(place.format(1000 - number) for number in range(12))]
    lines = [";".join(header)] + [";".join([label, *["0.5"] * 4, cell, *["1.5"] * 7]) for label in LABELS]
    (tmp_path / "spectra.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"spectra\.csv: {message}"):
        open_data(tmp_path / "spectra.csv")


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


def test_whole_numbers_beside_an_axis_are_no_decimals(tmp_path):
    (tmp_path / "counts.csv").write_text(joined(*zip(range(400, 409), range(12, 3, -1))))
    values, axis = read_signal(tmp_path / "counts.csv")
    assert axis.tolist() == [*range(400, 409)] and values.tolist() == [*range(12, 3, -1)]


def test_a_signal_of_any_length_in_one_line(tmp_path):
    limit = csv.field_size_limit()
    (tmp_path / "long.csv").write_text(joined([0.123456] * 20_000))
    values, _ = read_signal(tmp_path / "long.csv")
    assert values.shape == (20_000,) and csv.field_size_limit() == limit


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
        ("0,5\n1,25\n0,75\n" * 3, "column 1: no axis, so '0,5' has a decimal comma; write it with a point"),
        (joined(*[[row, f"0{row}"] for row in range(9)]), "so '0,00' has a decimal comma"),
        ("place;value\n" + "1650;0,12\n" * 9, "column 2: '0,12' has a decimal comma; write it with a point"),
        ("label;1;2;3;4;5;6;7;8\na;" + ";".join(["0,5"] * 8), "column 2: '0,5' has a decimal comma"),
        (";".join(["0,5"] * 9), "separated by ',' or ';', it cannot be told; .* write decimal commas as points"),
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
