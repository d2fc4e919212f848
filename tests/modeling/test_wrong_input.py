"""Inputs that do not fit are refused in words that name the argument, the value and the way out."""

import functools

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from hf_mhex import (
    MHEXBertConfig,
    MHEXConvNeXtConfig,
    MHEXResNetConfig,
    MHEXRobertaConfig,
    MHEXSwinConfig,
    MHEXViTConfig,
    convert,
)
from hf_mhex.families import family_of
from networks import IMAGES, NAMES, SIGNALS, TEXTS, batch_for, lively, small_config
from plain_networks import save_text


@functools.cache
def network(name, **fields):
    return lively(name, torch.float32, **fields)


def pixels(*shape, fill=0.5, dtype=torch.float32):
    return torch.full(shape, fill, dtype=dtype)


IMAGES_THAT_CANNOT_BE = [
    (pixels(2, 1, 32, 32), ValueError, r"pixel_values must be \[batch, 3, height, width\].*got shape \[2, 1, 32, 32\]"),
    (pixels(3, 32, 32), ValueError, r"pixel_values must be \[batch, 3.*got shape \[3, 32, 32\]"),
    (pixels(0, 3, 32, 32), ValueError, r"at least one image, got shape \[0, 3, 32, 32\]"),
    (pixels(1, 3, 0, 32), ValueError, r"at least one image"),
    (pixels(1, 3, 8, 8, fill=200, dtype=torch.uint8), TypeError, r"must be floats, got torch.uint8; use .*processor"),
    ([[0.5]], TypeError, "pixel_values must be a tensor, got list; use the image processor with return_tensors='pt'"),
    (None, ValueError, "pixel_values must be given"),
]


@pytest.mark.parametrize("given, error, words", IMAGES_THAT_CANNOT_BE)
@pytest.mark.parametrize("name", IMAGES)
def test_images(name, given, error, words):
    model = network(name)
    with pytest.raises(error, match=words):
        model(pixel_values=given)
    with pytest.raises(error, match=words):
        model.generate_saliency(pixel_values=given)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", IMAGES)
def test_pixels_that_are_not_finite(name, value):
    images = batch_for(name)["pixel_values"]
    images[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match="pixel_values must be finite"):
        network(name).generate_saliency(pixel_values=images)


TEXTS_THAT_CANNOT_BE = [
    ({"input_ids": torch.ones(1, 41, dtype=torch.long)}, ValueError, "has 41 tokens, but the model has 40 positions"),
    ({"input_ids": torch.ones(0, 5, dtype=torch.long)}, ValueError, r"at least one row and one token.*\[0, 5\]"),
    ({"input_ids": torch.ones(2, 0, dtype=torch.long)}, ValueError, r"at least one row and one token.*\[2, 0\]"),
    ({"input_ids": torch.ones(5, dtype=torch.long)}, ValueError, r"2 dimensions .*got shape \[5\]"),
    ({"input_ids": torch.ones(1, 5)}, TypeError, "input_ids must be integers, got torch.float32"),
    ({"input_ids": [[5, 6, 7]]}, TypeError, "input_ids must be a tensor, got list; tokenize with return_tensors='pt'"),
    (
        {"input_ids": torch.ones(1, 3, dtype=torch.long), "attention_mask": [[1, 1, 1]]},
        TypeError,
        "attention_mask must be a tensor, got list; use return_tensors='pt'",
    ),
    ({}, ValueError, "exactly one of input_ids and inputs_embeds"),
    (
        {"input_ids": torch.ones(1, 5, dtype=torch.long), "inputs_embeds": torch.ones(1, 5, 32)},
        ValueError,
        "exactly one of input_ids and inputs_embeds",
    ),
    (
        {"input_ids": torch.ones(2, 5, dtype=torch.long), "attention_mask": torch.ones(2, 4, dtype=torch.long)},
        ValueError,
        r"attention_mask must be \[batch, tokens\] = \[2, 5\]",
    ),
    (
        {"input_ids": torch.ones(2, 5, dtype=torch.long), "attention_mask": torch.ones(2, 1, 5, 5, dtype=torch.bool)},
        ValueError,
        r"so that padding can be left out of the pooling; got torch.bool with shape \[2, 1, 5, 5\]",
    ),
]


