"""Models saved by this and earlier versions load with the logits, maps and features that they had."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hf_mhex
from hf_mhex.families import FAMILIES

FOLDERS = sorted(path for path in (Path(__file__).parents[1] / "fixtures").iterdir() if path.is_dir())


def load(folder):
    """The classifier in a folder that has no processor, and the warnings that loading gave."""
    family = FAMILIES[json.loads((folder / "config.json").read_text())["model_type"]]
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        model = family.classifier.from_pretrained(folder)
    return model, [str(warning.message) for warning in given if "mhex" in str(warning.message)]


def test_every_family_has_a_model_of_this_version():
    names = {folder.name for folder in FOLDERS}
    version = hf_mhex.__version__
    assert {f"{model_type}-{version}" for model_type in FAMILIES} <= names
    assert sum(path.stat().st_size for folder in FOLDERS for path in folder.iterdir()) < 1.2e6


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@torch.no_grad()
def test_a_saved_model_says_what_it_said(folder):
    model, given = load(folder)
    expected = load_file(folder / "expected.safetensors")
    inputs = {key.removeprefix("in."): expected.pop(key) for key in list(expected) if key.startswith("in.")}
    assert len(given) == folder.name.endswith("-0.1.0"), given
    assert all("head_std" in text and "no longer used" in text for text in given)
    found = {key: value for key, value in model.generate_saliency(**inputs).items() if key in expected}
    found["features"] = model.base_model(**inputs).last_hidden_state
    found["all"] = model.generate_saliency(**inputs, target="all", contrast="softmax").saliency
    if model.base_model.can_roll_out:
        found["rollout"] = model.generate_saliency(**inputs, rollout=True).saliency
    assert found.keys() == expected.keys() and expected["logits"].std() > 0.1
    for key, value in expected.items():
        assert (found[key] - value).abs().max() <= 1e-5 * max(1, value.abs().max().item()), key


def test_a_retired_field_is_gone_once_saved_again(tmp_path):
    model, _ = load(next(folder for folder in FOLDERS if folder.name.endswith("-0.1.0")))
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "head_std" not in saved and saved["mhex_version"] == hf_mhex.__version__
    assert not load(tmp_path)[1]


@pytest.mark.parametrize("version, warned", [("0.10.0", True), ("99.0", True), ("0.1.5", False)])
def test_a_config_of_a_newer_version_warns_naming_both(tmp_path, version, warned):
    folder = shutil.copytree(FOLDERS[-1], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mhex_version": version}))
    _, given = load(folder)
    assert len(given) == warned
    assert all(f"written by hf-mhex {version}, read by {hf_mhex.__version__}" in text for text in given)
