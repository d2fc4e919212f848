"""Data are read from every source, with their labels, and split reproducibly."""

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from hf_mhex.data.labels import LabelEncoder
from hf_mhex.data.rows import read_data
from hf_mhex.data.settings import DataSettings
from hf_mhex.training.inputs import ImageCollator
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.settings import ProcessingSettings
from schemas import TOPICS, texts, write_csv, write_idx, write_image_folder, write_medmnist

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def table(rows=40, **columns):
    found, labels = texts(rows)
    return {"text": found, "label": labels} | columns


def read(source, kind="text", problem=SINGLE, **settings):
    return read_data(DataSettings(source=str(source), **settings), kind, problem)


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "tsv"])
def test_tables(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    frame = pd.DataFrame(table())
    {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "parquet": lambda: frame.to_parquet(path),
        "json": lambda: frame.to_json(path, orient="records", lines=True),
    }[kind]()
    data = read(path)
    assert [len(data.train), len(data.validation), len(data.test)] == [32, 4, 4]
    assert data.names == ["0", "1", "2", "3"]
    assert data.train[0]["text"] in frame["text"].tolist()


@pytest.mark.parametrize(
    ("given", "names", "numbered", "meant"),
    [
        ([1, 2], ["1", "2", "3", "4", "5"], False, [0, 1]),  # names, as training takes them
        (["1", "5"], ["1", "2", "3", "4", "5"], False, [0, 4]),
        ([0, 5], ["0", "2", "5"], False, [0, 2]),
        ([1, 2, 3, 4, 5, 6], ["1", "2", "3", "4", "5"], False, [0, 1, 2, 3, 4, -100]),
        ([0, 1, 2, 3, 4], ["1", "2", "3", "4", "5"], False, [0, 1, 2, 3, 4]),  # places
        ([1, 2], ["0", "1", "10", "2"], True, [1, 2]),  # as `datasets` numbers names
        ([1, "cat"], ["dog", "cat"], False, [1, 1]),
        ([True, False], ["True", "False"], False, [0, 1]),  # words before places
        ([np.True_, False], ["true", "false"], False, [0, 1]),
        ([True, False], ["no", "yes"], False, [1, 0]),
        ([True, False], ["0", "1"], False, [1, 0]),
        ([True, "False"], None, False, [1, 0]),
    ],
)
def test_labels_that_are_called_by_numbers(given, names, numbered, meant):
    found, _ = LabelEncoder(SINGLE, given, names, numbered=numbered).encode(given)
    assert found.tolist() == meant


@pytest.mark.parametrize(
    "settings, names, meant",
    [
        ({}, ["False", "True"], [1, 0]),
        ({"label_names": ["True", "False"]}, ["True", "False"], [0, 1]),
        ({"label_names": ["yes", "no"], "label_values": ["True", "False"]}, ["yes", "no"], [0, 1]),
        ({"label_names": ["yes", "no"], "label_values": ["1", "0"]}, ["yes", "no"], [0, 1]),
        ({"label_names": ["no", "yes"]}, ["no", "yes"], [1, 0]),
    ],
)
def test_true_and_false_are_read_as_the_words_they_are(tmp_path, settings, names, meant):
    path = write_csv(tmp_path / "rows.csv", {"text": texts(40)[0], "label": [True, False] * 20})
    data = read(path, **settings)
    assert data.names == names and data.train.all_labels[:2].tolist() == meant


def test_a_model_is_judged_on_the_labels_that_it_was_trained_on(tmp_path):
    """Stars from 1 to 5: what training calls "1" is no other label when the same file is judged."""
    found, labels = texts(60)
    pd.DataFrame({"text": found, "label": np.array(labels) + 1}).to_csv(tmp_path / "stars.csv", index=False)
    data = read(tmp_path / "stars.csv")
    assert data.names == ["1", "2", "3", "4"]
    named = read(tmp_path / "stars.csv", label_names=data.names)
    assert named.test.labels.tolist() == data.test.labels.tolist()


def test_columns_without_a_header_and_named_labels(tmp_path):
    path = tmp_path / "news.csv"
    found, labels = texts(40)
    pd.DataFrame({"a": np.array(labels) + 1, "b": found, "c": "after"}).to_csv(path, index=False, header=False)
    data = read(
        path,
        column_names=["label", "title", "description"],
        input_columns=["title", "description"],
        label_names=list(TOPICS),
        label_values=["1", "2", "3", "4"],
    )
    row = int(data.train.indices[0])
    assert data.train[0]["text"] == f"{found[row]} after"
    assert data.train[0]["labels"] == labels[row]
    assert data.names == list(TOPICS)


def test_names_as_labels(tmp_path):
    columns = table()
    columns["label"] = [list(TOPICS)[label] for label in columns["label"]]
    path = write_csv(tmp_path / "rows.csv", columns)
    assert read(path).names == sorted(TOPICS)
    ordered = read(path, label_names=list(TOPICS))
    assert ordered.train[0]["labels"] == list(TOPICS).index(columns["label"][ordered.train.indices[0]])


def test_files_by_split(tmp_path):
    paths = {name: str(write_csv(tmp_path / f"{name}.csv", table(rows))) for name, rows in (("train", 20), ("test", 8))}
    data = read_data(DataSettings(files=paths, validation_fraction=0.2), "text", SINGLE)
    assert [len(data.train), len(data.validation), len(data.test)] == [16, 4, 8]


def test_embedded_sample_brings_its_names():
    data = read("sample:fashion_mnist", "image")
    assert data.names[0] == "T-shirt/top"
    assert [len(data.train), len(data.validation), len(data.test)] == [1980, 220, 600]
    assert data.train[3]["image"].size == (28, 28)


@pytest.mark.parametrize("several", [False, True])
def test_medmnist_files(tmp_path, several):
    path = write_medmnist(tmp_path / "set.npz", 4, colour=several, several=several)
    data = read(path, "image", MULTI if several else SINGLE)
    assert [len(data.train), len(data.validation), len(data.test)] == [96, 32, 32]
    assert data.train[0]["image"].mode == ("RGB" if several else "L")
    assert data.train.labels.shape == ((96, 4) if several else (96,))


@pytest.mark.parametrize("packed", [True, False])
def test_idx_folders(tmp_path, packed):
    folder = write_idx(tmp_path / "mnist", packed=packed)
    data = read(folder, "image", max_train_rows=50)
    assert [len(data.train), len(data.validation), len(data.test)] == [50, 10, 40]
    assert data.names == [str(digit) for digit in range(10)]
    row = data.test[13]
    assert (row["labels"], row["image"].size, row["image"].mode) == (3, (28, 28), "L")
    assert np.asarray(row["image"])[21:, :7].min() >= 150  # the patch of class 3
    for path in folder.glob("t10k*"):
        path.unlink()
    data = read(folder, "image", test_fraction=0.2)
    assert [len(data.train), len(data.validation), len(data.test)] == [90, 10, 20]


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
IDX = [  # file, the bytes that it gets for its own (and for what it packs), words of the error
    (IMAGES, lambda whole, _: whole[:-20], "images-idx3-ubyte.gz cannot be unpacked .*cut short or corrupt: fetch it"),
    (LABELS, lambda *_: b"<html>not found</html>", "cannot be unpacked .*Not a gzipped file"),
    (IMAGES, lambda _, held: gzip.compress(held[:-1]), "holds 94079 bytes, but its header says 120 x 28 x 28"),
    (LABELS, lambda _, held: gzip.compress(held + b"1"), "holds 41 bytes, but its header says 40"),
    (IMAGES, lambda _, held: gzip.compress(held[:9]), "must be an IDX file of bytes with 3 dimensions; it starts with"),
    (IMAGES, lambda _, held: gzip.compress(held[:2] + b"\r" + held[3:]), "must be an IDX file of bytes"),
    (
        LABELS,
        lambda _, held: gzip.compress(held[:7] + b"\x02" + held[8:10]),
        "as many rows as each other, got 40 and 2",
    ),
]


@pytest.mark.parametrize("name, change, words", IDX)
def test_idx_files_that_cannot_be(tmp_path, name, change, words):
    path = write_idx(tmp_path / "mnist") / name
    whole = path.read_bytes()
    path.write_bytes(change(whole, gzip.decompress(whole)))
    with pytest.raises(ValueError, match=words):
        read(path.parent, "image")


def test_idx_folders_that_lack_a_file_or_hold_no_texts(tmp_path):
    folder = write_idx(tmp_path / "mnist")
    with pytest.raises(ValueError, match="must name the column of texts, one of image, label"):
        read(folder)
    (folder / LABELS).unlink()
    with pytest.raises(ValueError, match="must hold t10k-labels-idx1-ubyte.gz .*beside the other t10k file"):
        read(folder, "image")


def test_a_medmnist_file_that_is_not_there():
    with pytest.raises(ValueError, match="'nowhere.npz' is not there; MedMNIST's files are on"):
        read("nowhere.npz", "image")


def test_image_folder_names_its_classes(tmp_path):
    data = read(write_image_folder(tmp_path / "images", rows=30), "image", test_fraction=0.2)
    assert data.names == ["class_0", "class_1", "class_2"]
    assert [len(data.train), len(data.validation), len(data.test)] == [24, 30, 6]


def test_folders_of_data_files_and_saved_data_sets(tmp_path):
    for name, rows in (("train", 40), ("test", 12)):
        (tmp_path / "files").mkdir(exist_ok=True)
        pd.DataFrame(table(rows)).to_parquet(tmp_path / "files" / f"{name}.parquet")
    saved = DatasetDict({"train": Dataset.from_dict(table(40)), "test": Dataset.from_dict(table(12))})
    saved.save_to_disk(tmp_path / "saved")
    saved["train"].save_to_disk(tmp_path / "one")
    assert [len(read(tmp_path / name).test) for name in ("files", "saved", "one")] == [12, 12, 4]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no data that can be read"):
        read(tmp_path / "empty")


def test_a_hub_id_that_cannot_be_reached():
    with pytest.raises(ValueError, match="'nobody/nothing' is no file, and no data set that can be reached"):
        read("nobody/nothing")


def test_several_label_columns(tmp_path):
    columns = {"text": texts(40)[0], "x": [int(row % 3 == 0) for row in range(40)], "y": [row % 2 for row in range(40)]}
    data = read(write_csv(tmp_path / "rows.csv", columns), problem=MULTI, label_columns=["x", "y"])
    assert data.names == ["x", "y"]
    row = int(data.train.indices[0])
    assert data.train[0]["labels"].tolist() == [columns["x"][row], columns["y"][row]]


def test_splits_are_the_same_for_a_seed_and_keep_the_share_of_labels(tmp_path):
    path = write_csv(tmp_path / "rows.csv", {"text": texts(200)[0], "label": [0] * 150 + [1] * 50})
    first, again, other = (read(path, split_seed=seed, test_fraction=0.2) for seed in (0, 0, 1))
    assert first.test.indices.tolist() == again.test.indices.tolist() != other.test.indices.tolist()
    together = np.concatenate([part.indices for part in (first.train, first.validation, first.test)])
    assert sorted(together) == list(range(200))
    assert np.bincount(first.test.labels).tolist() == [30, 10]


def counts_by_side(path, **settings):
    """Rows of each label in training, validation and test."""
    data = read(path, **settings)
    parts = (data.train, data.validation, data.test)
    return {name: [int((part.labels == k).sum()) for part in parts] for k, name in enumerate(data.names)}


def labelled(path, labels):
    return write_csv(path, {"text": [f"text {row}" for row in range(len(labels))], "label": labels})


def test_rare_labels_are_on_every_side(tmp_path):
    path = labelled(tmp_path / "rows.csv", ["a"] * 500 + ["b"] * 500 + ["five"] * 5 + ["two"] * 2 + ["one"])
    found = counts_by_side(path)
    assert found["five"] == [3, 1, 1] and found["two"] == [1, 0, 1] and found["one"] == [1, 0, 0]
    assert found["a"] == found["b"] == [405, 45, 50]
    assert sum(map(sum, found.values())) == 1008


def test_many_small_classes_are_split(tmp_path):
    """Of 4 rows one is a tenth, where nothing was; a tenth of 14 or 15 is neither 1 nor 2, and makes a tenth of all."""
    found = counts_by_side(labelled(tmp_path / "rows.csv", [f"label {k % 100}" for k in range(400)]))
    assert all(counts == [2, 1, 1] for counts in found.values())
    labels = [f"label {k % 100}" for k in range(1400)] + [f"label {k}" for k in range(20)]
    found = counts_by_side(labelled(tmp_path / "rows.csv", labels))
    _, validation, test = map(sum, zip(*found.values()))
    assert test == 142 and validation == 128 and min(map(min, found.values())) >= 1


@pytest.mark.parametrize("wanted", [30, 4, 3])
def test_so_many_rows_to_train_on_and_some_of_each_label(tmp_path, wanted):
    path = labelled(tmp_path / "rows.csv", ["a"] * 500 + ["b"] * 500 + ["rare"] * 5)
    found = counts_by_side(path, max_train_rows=wanted)
    trained = [counts[0] for counts in found.values()]
    assert sum(trained) == wanted and min(trained) == 1 and abs(trained[0] - trained[1]) <= 1
    assert counts_by_side(path, max_train_rows=10**6) == counts_by_side(path)


def test_fewer_rows_to_train_on_than_labels_are_said(tmp_path):
    path = labelled(tmp_path / "rows.csv", [f"label {k % 8}" for k in range(80)])
    with pytest.warns(UserWarning, match="max_train_rows=5 is below the 8 labels: 3 of them get no row"):
        assert sum(counts[0] for counts in counts_by_side(path, max_train_rows=5).values()) == 5
    for wrong in (0, -5):
        with pytest.raises(ValueError, match=f"data.max_train_rows must be finite and at least 1, got {wrong}"):
            read(path, max_train_rows=wrong)


def test_rare_ones_of_several_labels_are_on_every_side(tmp_path):
    columns = {"text": texts(200)[0], "often": [row % 2 for row in range(200)], "rare": [0] * 197 + [1] * 3}
    path = write_csv(tmp_path / "rows.csv", columns)
    for seed in range(4):
        data = read(path, problem=MULTI, label_columns=["often", "rare"], split_seed=seed)
        assert [int(part.labels[:, 1].sum()) for part in (data.train, data.validation, data.test)] == [1, 1, 1]
        assert len(data.train) + len(data.validation) + len(data.test) == 200


def test_labels_of_one_row_each_cannot_be_split(tmp_path):
    with pytest.raises(
        ValueError, match="12 rows are too few .* off for test: no label has two of them. Give more rows"
    ):
        read(labelled(tmp_path / "rows.csv", [f"label {k}" for k in range(12)]))


SPLITS = {  # digests of the rows of each side, as published figures rest on them
    "sample_fashion_mnist": ["67eff80d0f0c818d", "3dafdf32dfaa4211", "426f7e2d948f0cd8"],
    "sample_product_reviews": ["cdb0e3cd0e370850", "a75c7f51174221d6", "0f6067d8f928617d"],
    "sample_coffee": ["20ce494f8e04d67a", "aee77e5f3d57913e", "1e8499c0b22648f3"],
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_samples_are_split_as_ever(name):
    recipe = load_recipe(name, ["check_images=false"])
    data = read_data(recipe.data, recipe.model.registered.kind, recipe.model.problem_type, recipe.model.channels)
    parts = (data.train, data.validation, data.test)
    digests = [hashlib.sha256(part.indices.tobytes() + part.labels.tobytes()).hexdigest()[:16] for part in parts]
    assert digests == SPLITS[name]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"source": "nowhere.csv"}, "'nowhere.csv' is no file or folder"),
        ({"files": {"train": "nowhere.csv"}}, "'nowhere.csv' is not there"),
        ({}, "one of data.source and data.files"),
        ({"source": "sample:mnist"}, "name must be one of 'fashion_mnist'"),
        ({"source": "sample:product_reviews", "test_split": "exam"}, "test_split='exam' is not there"),
        ({"source": "sample:product_reviews", "input_columns": ["words"]}, "no column 'words'; there are text"),
        (
            {"source": "sample:product_reviews", "validation_fraction": 0},
            "no validation split and data.validation_fraction is 0",
        ),
        ({"source": "sample:product_reviews", "label_columns": ["score"]}, "labels look like numbers"),
    ],
)
def test_sources_that_cannot_be(settings, words):
    with pytest.raises(ValueError, match=words):
        read_data(DataSettings(**settings), "text", SINGLE)


