"""`load` of a Hub id without a revision warns once, and names the commit that was loaded."""

import warnings

import pytest

import hf_mhex
from hf_mhex import loading
from hf_mhex.families import FAMILIES
from networks import lively

COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.fixture
def hub(monkeypatch):
    """A Hub that has one small model at every id and revision."""
    model = lively("resnet")
    model.config._commit_hash = COMMIT
    monkeypatch.setattr(loading, "source_config", lambda source, revision: {"model_type": "mhex_resnet"})
    monkeypatch.setattr(FAMILIES["mhex_resnet"].classifier, "from_pretrained", lambda source, **options: model)
    monkeypatch.setattr(loading, "_processor", lambda family, source, revision: None)


def test_a_revision_that_is_not_pinned_is_warned_of_once(hub):
    with pytest.warns(UserWarning, match=f"'someone/unpinned' was loaded without a revision.*revision='{COMMIT}'"):
        hf_mhex.load("someone/unpinned")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hf_mhex.load("someone/unpinned")
        hf_mhex.load("someone/else", revision=COMMIT)


def test_a_folder_needs_no_revision(hub, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hf_mhex.load(tmp_path)
