"""`load` of a Hub id: one commit for all its files, named by the model and by a warning where none was asked for."""

import json
import warnings

import huggingface_hub.constants
import pytest
import torch

import hf_mhex
from hf_mhex.hub.app.links import pinned
from hf_mhex.loading import load_processor
from hub_models import save_text_model
from networks import lively

COMMITS = {"v1": "c0ffee" * 6 + "c0ff", "main": "badcab" * 6 + "badc"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The Hub's cache with two commits of someone/film: tokenizers of 7 tokens at the tag v1 and of 9 on main."""
    cache = tmp_path_factory.mktemp("cache")
    repository = cache / "models--someone--film"
    (repository / "refs").mkdir(parents=True)
    for revision, length in (("v1", 7), ("main", 9)):
        folder = repository / "snapshots" / COMMITS[revision]
        save_text_model(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": length}))
        (repository / "refs" / revision).write_text(COMMITS[revision])
    return cache


@pytest.fixture(autouse=True)
def hub(cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    hf_mhex.loading._warn_unpinned.cache_clear()


def test_a_revision_that_is_not_pinned_is_warned_of_once():
    message = f"'someone/film' was loaded without a revision.*revision='{COMMITS['main']}'"
    with pytest.warns(UserWarning, match=message):
        hf_mhex.load("someone/film")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hf_mhex.load("someone/film")
        hf_mhex.load("someone/film", revision=COMMITS["v1"])


@pytest.mark.parametrize("revision", ["v1", COMMITS["v1"]])
def test_a_model_remembers_its_commit(revision, tmp_path):
    """By it its processor is found again, a link of the app pins it, and it is not saved."""
    model, tokenizer = hf_mhex.load("someone/film", revision)
    assert tokenizer.model_max_length == 7 and load_processor(model).model_max_length == 7
    assert pinned("someone/film", model).revision == COMMITS["v1"]
    model.save_pretrained(tmp_path)
    assert COMMITS["v1"] not in (tmp_path / "config.json").read_text()


def test_weights_that_are_missing_are_named_and_not_made_up(tmp_path):
    model = lively("resnet", torch.float32)
    model.base_model.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="lacks 5 of the model's weights, among them heads.0.weight, .*would be random"
    ):
        hf_mhex.load(tmp_path)


def test_a_folder_needs_no_revision(cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = cache / "models--someone--film" / "snapshots" / COMMITS["v1"]
        assert pinned(str(folder), hf_mhex.load(folder)[0]).revision.startswith("weights-")