def test_augmentation_depends_on_seed_epoch_and_row_alone(tmp_path):
    from hf_mhex import MHEXResNetConfig, image_processor_for

    data = read(write_medmnist(tmp_path / "set.npz", 4, colour=False), "image")
    config = MHEXResNetConfig()
    settings = ProcessingSettings(flip=0.5, shift=0.1, min_area=0.5)
    collate = ImageCollator(image_processor_for(config, 28, 1.0), settings, config.num_channels)
    plain = collate([data.train[row] for row in range(8)])["pixel_values"]
    data.train.seed = 3
    first = collate([data.train[row] for row in range(8)])["pixel_values"]
    assert not first.equal(plain)
    assert collate([data.train[row] for row in reversed(range(8))])["pixel_values"].flip(0).equal(first)
    data.train.set_epoch(1)
    assert not collate([data.train[row] for row in range(8)])["pixel_values"].equal(first)
    assert collate([data.test[0]])["pixel_values"].shape == (1, 3, 28, 28)


def test_batches_become_mosaics_of_whole_images_with_a_label_a_part(tmp_path):
    from hf_mhex import MHEXResNetConfig, image_processor_for

    data = read(write_medmnist(tmp_path / "set.npz", 4, colour=False), "image")
    config = MHEXResNetConfig()
    processor = image_processor_for(config, 28, 1.0)
    alone = ImageCollator(processor, ProcessingSettings(), 3)
    joined = ImageCollator(processor, ProcessingSettings(mosaics=1.0), 3)
    data.train.seed = 0
    rows = [data.train[row] for row in range(6)]
    single, mosaic = alone(rows), joined(rows)
    assert mosaic["pixel_values"].shape == (2, 3, 56, 56) and mosaic["labels"].shape == (2, 2, 2)
    for part in range(8):  # the last two are the first two again
        image, top, left = part // 4, part % 4 // 2 * 28, part % 2 * 28
        found = mosaic["pixel_values"][image, :, top : top + 28, left : left + 28]
        assert found.equal(single["pixel_values"][part % 6])
        assert mosaic["labels"].flatten()[part] == single["labels"][part % 6]
    assert joined([data.test[0]])["pixel_values"].shape == (1, 3, 28, 28)  # rows to judge by stay alone
    some = ImageCollator(processor, ProcessingSettings(mosaics=0.5), 3)
    shapes = {some([data.train[row]] * 4)["labels"].ndim for row in range(24)}
    assert shapes == {1, 3}
    early = ImageCollator(processor, ProcessingSettings(mosaics=1.0, mosaic_epochs=1), 3)
    assert early(rows)["labels"].ndim == 3
    data.train.set_epoch(1)
    assert early([data.train[row] for row in range(6)])["labels"].ndim == 1
