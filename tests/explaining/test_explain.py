"""explain answers with everything that is known of one input, and the contrast fits how the labels were learnt."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import hf_mhex
from hf_mhex import MHEXBertConfig, MHEXResNetConfig, MHEXSignalFeatureExtractor
from hf_mhex.explaining.explanation import Explanation, explain, lead_contrast
from hf_mhex.pictures.cards import saliency_picture
from hub_models import save_image_model, save_text_model
from networks import lively

OTHERS = "the other labels on average"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_image_model(folder / "image", folder / "pictures")
    save_text_model(folder / "text")
    return folder


@pytest.fixture(scope="module")
def image_model(folders):
    return hf_mhex.load(folders / "image")


@pytest.fixture(scope="module")
def text_model(folders):
    return hf_mhex.load(folders / "text")


def test_an_image(folders, image_model):
    path = next((folders / "pictures").rglob("*.png"))
    found = explain(*image_model, path, contrast="softmax")
    model, processor = image_model
    answer = model.generate_saliency(**processor(Image.open(path), return_tensors="pt"), contrast="softmax")
    assert found.target == int(answer.target) and found.label == model.config.id2label[found.target]
    assert found.logit == pytest.approx(float(answer.logits[0, found.target]), abs=1e-5)
    assert found.score == pytest.approx(float(answer.logits.softmax(-1)[0, found.target]), abs=1e-5)
    assert np.allclose(found.saliency, answer.saliency[0].numpy(), atol=1e-5) and found.saliency.ndim == 2
    assert found.record["sum"] == pytest.approx(found.explained, abs=1e-4)
    assert found.parts == pytest.approx([float(maps.sum()) for maps in answer.block_saliency], abs=1e-4)
    assert found.picture.size[0] > 448 and found.page is None and found.coloured is None
    assert found._repr_html_().startswith("<img alt=") and "data:image/png;base64," in found._repr_html_()
    for value in (Image.open(path), path.read_bytes(), np.asarray(Image.open(path))):
        assert explain(*image_model, value, contrast="softmax").record == found.record


@pytest.mark.parametrize(
    ("options", "lead"),
    [
        ({"contrast": "mean"}, lambda z, t: (z[t] - np.delete(z, t).mean(), OTHERS)),
        ({"contrast": "mean", "target": 2}, lambda z, t: (z[2] - np.delete(z, 2).mean(), OTHERS)),
        ({"contrast": "runner_up"}, lambda z, t: (z[t] - np.sort(z)[-2], "abc"[np.argsort(z)[-2]])),
        ({"contrast": "b", "target": "c"}, lambda z, t: (z[2] - z[1], "b")),
    ],
)
def test_the_sentence_says_what_the_map_adds_up_to(folders, image_model, options, lead):
    path = next((folders / "pictures").rglob("*.png"))
    found = explain(*image_model, path, **options)
    logits = image_model[0](**image_model[1](Image.open(path), return_tensors="pt")).logits[0].detach().double().numpy()
    value, other = lead(logits, int(logits.argmax()))
    assert found.saliency.sum() == pytest.approx(value, abs=1e-4) == found.explained
    said = f"{value:+.3g} ahead of {other}" if value >= 0 else f"{-value:.3g} behind {other}"
    assert found.sentence == f"{said}; red speaks for {found.label}, blue against it"
    assert np.allclose(found.logits, logits, atol=1e-5) and found.ranking == (-logits).argsort().tolist()


def test_the_logit_is_explained_and_shown_at_one_switch(image_model, folders):
    path = next((folders / "pictures").rglob("*.png"))
    found = explain(*image_model, path, blocks=[0, -1])
    assert found.record["contrast"] is None and list(found.blocks) == [0, 4]
    assert found.sentence.startswith("logit ") and " by blocks 0, 4 alone; " in found.sentence
    assert explain(*image_model, path).explained == pytest.approx(found.logit, abs=1e-4)
    model, processor = image_model
    shown, logits = (hf_mhex.show(model, path, processor, **options).first for options in ({}, {"contrast": None}))
    assert shown.record == explain(*image_model, path, contrast="mean").record
    assert logits.record == explain(*image_model, path).record


def test_a_photograph_is_explained_upright(folders, image_model):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(buffer, "PNG", exif=exif)
    assert explain(*image_model, buffer.getvalue()).record == explain(*image_model, pixels).record


def test_a_text(text_model):
    text = "<b>good</b> iPhone13, isn't it?"
    found = explain(*text_model, text, contrast=None)
    assert "".join(word.text for word in found.parts) == text.replace(" ", "") and "13" in found.parts[-7].text
    assert [text[word.start : word.end] for word in found.parts] == [word.text for word in found.parts]
    total = sum(word.score for word in found.parts) + found.record["special"]
    assert total == pytest.approx(found.explained, abs=1e-5) and found.explained == pytest.approx(found.logit, abs=1e-4)
    assert found.record["words"][0]["text"] == "<" and not found.record["truncated"]
    shown = found._repr_html_()
    assert "&lt;" in shown and "<b>" not in shown and "background: rgba(" in shown
    assert found.sentence == f"logit {found.logit:+.3g}; red speaks for {found.label}, blue against it"
    assert found.sentence in shown and found.sentence in found.page
    assert found.coloured.plain == text and "&lt;" in found.page
    assert isinstance(found.picture, Image.Image)


def test_a_text_that_is_cut_off_warns_once_and_names_the_way_out(text_model, recwarn):
    long = "word " * 500
    for call in (explain, lambda model, tokenizer, value: hf_mhex.show(model, value, tokenizer).first):
        recwarn.clear()
        assert call(*text_model, long).record["truncated"]
        [warning] = recwarn
        assert warning.category is UserWarning and warning.filename == __file__
        assert re.fullmatch(
            r"the model reads \d+ tokens, the rest of the text is cut .*stride=32.*", str(warning.message)
        )
    recwarn.clear()
    assert explain(*text_model, (long, long)).record["truncated"]
    assert "rest of the pair is cut off" in str(recwarn.pop().message)
    explain(*text_model, long, stride=8)
    assert not recwarn


@pytest.mark.parametrize("make", [tuple, lambda pair: dict(zip(("text", "text_pair"), pair))])
def test_a_pair_of_texts(text_model, make):
    pair = ("good phone", "the battery is bad")
    found = explain(*text_model, make(pair))
    assert [(word.text, word.segment) for word in found.parts] == [
        (word, segment) for segment, text in enumerate(pair) for word in text.split()
    ]
    assert all(pair[word.segment][word.start : word.end] == word.text for word in found.parts)
    total = sum(word.score for word in found.parts) + found.record["special"]
    assert total == pytest.approx(found.explained, abs=1e-5)
    model, tokenizer = text_model
    assert found.logit == pytest.approx(
        float(model(**tokenizer(*pair, return_tensors="pt")).logits.detach().max()), abs=1e-5
    )
    assert "\n".join(pair) == found.coloured.plain


@pytest.mark.parametrize("kind", ["image", "text"])
def test_all_labels_and_no_map(request, folders, kind):
    model = request.getfixturevalue(f"{kind}_model")
    value = next((folders / "pictures").rglob("*.png")) if kind == "image" else "good phone"
    every = explain(*model, value, target="all")
    assert [found.label for found in every] == list(model[0].config.id2label.values())
    for found in every:
        alone = explain(*model, value, target=found.label)
        assert isinstance(found, Explanation) and found.explained == pytest.approx(alone.explained, abs=1e-4)
        assert np.allclose(found.saliency, alone.saliency, atol=1e-5)
    bare = explain(*model, value, upsample=False)
    assert (bare.picture, bare.saliency, bare.page, bare.record["sum"]) == (None, None, None, None)
    assert bare.label in bare._repr_html_()


def test_wrong_calls(folders, image_model, text_model):
    with pytest.raises(TypeError, match="'contrats' is no argument of explain; did you mean 'contrast'"):
        explain(*text_model, "good", contrats="mean")
    with pytest.raises(ValueError, match="target must be a label"):
        explain(*text_model, "good", target="excellent")
    own = explain(*text_model, "good").label
    for options in ({"contrast": own}, {"target": own, "contrast": own}, {"contrast": own, "stride": 3}):
        with pytest.raises(ValueError, match=f"contrast={own!r} is the target {own!r} itself.*name another label"):
            explain(*text_model, "good", **options)
    with pytest.raises(ValueError, match="empty text"):
        explain(*text_model, " ")
    with pytest.raises(TypeError, match="must hold a text or a pair of texts, got int"):
        explain(*text_model, 3)
    with pytest.raises(TypeError, match="a pair must be a dict of 'text' and 'text_pair', got 'txt'"):
        explain(*text_model, {"txt": "good"})
    for texts in (["good", "bad"], ["good"], []):
        for call in (explain, lambda model, tokenizer, value: hf_mhex.show(model, value, tokenizer)):
            with pytest.raises(
                ValueError, match=f"a list of {len(texts)} is neither .*a pair is a tuple.*several texts"
            ):
                call(*text_model, texts)
    (folders / "notes.png").write_text("no image")
    with pytest.raises(ValueError, match="notes.png is no image that can be read"):
        explain(*image_model, folders / "notes.png")
    with pytest.raises(FileNotFoundError):
        explain(*image_model, folders / "nowhere.png")


@pytest.mark.parametrize(
    ("kind", "needed"), [("image", "image processor"), ("text", "tokenizer"), ("signal", "feature extractor")]
)
def test_a_processor_of_another_kind_is_named(image_model, text_model, tmp_path, kind, needed):
    signals = np.random.default_rng(0).normal(size=(3, 61)).astype(np.float32)
    signal_model = lively("signal", torch.float32), MHEXSignalFeatureExtractor().fit(signals)
    every = {"image": (image_model, signals), "text": (text_model, "hi"), "signal": (signal_model, signals[0])}
    (model, _), value = every[kind]
    wrong = [pair[1] for name, (pair, _) in every.items() if name != kind]
    for processor in [*wrong, None]:
        words = (
            f"processor must be the {needed} of this model of {kind}s, .*; got {type(processor).__name__}. hf_mhex.load"
        )
        with pytest.raises(TypeError, match=words):
            explain(model, processor, value)
        with pytest.raises(TypeError, match=words):
            hf_mhex.explain_dataset(model, processor, [{kind: value}], tmp_path, progress=False)
    assert not any(tmp_path.iterdir())
    with pytest.raises(TypeError, match=f"processor must be the {needed}"):
        hf_mhex.show(model, value, wrong[0])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"num_labels": 3}, "mean"),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, "mean"),
        ({"num_labels": 3, "binary_share": 0.5}, "mean"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, None),
        ({"num_labels": 1, "problem_type": "regression"}, None),
        ({"num_labels": 1}, None),
    ],
)
@pytest.mark.parametrize("family", [MHEXBertConfig, MHEXResNetConfig])
def test_a_lead_is_shown_where_labels_compete(family, fields, expected):
    assert lead_contrast(family(**fields)) == expected


def test_a_card_s_picture_starts_from_it_and_can_be_told_otherwise(tmp_path):
    save_image_model(tmp_path / "model", tmp_path / "pictures")  # learnt by cross-entropy
    item = next((tmp_path / "pictures").rglob("*.png"))
    own = saliency_picture(tmp_path / "model", [item])
    assert own.tobytes() == saliency_picture(tmp_path / "model", [item], contrast="mean").tobytes()
    assert own.tobytes() != saliency_picture(tmp_path / "model", [item], contrast=None).tobytes()
