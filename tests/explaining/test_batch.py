"""Explainer explains batches of columns as explain does its rows, wherever it is sent."""

import pickle
import warnings

import numpy as np
import pytest
from datasets import Dataset

import hf_mhex
from hf_mhex import Explainer
from hub_models import SENTENCES, save_image_model, save_text_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_image_model(folder / "image", folder / "pictures")
    save_text_model(folder / "text")
    return folder


def assert_same(found, row, expected):
    assert found["label"][row] == expected.label and found["error"][row] == ""
    for name in ("score", "logit", "explained"):
        assert found[name][row] == pytest.approx(getattr(expected, name), abs=1e-4)
    assert np.allclose(found["map"][row], expected.saliency, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_texts(folder, side):
    explainer = Explainer(str(folder / "text"), batch_size=3, target=1)
    explainer({"text": ["warm"]})
    model, tokenizer = explainer._loaded
    tokenizer.padding_side = side
    batch = {"number": [*range(6)], "text": [*SENTENCES, ("good", "bad")]}
    found = explainer(batch)
    assert found["number"] == batch["number"] and found["text"] == batch["text"]
    for row, text in enumerate(batch["text"]):
        expected = hf_mhex.explain(model, tokenizer, text, target=1, contrast=None)
        assert_same(found, row, expected)
        assert found["words"][row] == [word.text for word in expected.parts]
        assert found["word_scores"][row] == pytest.approx([word.score for word in expected.parts], abs=1e-5)


def test_images_and_a_bad_row(folder):
    paths = sorted(map(str, (folder / "pictures").rglob("*.png")))
    (folder / "broken.png").write_bytes(b"no")
    found = Explainer(str(folder / "image"), contrast="mean")({"image": np.array([*paths, str(folder / "broken.png")])})
    model, processor = hf_mhex.load(folder / "image")
    for row, path in enumerate(paths):
        assert_same(found, row, hf_mhex.explain(model, processor, path, contrast="mean"))
    assert "broken.png is no image that can be read" in found["error"][-1]
    assert found["label"][-1] == "" and np.isnan(found["logit"][-1]) and found["map"][-1].shape == (0, 0)


def test_it_travels_and_loads_the_model_where_it_arrives(folder, monkeypatch):
    explainer = pickle.loads(pickle.dumps(Explainer(str(folder / "text"))))
    assert explainer._loaded is None
    data = Dataset.from_dict({"text": SENTENCES}).map(explainer, batched=True, batch_size=2)
    assert data.column_names == [
        "text", "label", "score", "logit", "explained", "map", "error", "words", "word_scores"
    ]  # fmt: skip
    explainer({"text": ["good"]})
    monkeypatch.setattr("hf_mhex.loading.load", None)
    assert len(explainer({"text": ["bad"]})["map"]) == 1 and pickle.loads(pickle.dumps(explainer))._loaded is None


def test_a_column_of_the_data_goes_under_with_a_warning_or_is_kept_by_a_prefix(folder):
    batch = {"text": ["good"], "label": [7]}
    with pytest.warns(UserWarning, match=r"columns of the data are replaced: label; Explainer\(..., prefix='why_'\)"):
        found = Explainer(str(folder / "text"))(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = Explainer(str(folder / "text"), prefix="why_")(batch)
    assert kept["label"] == [7] and kept["why_label"] == found["label"]
    assert set(kept) == {*batch, *(f"why_{name}" for name in found if name != "text")}


def test_wrong_calls(folder):
    for options, words in (
        ({"contrast": "means"}, "contrast must be None, 'mean'"),
        ({"blocks": [9]}, "blocks must lie in"),
        ({"decay": 2}, "decay must be None or lie in"),
        ({"target": 9}, r"target must be None or a class index in \[0, 2\], got 9"),
        ({"target": "all"}, "target must be None or a class index"),
        ({"column": "c"}, "column='c' must be a column of the batch: text"),
    ):
        with pytest.raises(ValueError, match=words):
            Explainer(str(folder / "text"), **options)({"text": ["good"]})
    with pytest.raises(ValueError, match="rollout must be False for MHEXResNetForImageClassification, got True"):
        Explainer(str(folder / "image"), rollout=True)({"image": ["no.png"]})
    with pytest.raises(ValueError, match="batch_size must be an int of at least 1, got 0"):
        Explainer("folder", batch_size=0)
    with pytest.raises(TypeError, match="'contrats' is no argument of Explainer; did you mean 'contrast'"):
        Explainer("folder", contrats="mean")
    with pytest.raises(ValueError, match="column must name the column of texts, one of a, b"):
        Explainer(str(folder / "text"))({"a": ["x"], "b": ["y"]})
