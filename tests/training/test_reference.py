"""Reference models: one command leaves a folder as the Hub wants it, described by its own results."""

import json

import pytest
from transformers import AutoModelForImageClassification

from hf_mhex.hub.card import SHIPPED, card_of_folder
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.studies import reference
from hf_mhex.training.studies.reference import REFERENCES, Reference, make_reference
from schemas import write_medmnist

NAME = "mhex-resnet-pneumoniamnist"
QUICK = ("architecture_kwargs={layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}", "image_size=28", "use_cpu=true",
         "learning_rate=1e-2", "num_train_epochs=10", "per_device_train_batch_size=16", "flip=0",
         "load_best_model_at_end=false")  # fmt: skip


@pytest.mark.slow
def test_a_reference_model_is_made_once_and_described_by_its_own_results(tmp_path, monkeypatch):
    monkeypatch.setitem(REFERENCES, NAME, Reference("medmnist/pneumoniamnist", QUICK, study=("pneumoniamnist", "MHEX")))
    source = f"source={write_medmnist(tmp_path / 'x.npz', 2, False, 96, (96, 24, 48))}"
    out, cards = tmp_path / "out", tmp_path / "cards"
    folder = make_reference(NAME, [source], out, "v9", "the command", cards)
    assert AutoModelForImageClassification.from_pretrained(folder).num_labels == 2
    assert (folder / "modeling_mhex_resnet.py").is_file()  # what a stranger runs
    record = json.loads((folder / "results.json").read_text())
    run = json.loads((out / "runs" / NAME / "result.json").read_text())
    assert record["prediction"]["balanced_accuracy"] == run["test"]["balanced_accuracy"]
    assert record["test_rows"] == 48 and 0.5 <= record["prediction"]["share of the most frequent label"] < 1
    assert record["explanation"][0]["measure"] == "completeness error, mean"
    card = (folder / "README.md").read_text()
    assert card == card_of_folder(folder, f"hf-mhex/{NAME}", "v9") == (cards / NAME / "README.md").read_text()
    assert "the command" in card and "children" in card and (folder / "saliency.png").stat().st_size > 2000
    assert {path.name for path in (cards / NAME).iterdir()} == {
        "README.md", "saliency.png", "facts.json", "results.json",
    }  # fmt: skip

    monkeypatch.setattr(reference, "train", None)  # a second time nothing is trained
    assert make_reference(NAME, [source], out, "v9", "the command") == folder


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_model_has_a_recipe_and_words(name):
    load_recipe(REFERENCES[name].recipe, REFERENCES[name].changes)
    words = json.loads((SHIPPED / name / "about.json").read_text())
    assert {"title", "summary", "license", "datasets", "intended_use", "limits", "training"} <= words.keys()


def test_a_name_that_is_not_there_lists_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="MODEL must be one of .*mhex-bert-ag-news; got 'best'"):
        make_reference("best", [], tmp_path, "v1")
