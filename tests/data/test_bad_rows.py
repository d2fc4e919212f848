"""Bad rows are refused in clear words, or left out and counted; none is passed over in silence."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from typer.testing import CliRunner

from hf_mhex.cli import app
from hf_mhex.data.rows import read_data
from hf_mhex.data.settings import DataSettings
from hf_mhex.training import run
from hf_mhex.training.recipe import load_recipe
from schemas import TOPICS, texts, write_csv, write_image_folder, write_medmnist

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
RECIPE = """
model: {architecture: resnet18, architecture_kwargs: {layers: [1, 1, 1, 1], channels: [8, 8, 12, 12]}}
processing: {image_size: 28, crop_pct: 1.0}
training: {max_steps: 1, per_device_train_batch_size: 8, use_cpu: true, seed: 0}
evaluation: {metrics: [accuracy]}
"""


def table(rows=40, **columns):
    found, labels = texts(rows)
    return {"text": found, "label": labels} | columns


def read(source, kind="text", problem=SINGLE, **settings):
    return read_data(DataSettings(source=str(source), **settings), kind, problem)


BAD = [
    ({"text": {3: "  "}}, "1 with empty text; the first is row 3, empty text", {"empty text": 1}),
    ({"text": {3: None, 5: ""}}, "2 with empty text", {"empty text": 2}),
    ({"label": {7: None}}, "1 with missing label; the first is row 7", {"missing label": 1}),
    ({"label": {2: 9}}, "1 with unknown label; the first is row 2, unknown label: '?9", {"unknown label": 1}),
]


@pytest.mark.parametrize("changes, words, counts", BAD)
def test_bad_rows_of_text_are_refused_or_counted(tmp_path, changes, words, counts):
    columns = table()
    for name, values in changes.items():
        for row, value in values.items():
            columns[name][row] = value
    path = write_csv(tmp_path / "rows.csv", columns)
    with pytest.raises(ValueError, match=words):
        read(path, label_names=list(TOPICS))
    with pytest.warns(UserWarning, match="split 'train': . of 40 rows are left out"):
        data = read(path, label_names=list(TOPICS), on_bad_row="skip")
    assert data.skipped == {"train": counts}
    assert len(data.train) + len(data.validation) + len(data.test) == 40 - sum(counts.values())


def test_labels_that_only_another_split_has_are_unknown(tmp_path):
    paths = {name: str(write_csv(tmp_path / f"{name}.csv", table(40))) for name in ("train", "test")}
    columns = table(40)
    columns["label"][1] = 77
    write_csv(tmp_path / "test.csv", columns)
    with pytest.raises(ValueError, match="split 'test' has 1 bad rows of 40 .*unknown label"):
        read_data(DataSettings(files=paths), "text", SINGLE)


def test_corrupt_images_are_refused_or_counted(tmp_path):
    folder = write_image_folder(tmp_path / "images", rows=30)
    whole = (folder / "train" / "class_0" / "0.png").read_bytes()
    (folder / "train" / "class_0" / "0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "class_1" / "1.png").write_bytes(b"no image at all")
    with pytest.raises(ValueError, match="split 'train' has 2 bad rows of 30 .2 with corrupt image"):
        read(folder, "image")
    assert read(folder, "image", on_bad_row="skip").skipped == {"train": {"corrupt image": 2}}
    unseen = read(folder, "image", check_images=False)
    with pytest.raises(ValueError, match="row .* has a corrupt image; see data.on_bad_row and data.check_images"):
        [unseen.train[row] for row in range(len(unseen.train))]


def test_one_class_only(tmp_path):
    path = write_csv(tmp_path / "rows.csv", {"text": texts(20)[0], "label": ["yes"] * 20})
    with pytest.raises(ValueError, match="training rows are of label 'yes': nothing can be learnt from one class only"):
        read(path)


@pytest.mark.parametrize(
    "problem, changes, reason",
    [
        (MULTI, {"a": {4: None}}, "missing label"),
        (MULTI, {"b": {4: 2}}, "unknown label"),
        (MULTI, {"a": {4: "x"}}, "unknown label"),
        (REGRESSION, {"a": {4: None}}, "missing label"),
        (REGRESSION, {"b": {4: "much"}}, "unknown label"),
    ],
)
def test_labels_of_several_kinds(tmp_path, problem, changes, reason):
    columns = {"text": texts(40)[0], "a": [row % 2 for row in range(40)], "b": [int(row % 3 == 0) for row in range(40)]}
    for name, values in changes.items():
        for row, value in values.items():
            columns[name][row] = value
    path = write_csv(tmp_path / "rows.csv", columns)
    with pytest.raises(ValueError, match=f"1 with {reason}; the first is row 4"):
        read(path, problem=problem, label_columns=["a", "b"])
    data = read(path, problem=problem, label_columns=["a", "b"], on_bad_row="skip")
    assert data.skipped == {"train": {reason: 1}}
    assert 4 not in np.concatenate([data.train.indices, data.validation.indices, data.test.indices])


def test_a_number_that_the_names_of_an_array_file_lack(tmp_path):
    source = write_medmnist(tmp_path / "set.npz", 4, colour=False)
    with pytest.raises(
        ValueError, match="split 'train' has 24 bad rows of 96 .24 with unknown label; the first is row 3"
    ):
        read(source, "image", label_names=["a", "b", "c"])
    assert read(source, "image", label_names=["a", "b", "c"], on_bad_row="skip").skipped == {
        "train": {"unknown label": 24},
        "validation": {"unknown label": 8},
        "test": {"unknown label": 8},
    }


def test_rows_without_an_image(tmp_path):
    whole = next(write_image_folder(tmp_path / "images").rglob("*.png")).read_bytes()
    images = [None if row == 5 else {"bytes": whole, "path": None} for row in range(20)]
    rows = {"image": images, "label": [str(row % 2) for row in range(20)]}
    Dataset.from_dict(rows, Features({"image": Image(), "label": Value("string")})).to_parquet(
        tmp_path / "rows.parquet"
    )
    with pytest.raises(ValueError, match="1 with missing image; the first is row 5"):
        read(tmp_path / "rows.parquet", "image")
    assert read(tmp_path / "rows.parquet", "image", on_bad_row="skip").skipped == {"train": {"missing image": 1}}


def test_fewer_rows_than_a_batch(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    source = write_medmnist(tmp_path / "set.npz", 3, colour=True, counts=(15, 9, 9))
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), [f"source={source}", "per_device_train_batch_size=16"])
    with pytest.raises(ValueError, match="15 rows, fewer than one batch of 16; lower training.per_device_train_batch"):
        run.train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_or_counts(tmp_path):
    folder = write_image_folder(tmp_path / "images", rows=30)
    (folder / "train" / "class_0" / "0.png").write_bytes(b"no image at all")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = ["train", str(tmp_path / "recipe.yaml"), f"source={folder}", "--output", str(tmp_path / "run"), "--json"]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code != 0 and "leave them out with --on-bad-row skip" in str(answer.exception)
    answer = CliRunner().invoke(app, [*command, "--on-bad-row", "skip"])
    assert answer.exit_code == 0, answer.output
    row = json.loads((tmp_path / "run" / "result.json").read_text())
    assert row["skipped"] == {"train": {"corrupt image": 1}}
    assert row["rows"] == {"train": 26, "validation": 30, "test": 3}