@pytest.mark.parametrize("given, error, words", TEXTS_THAT_CANNOT_BE)
@pytest.mark.parametrize("name", TEXTS)
def test_texts(name, given, error, words):
    model = network(name)
    with pytest.raises(error, match=words):
        model(**given)
    with pytest.raises(error, match=words):
        model.generate_saliency(**given)


@pytest.mark.parametrize("token", [-1, 120])
def test_tokens_outside_the_vocabulary(token):
    with pytest.raises(ValueError, match=r"input_ids must lie in \[0, 119\].*own tokenizer"):
        network("bert").generate_saliency(input_ids=torch.tensor([[5, token, 3]]))


def test_embeddings_that_are_not_finite():
    with pytest.raises(ValueError, match="inputs_embeds must be finite"):
        network("bert").generate_saliency(inputs_embeds=torch.full((1, 3, 32), torch.nan))


OPTIONS = [
    ({"target": 4}, ValueError, r"target must lie in \[0, 3\], got 4"),
    ({"target": -1}, ValueError, r"target must lie in \[0, 3\], got -1"),
    ({"target": [0, 1]}, ValueError, r"one class index or 4, one a row; got shape \[2\]"),
    ({"target": torch.tensor([0.0, 1, 2, 3])}, TypeError, "target must be integers, got torch.float32"),
    ({"target": True}, TypeError, "target must be None, a class index"),
    ({"target": "each"}, TypeError, "target must be None, a class index, 4 of them or 'all', got 'each'"),
    ({"blocks": [3]}, ValueError, r"blocks must lie in \[-3, 2\], at least one; got \[3\]"),
    ({"blocks": [-4]}, ValueError, r"blocks must lie in \[-3, 2\]"),
    ({"blocks": []}, ValueError, r"blocks must lie in .* at least one; got \[\]"),
    ({"blocks": [1, -2]}, ValueError, r"must not name a block twice, got \[1, -2\]"),
    ({"blocks": "all"}, TypeError, "blocks must be None or integers, got 'all'"),
    ({"blocks": [0.5]}, TypeError, "blocks must be None or integers"),
    ({"contrast": "worst"}, ValueError, "contrast must be None, 'mean'.*got 'worst'"),
    ({"contrast": 1, "target": 1}, ValueError, "contrast=1 is the target 1 itself.*name another label, or None"),
    ({"contrast": True}, ValueError, "contrast must be None, 'mean'.*got True"),
    ({"contrast": 4}, ValueError, r"class index in \[0, 3\]; got 4"),
    ({"contrast": -1}, ValueError, r"class index in \[0, 3\]; got -1"),
    ({"decay": 1.5}, ValueError, r"decay must be None or lie in \[0, 1\], got 1.5"),
    ({"decay": float("nan")}, ValueError, "decay must be None or lie in"),
    ({"decay": "0.5"}, ValueError, "decay must be None or lie in .* got '0.5'"),
    ({"normalize": "max"}, ValueError, "normalize must be None, 'minmax' or 'percentile'; got 'max'"),
]


PAPER = [
    ({"mode": "gradient"}, ValueError, "mode must be one of 'cam', 'contribution'; got 'gradient'"),
    ({"sign": "negative"}, ValueError, "sign must be one of 'signed', 'positive'; got 'negative'"),
    ({"decay": None}, ValueError, r"decay must lie in \[0, 1\], got None"),
    ({"sharpness": 1.2}, ValueError, r"sharpness must be .* in \[0, 1\], got 1.2"),
    ({"sharpness": (0.1, 0.2, 0.3)}, ValueError, "sharpness must be a number or a"),
]


@pytest.mark.parametrize("options, error, words", OPTIONS)
def test_options(options, error, words):
    model, inputs = network("bert"), batch_for("bert")
    for explain in (model.generate_saliency, model.paper_saliency):
        with pytest.raises(error, match=words):
            explain(**inputs, **options)


