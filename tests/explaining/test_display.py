"""`hf_mhex.show` for every kind of input: labels, blocks, picture and page."""

import numpy as np
import pytest
import torch
from PIL import Image

import hf_mhex
from hf_mhex import MHEXSignalFeatureExtractor
from hub_models import save_image_model, save_text_model
from networks import lively


def saved(kind, folder):
    """A saved model of a kind, and an input for it."""
    if kind == "text":
        save_text_model(folder / "model")
        return folder / "model", "good phone, <b>poor</b> battery"
    if kind == "image":
        save_image_model(folder / "model", folder / "pictures")
        return folder / "model", next((folder / "pictures").rglob("*.png"))
    signals = np.random.default_rng(0).normal(3, 2, (20, 61)).astype(np.float32)
    lively("signal", torch.float32).save_pretrained(folder / "model")
    MHEXSignalFeatureExtractor().fit(signals).save_pretrained(folder / "model")
    return folder / "model", signals[0]


@pytest.mark.parametrize("kind", ["image", "text", "signal"])
def test_a_folder_is_enough(kind, tmp_path):
    folder, value = saved(kind, tmp_path)
    model, processor = hf_mhex.load(folder)
    found = hf_mhex.show(folder, value, labels=2)
    expected = [
        hf_mhex.explain(model, processor, value, contrast="mean", target=label) for label in found.first.ranking[:2]
    ]
    for shown, other in zip(found.explanations, expected, strict=True):
        assert shown.label == other.label and shown.sentence == other.sentence
        assert np.allclose(shown.saliency, other.saliency, atol=1e-5)
    assert len(found.first.blocks) == model.num_blocks
    assert Image.open(found.save(tmp_path / "why.png")).size == found.picture.size
    assert found.picture.height > found.labels_picture.height > 50
    page = found.save(tmp_path / "why.html").read_text(encoding="utf-8")
    for shown in found.explanations:
        assert shown.sentence in page and "<b>" not in page and "<script" not in page
    assert found.first.sentence in found._repr_html_() and found._repr_png_().startswith(b"\x89PNG")
    assert (found.coloured is not None) == (kind == "text")


def test_labels_are_chosen_by_name_or_number(tmp_path):
    folder, value = saved("text", tmp_path)
    model, tokenizer = hf_mhex.load(folder)
    names = list(model.config.id2label.values())
    found = hf_mhex.show(model, value, tokenizer, labels=[names[1], 0])
    assert [shown.label for shown in found.explanations] == [names[1], names[0]]
    [shown] = hf_mhex.show(model, value, tokenizer, labels=names[1]).explanations
    assert shown.label == names[1]
    names = [shown.label for shown in hf_mhex.show(model, value, tokenizer).explanations]
    shown = hf_mhex.show(model, value, tokenizer, contrast=names[1]).explanations
    assert [other.label for other in shown] == [name for name in names if name != names[1]]
    for nobody in ("nobody", ["nobody"]):
        with pytest.raises(ValueError, match="labels must be a label .* got 'nobody'"):
            hf_mhex.show(model, value, tokenizer, labels=nobody)
    assert len(hf_mhex.show(model, value, tokenizer, labels=np.int64(1)).explanations) == 1
    [shown] = hf_mhex.show(model, value, tokenizer, labels=np.array([1])).explanations
    assert shown.label == model.config.id2label[1]
    for nothing in (None, [None], 1.5):
        with pytest.raises(TypeError, match="labels must be a number of labels, or a list of names or indices, got "):
            hf_mhex.show(model, value, tokenizer, labels=nothing)
    with pytest.raises(ValueError, match="labels must be at least 1"):
        hf_mhex.show(model, value, tokenizer, labels=0)
    with pytest.raises(ValueError, match="labels must name at least one label"):
        hf_mhex.show(model, value, tokenizer, labels=[])
    with pytest.raises(TypeError, match="'contrats' is no argument of show"):
        hf_mhex.show(model, value, tokenizer, contrats=None)
    with pytest.raises(ValueError, match=r"path must end in .png"):
        found.save(tmp_path / "why.gif")


def test_a_text_in_windows_has_no_blocks(tmp_path):
    folder, _ = saved("text", tmp_path)
    found = hf_mhex.explain(*hf_mhex.load(folder), "good phone " * 100, stride=8)
    assert found.record["windows"] > 1 and found.block_picture is None and found.picture is not None
    shown = hf_mhex.show(folder, "good phone " * 100, stride=8, labels=2, contrast=None)
    assert shown.first.record == found.record and len(shown.explanations) == 2
    page = shown.save(tmp_path / "why.html").read_text(encoding="utf-8")
    assert "Block by block" not in page and shown.first.sentence in page and shown.picture is not None
