"""`mhex evaluate` and its reports of the model and of each of its heads."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hf_mhex import image_processor_for
from hf_mhex.cli import app
from hf_mhex.evaluation.metrics import scores
from hf_mhex.evaluation.predictions import collect, head_report, report
from networks import image_batch, lively_bert, lively_resnet, text_batch
from schemas import write_csv, write_medmnist


def collected(model, inputs, labels):
    """As `collect` does, over batches of two rows."""
    batches = [
        {name: value[at : at + 2] for name, value in (inputs | {"labels": labels}).items()}
        for at in range(0, len(labels), 2)
    ]
    return collect(model, batches, heads=True)


def test_heads_alone_and_combined_against_the_model():
    model = lively_bert(dtype=torch.float32)
    labels = torch.arange(24) % 4
    logits, truth, blocks = collected(model, text_batch(batch=24, length=13, seed=1), labels)
    found = head_report(blocks, truth, model.config, decays=(0.0, 1.0))
    assert [row["decay"] for row in found["combined"]] == [0.0, 0.5, 1.0]
    own = next(row for row in found["combined"] if row["own"])
    whole = report(logits, truth, model.config)
    assert own["decay"] == model.config.head_decay
    assert own["accuracy"] == whole["metrics"]["accuracy"]
    assert own["recall"] == whole["recall"]
    last = {name: value for name, value in found["heads"][-1].items() if name != "block"}
    assert last == {name: value for name, value in found["combined"][0].items() if name not in ("decay", "own")}
    for block, row in enumerate(found["heads"]):
        assert row["accuracy"] == scores.accuracy(blocks[:, block].argmax(-1), truth)
    assert np.array(whole["confusion"]).sum() == 24
    assert sum(part["rows"] for part in whole["calibration"]) == 24


def test_several_labels_and_numbers():
    model = lively_resnet(dtype=torch.float32, problem_type="multi_label_classification")
    labels = torch.eye(4)[torch.arange(8) % 4]
    logits, truth, blocks = collected(model, image_batch(batch=8), labels)
    found = report(logits, truth, model.config)
    assert found["confusion"].keys() == set(model.config.id2label.values())
    assert np.array(list(found["confusion"].values())).sum() == 32
    assert head_report(blocks, truth, model.config)["heads"][0].keys() >= {"accuracy", "recall"}
    model = lively_resnet(dtype=torch.float32, num_labels=1, problem_type="regression")
    logits, truth, blocks = collected(model, image_batch(batch=8), torch.linspace(-1, 1, 8))
    assert report(logits, truth, model.config)["metrics"].keys() == {"mae", "rmse", "r2"}
    assert head_report(blocks, truth, model.config)["heads"][0].keys() == {"block", "mae", "rmse", "r2"}


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_the_recall_of_one_label_is_that_of_its_presence(shape):
    model = lively_resnet(dtype=torch.float32, num_labels=1, problem_type="multi_label_classification")
    logits = np.array([3.0, -1, -1, -1, -2, -2, -2, -2])[:, None]
    truth = np.array([1.0, 1, 1, 1, 0, 0, 0, 0]).reshape(shape)
    found, [name] = report(logits, truth, model.config), model.config.id2label.values()
    assert found["recall"] == {name: 0.25} and found["confusion"] == {name: [[4, 0], [3, 1]]}
    assert head_report(logits[:, None], truth, model.config)["heads"][0]["recall"] == {name: 0.25}


def test_what_rows_do_not_define_is_said():
    model = lively_bert(dtype=torch.float32)
    logits, truth, _ = collected(model, text_batch(), torch.zeros(4, dtype=torch.long))
    found = report(logits, truth, model.config)
    assert "AUC needs rows with and without the label" in found["undefined"]["auc"]
    assert found["recall"][model.config.id2label[3]] is None


def test_no_row_and_broken_weights():
    model = lively_bert(dtype=torch.float32)
    with pytest.raises(ValueError, match="no row"):
        collect(model, [])
    torch.nn.init.constant_(model.heads[0].weight, torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        collected(model, text_batch(), torch.zeros(4, dtype=torch.long))


def test_without_heads_only_logits_are_kept():
    model = lively_bert(dtype=torch.float32)
    logits, _, blocks = collect(model, [text_batch() | {"labels": torch.zeros(4, dtype=torch.long)}])
    assert logits.shape == (4, 4) and blocks is None


@pytest.fixture
def folder(tmp_path):
    """A saved image model of three labels, with its processor."""
    model = lively_resnet(dtype=torch.float32, num_labels=3)
    model.save_pretrained(tmp_path / "model")
    image_processor_for(model.config, image_size=28, crop_pct=1.0).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_command(folder, tmp_path):
    data = write_medmnist(tmp_path / "set.npz", 3, colour=True)
    output = tmp_path / "report.json"
    answer = run(folder, data, "--heads", "--json", "--output", output)
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found == json.loads(output.read_text())
    assert found["rows"] == 32
    assert len(found["heads"]) == 5
    shown = run(folder, data, "--heads", "--split", "validation")
    assert "block 4" in shown.stdout and "(own)" in shown.stdout and "calibration error" in shown.stdout


def test_command_counts_or_refuses_bad_rows(folder, tmp_path):
    data = write_medmnist(tmp_path / "set.npz", 4, colour=True)  # a label that the config lacks
    answer = run(folder, data)
    assert isinstance(answer.exception, ValueError)
    assert "8 with unknown label" in str(answer.exception)
    answer = run(folder, data, "--on-bad-row", "skip", "--json")
    assert json.loads(answer.stdout.splitlines()[-1])["skipped"] == {"unknown label": 8}


def test_command_refuses_what_is_no_setting_of_data(folder, tmp_path):
    data = write_csv(tmp_path / "rows.csv", {"a": [1]})
    assert "only keys of a recipe's data section apply" in str(run(folder, data, "learning_rate=1").exception)
    assert "split must be one of" in str(run(folder, "sample:fashion_mnist", "--split", "exam").exception)


def test_command_makes_a_recipes_splits_again(folder, tmp_path):
    data = write_medmnist(tmp_path / "set.npz", 3, colour=True)
    recipe = tmp_path / "recipe.yaml"
    names = "[LABEL_0, LABEL_1, LABEL_2]"
    model = "model: {architecture: resnet18}\n"
    keys = f"label_names: {names}, validation_split: test, test_fraction: 0.25"
    recipe.write_text(f"{model}data: {{source: {data}, {keys}}}\n")
    answer = run(folder, recipe, "--json")
    assert json.loads(answer.stdout.splitlines()[-1])["rows"] == 24
    assert json.loads(run(folder, recipe, "--json", "--split", "validation").stdout.splitlines()[-1])["rows"] == 32
    recipe.write_text(f"{model}data: {{source: {data}}}\n")
    assert "the model's labels ['LABEL_0'" in str(run(folder, recipe).exception)
