"""The study of every family: what its networks start from, that a stopped run goes on, and its page."""

import json

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.studies import families
from hf_mhex.training.studies.families import ENTRIES, minilm, render, run_study, save_as
from networks import NAMES, TEXTS


def test_every_family_has_its_entry():
    assert {name for name, entry in ENTRIES.items() if "plain" in entry.arms} == set(NAMES)


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.study.recipe.endswith("mnist")])
@torch.no_grad()
def test_networks_of_images_take_images_of_their_size(name):
    recipe = load_recipe(ENTRIES[name].study.recipe, ENTRIES[name].study.changes)
    side, settings = recipe.processing.image_size, recipe.model
    fields = {"architecture": settings.architecture, "architecture_kwargs": settings.architecture_kwargs}
    body = settings.registered.body(settings.registered.config(**fields)).eval()
    assert body(pixel_values=torch.randn(2, 3, side, side)).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "modernbert"])
@torch.no_grad()
def test_other_families_hold_minilm_in_their_own_form(name, tmp_path):
    save_as(name, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer(["The battery is bad, the screen is fine.", "good"], padding=True, return_tensors="pt")
    found, expected = (model.eval()(**inputs) for model in (AutoModel.from_pretrained(tmp_path), minilm()))
    valid = inputs["attention_mask"].bool()
    torch.testing.assert_close(found.last_hidden_state[valid], expected.last_hidden_state[valid], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_study_runs_stops_and_goes_on(tmp_path, monkeypatch):
    entry = ENTRIES["resnet"]
    small = families.Entry(
        entry.about, (*entry.changes, "max_steps=1", "use_cpu=true"), entry.rate, entry.arms, seeds=2
    )
    monkeypatch.setitem(ENTRIES, "resnet", small)
    said: list[str] = []
    rows = run_study(tmp_path / "found", ["resnet"], said.append)
    assert [(row["arm"], row["seed"]) for row in rows] == [("plain", 1), ("MHEX", 1), ("plain", 2), ("MHEX", 2)]
    assert all(0 <= row["test"]["accuracy"] <= 1 for row in rows) and len(said) == 4
    path = tmp_path / "found.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + '\n{"entry": "re')  # killed while it wrote the last row
    again = run_study(tmp_path / "found", ["resnet"], said.append)
    assert len(said) == 5 and again[-1]["test"] == json.loads(lines[-1])["test"]
    assert "| resnet | 4 basic blocks | 1980, 600 | 0.01 | 2 |" in " ".join(render(again).split())


def test_differences_are_paired_by_seed():
    values = {"full gates": {1: 0.80, 2: 0.84, 3: 0.82}, "low rank": {3: 0.83, 1: 0.81, 2: 0.85}}
    common = {"entry": "ranks, images", "rows": {"train": 7, "test": 5}, "environment": {"machine": "m"}, "commit": "c"}
    rows = [
        common | {"arm": arm, "seed": seed, "test": {"accuracy": value}}
        for arm, found in values.items()
        for seed, value in found.items()
    ]
    assert "| 0.8200 | 0.8300 | +1.00 [+1.00, +1.00] |" in " ".join(render(rows).split())


def test_an_entry_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="only must be among resnet; .*; got vgg"):
        run_study(tmp_path / "found", ["vgg"])