@pytest.mark.parametrize("options, error, words", PAPER)
def test_paper_options(options, error, words):
    with pytest.raises(error, match=words):
        network("bert").paper_saliency(**batch_for("bert"), **options)


@pytest.mark.parametrize("integers", [range(2), np.array([0, 1]), torch.tensor([0, 1]), [np.int64(0), np.int64(1)]])
def test_integers_of_any_kind_are_taken(integers):
    model, inputs = network("bert"), batch_for("bert", batch=2)
    expected = model.generate_saliency(**inputs, blocks=[0, 1], target=[0, 1]).saliency
    assert torch.equal(model.generate_saliency(**inputs, blocks=integers, target=integers).saliency, expected)
    one = model.generate_saliency(**inputs, blocks=np.int64(1), target=np.int64(2)).saliency
    assert torch.equal(one, model.generate_saliency(**inputs, blocks=[1], target=2).saliency)
    lead = model.generate_saliency(**inputs, target=2, contrast=np.int64(1)).saliency
    assert torch.equal(lead, model.generate_saliency(**inputs, target=2, contrast=1).saliency)


MISSPELT = [
    ("generate_saliency", "contrats", "contrast"),
    ("generate_saliency", "traget", "target"),
    ("generate_saliency", "atention_mask", "attention_mask"),
    ("paper_saliency", "sharpnes", "sharpness"),
    ("paper_saliency", "block", "blocks"),
    ("forward", "lables", "labels"),
    ("forward", "output_hiddenstates", "output_hidden_states"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method, given, meant", MISSPELT)
def test_a_misspelt_keyword_is_refused_naming_the_closest(name, method, given, meant):
    if meant == "attention_mask" and name in IMAGES:
        given, meant = "pixel_value", "pixel_values"
    if meant == "attention_mask" and name in SIGNALS:
        given, meant = "input_value", "input_values"
    words = f"'{given}' is no argument of MHEX.*{method}; did you mean '{meant}'"
    with pytest.raises(TypeError, match=words):
        getattr(network(name), method)(**batch_for(name), **{given: None})


@pytest.mark.parametrize("given", ["mode", "sign", "sharpness"])
def test_what_does_not_add_up_is_no_option_of_the_exact_saliency(given):
    with pytest.raises(TypeError, match=f"'{given}' is no argument of .*generate_saliency"):
        network("bert").generate_saliency(**batch_for("bert"), **{given: "cam"})
    with pytest.raises(TypeError, match="'rollout' is no argument of .*paper_saliency"):
        network("bert").paper_saliency(**batch_for("bert"), rollout=True)


def test_contrast_needs_a_second_label():
    with pytest.raises(ValueError, match="contrast='mean' needs another class, but the model has one label; use None"):
        network("bert", num_labels=1).generate_saliency(**batch_for("bert"), contrast="mean")


CONFIGS = [
    (MHEXResNetConfig, {"architecture": "resnet19"}, "architecture='resnet19' is not registered in timm .*resnet18"),
    (MHEXResNetConfig, {"architecture": "vit_tiny_patch16_224"}, "takes its ResNet"),
    (MHEXResNetConfig, {"architecture": "resnetv2_50"}, "is timm's ResNetV2; MHEXResNetModel takes its ResNet"),
    (MHEXResNetConfig, {"architecture_kwargs": {"checkpoint_path": "x"}}, "architecture_kwargs must be among"),
    (MHEXResNetConfig, {"architecture_kwargs": {"layers": [1, 2]}}, "'layers'.*four positive ints"),
    (MHEXResNetConfig, {"architecture_kwargs": {"output_stride": 3}}, "cannot be made with architecture_kwargs"),
    (MHEXResNetConfig, {"num_channels": 0}, "num_channels must be an int of at least 1, got 0"),
    (MHEXResNetConfig, {"gate_scale": 0}, r"gate_scale must lie in \[1e-06, inf\], got 0"),
    (MHEXResNetConfig, {"gate_scale": "2"}, "gate_scale must be a number, got '2'"),
    (MHEXBertConfig, {"head_decay": 1.5}, r"head_decay must lie in \[0, 1\], got 1.5"),
    (MHEXBertConfig, {"deep_supervision_weight": -1}, "deep_supervision_weight must lie in .*, got -1"),
    (MHEXBertConfig, {"label_smoothing": 1}, "label_smoothing must lie in .*, got 1"),
    (MHEXBertConfig, {"binary_share": 2}, r"binary_share must lie in \[0, 1\], got 2"),
    (MHEXResNetConfig, {"instance_share": 1.5}, r"instance_share must lie in \[0, 1\], got 1.5"),
    (MHEXBertConfig, {"class_weights": [1.0, 2.0, 3.0]}, "class_weights must be 2 numbers of at least 0"),
    (MHEXBertConfig, {"class_weights": [1.0, -2.0]}, "class_weights must be 2 numbers of at least 0"),
    (MHEXRobertaConfig, {"chunk_size_feed_forward": 4}, "chunk_size_feed_forward must be 0, got 4"),
    (MHEXViTConfig, {"architecture": "resnet18"}, "is timm's ResNet; MHEXViTModel takes its VisionTransformer"),
    (MHEXSwinConfig, {"architecture": 3}, "architecture must be the name of a timm network, got 3"),
    (MHEXConvNeXtConfig, {"architecture_kwargs": {"dim": [8]}}, "architecture_kwargs must be among .*'dims'.*'dim'"),
    (MHEXResNetConfig, {"rectified": 1}, "rectified must be True or False, got 1"),
    (MHEXBertConfig, {"chunk_size_feed_forward": 4}, "chunk_size_feed_forward must be 0, got 4"),
    (MHEXBertConfig, {"is_decoder": True}, "MHEX-BERT is an encoder"),
    (
        MHEXBertConfig,
        {"problem_type": "multi_label"},
        "problem_type.* (got|value) 'multi_label'",
    ),
]


@pytest.mark.parametrize(
    "name, fields, size, words",
    [
        ("vit", {"dynamic_img_size": False}, (48, 40), "must be 48 x 48 pixels, got 48 x 40; .*dynamic_img_size=True"),
        ("swin", {"strict_img_size": True}, (40, 48), "must be 48 x 48 pixels, got 40 x 48; .*strict_img_size=False"),
        ("vit", {}, (48, 44), "must have sides that 8 and 8 divide, the patch's, got 48 x 44"),
        ("swin", {}, (46, 48), "must have sides that 4 and 4 divide, the patch's, got 46 x 48"),
    ],
)
def test_sizes_that_patches_do_not_take_are_named(name, fields, size, words):
    config = small_config(name)
    config.architecture_kwargs = {**config.architecture_kwargs, **fields}
    model = family_of(config.model_type).classifier(config).eval()
    for call in (model, model.generate_saliency):
        with pytest.raises(ValueError, match=words):
            call(pixel_values=torch.zeros(1, 3, *size))


@pytest.mark.parametrize("config_class, fields, words", CONFIGS)
def test_configs(config_class, fields, words):
    """Fields that transformers has too may be refused by itself, as its first releases of typed fields do."""
    with pytest.raises((ValueError, TypeError, StrictDataclassError), match=words):
        family_of(config_class.model_type).classifier(config_class(**fields))


def test_an_integer_is_as_good_as_a_float_in_a_config():
    assert MHEXBertConfig(gate_scale=1, head_decay=0).gate_scale == 1


def test_a_field_overridden_while_loading_is_checked_too(tmp_path):
    network("bert").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="chunk_size_feed_forward must be 0, got 4"):
        type(network("bert")).from_pretrained(tmp_path, chunk_size_feed_forward=4)


def test_modernbert_refuses_unpadded_attention(tmp_path):
    """Also where the kernels are installed; the source itself takes them."""
    save_text("modernbert", tmp_path)
    for attention in ("flash_attention_2", "flash_attention_3"):
        number = attention[-1]
        with pytest.raises(ValueError, match=f"MHEXModernBert.* does not support Flash Attention {number}"):
            convert(tmp_path, num_labels=2, attn_implementation=attention)
    model = convert(tmp_path, num_labels=2)
    with pytest.raises(ValueError, match="MHEXModernBert.* does not support Flash Attention 2"):
        model.set_attn_implementation("flash_attention_2")
