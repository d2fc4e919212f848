"""Vision transformers of every kind: transformers' own checkpoints, no class token, patches taken out of attention."""

import pytest
import timm
import torch
from PIL import Image
from transformers import (
    CONFIG_MAPPING,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    BitImageProcessor,
    DeiTImageProcessor,
    ViTImageProcessor,
)

import hf_mhex
from networks import VIT, image_batch, lively, small_config
from plain_networks import scatter

FIELDS = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.2,
}
KINDS = {
    "vit": {"intermediate_size": 40, "hidden_act": "gelu_new"},
    "deit": {"intermediate_size": 40, "qkv_bias": False},
    "dinov2": {"layerscale_value": 0.7},
    "dinov2_with_registers": {"num_register_tokens": 3, "layerscale_value": 0.7},
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_transformers_own_checkpoints_are_taken(tmp_path, kind):
    torch.manual_seed(0)
    architectures = ["DeiTForImageClassification"] if kind == "deit" else None  # it has two classifiers
    config = CONFIG_MAPPING[kind](**FIELDS | KINDS[kind], architectures=architectures)
    plain = scatter(AutoModelForImageClassification.from_config(config)).eval()
    for name, weight in plain.named_parameters():
        if "token" in name or "position" in name:
            weight.normal_()
    plain.save_pretrained(tmp_path)
    body = AutoModel.from_pretrained(tmp_path).eval()
    model, report = hf_mhex.convert(tmp_path, num_labels=4, output_loading_info=True)
    inputs = image_batch(size=(32, 32))
    expected, found = body(**inputs).last_hidden_state, model.base_model(**inputs).last_hidden_state
    if kind == "dinov2_with_registers":  # both orders are class token, registers, patches
        assert found.shape[1] == 1 + 3 + 16
    assert expected.std() > 0.1 and (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert any("classifier" in key for key in report.unused)
    assert all(".gate." in key or key.startswith("heads.") for key in report.new)
    model.save_pretrained(tmp_path / "ours")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "ours")
    assert again(**inputs).logits.equal(model(**inputs).logits)


@pytest.mark.parametrize("given", [{}, {"num_labels": 4}, {"id2label": {0: "x"}}, {"label2id": {"y": 0, "z": 1}}])
def test_labels_are_those_of_the_source_unless_they_are_given(tmp_path, given):
    config = CONFIG_MAPPING["vit"](**FIELDS, id2label=dict(enumerate("abc")), problem_type="multi_label_classification")
    AutoModel.from_config(config).save_pretrained(tmp_path)
    found = hf_mhex.convert(tmp_path, **given).config
    expected = {"num_labels": [f"LABEL_{i}" for i in range(4)], "id2label": ["x"], "label2id": ["y", "z"]}
    assert list(found.id2label.values()) == expected.get(next(iter(given), None), ["a", "b", "c"])
    assert found.label2id == {name: index for index, name in found.id2label.items()}
    assert found.problem_type == (None if given else "multi_label_classification")  # of other labels it says nothing


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SQUARE = {"crop_size": {"height": 32, "width": 32}}
PROCESSORS = {
    "squashed": ("vit", ViTImageProcessor(size={"height": 32, "width": 32}, **IMAGENET)),
    "squashed and cropped": ("deit", DeiTImageProcessor(size={"height": 37, "width": 37}, **SQUARE, **IMAGENET)),
    "cropped": ("dinov2", BitImageProcessor(size={"shortest_edge": 39}, **SQUARE, **IMAGENET)),
    "smaller": (
        "dinov2",
        BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 24, "width": 24}, **IMAGENET),
    ),
    "smaller, with registers": (
        "dinov2_with_registers",
        BitImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, resample=2),
    ),
    "from -1 to 1": ("vit", ViTImageProcessor(size={"height": 32, "width": 32}, rescale_factor=1 / 127.5)),
    "not normalised": ("vit", ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False)),
}


def save_plain(kind, folder, **fields):
    """transformers' plain body of that kind, with weights that say something."""
    torch.manual_seed(0)
    plain = scatter(AutoModel.from_config(CONFIG_MAPPING[kind](**FIELDS | KINDS[kind] | fields))).eval()
    for name, weight in plain.named_parameters():
        if "token" in name or "position" in name:
            weight.data.normal_()
    plain.save_pretrained(folder)


@pytest.mark.parametrize("case", PROCESSORS)
@torch.no_grad()
def test_model_and_processor_together_compute_what_the_source_s_do(tmp_path, case):
    kind, processor = PROCESSORS[case]
    save_plain(kind, tmp_path)
    processor.save_pretrained(tmp_path)
    picture = Image.effect_mandelbrot((70, 50), (-2, -1.5, 1, 1.5), 80).convert("RGB")
    inputs = AutoImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="pt")
    expected = AutoModel.from_pretrained(tmp_path).eval()(**inputs).last_hidden_state
    model = hf_mhex.convert(tmp_path, num_labels=4)
    pixels = hf_mhex.image_processor_for(model.config)(picture, return_tensors="pt")["pixel_values"]
    assert (pixels - inputs["pixel_values"]).abs().max() <= 1e-5
    found = model.base_model(pixel_values=pixels).last_hidden_state
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_what_a_processor_leaves_open_comes_from_the_model(tmp_path):
    """Pictures that are not cut to one size are made of the model's, normalised as the source does."""
    save_plain("dinov2", tmp_path)
    BitImageProcessor(do_center_crop=False, image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
    processor = hf_mhex.image_processor_for(hf_mhex.convert(tmp_path).config)
    assert processor.crop_size == {"height": 32, "width": 32}
    assert processor.image_mean == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("size", [32, 40])
@torch.no_grad()
def test_a_size_that_is_asked_for_comes_before_the_processor_s(tmp_path, size):
    save_plain("dinov2", tmp_path)
    values = {"crop_size": {"height": 24, "width": 24}, "image_mean": [0.1, 0.2, 0.3]}
    BitImageProcessor(size={"shortest_edge": 28}, **values).save_pretrained(tmp_path)
    model = hf_mhex.convert(tmp_path, architecture_kwargs={"img_size": size})
    processor = hf_mhex.image_processor_for(model.config)
    assert processor.crop_size == {"height": size, "width": size}
    assert processor.image_mean == pytest.approx([0.1, 0.2, 0.3])
    inputs = image_batch(size=(size, size))
    expected = AutoModel.from_pretrained(tmp_path).eval()(**inputs).last_hidden_state
    found = model.base_model(**inputs).last_hidden_state
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_images_that_are_not_square(tmp_path):
    save_plain("vit", tmp_path, image_size=[16, 32])
    model = hf_mhex.convert(tmp_path)
    processor = hf_mhex.image_processor_for(model.config)
    inputs = processor(Image.new("RGB", (60, 50)), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 16, 32) and model(**inputs).logits.isfinite().all()
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    said = r"positions for images of \[16, 32\], not \[32, 32\] .*architecture_kwargs=\{'img_size': \[16, 32\]\}"
    with pytest.raises(ValueError, match=said):
        hf_mhex.convert(tmp_path)


def test_a_gated_feed_forward_branch_is_refused_by_name(tmp_path):
    fields = FIELDS | {"use_swiglu_ffn": True}
    AutoModel.from_config(CONFIG_MAPPING["dinov2"](**fields)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="use_swiglu_ffn=True"):
        hf_mhex.convert(tmp_path, num_labels=4)


@torch.no_grad()
def test_no_class_token():
    arguments = VIT | {"reg_tokens": 0, "class_token": False}
    model = hf_mhex.convert("vit_tiny_patch16_224", 3, architecture_kwargs=arguments)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool="avg", **arguments).eval()
    model.base_model.trunk.load_state_dict(plain.state_dict(), strict=False)
    inputs = image_batch(size=(48, 48))
    assert model.base_model(**inputs).last_hidden_state.equal(plain.forward_features(inputs["pixel_values"]))


@pytest.mark.parametrize("rollout", [False, True])
def test_masked_patches_are_not_there(rollout):
    model, inputs = lively("vit"), image_batch(size=(32, 48), dtype=torch.float64)
    mask = torch.ones(3, 4, 6, dtype=torch.bool)
    mask[0, :, 3:], mask[1, 1] = False, False
    options = {"attention_mask": mask, "rollout": rollout, "target": "all"}
    found = model.generate_saliency(**inputs, **options)
    for maps in found.block_saliency:
        assert (maps * ~mask[:, None]).abs().max() <= 1e-12 and maps.abs().max() > 0
    torch.testing.assert_close(found.explained, found.logits)
    torch.testing.assert_close(found.saliency.flatten(2).sum(-1), found.logits)
    other = inputs["pixel_values"].clone()
    other[0, :, :, 24:] = 7.0
    other[1, :, 8:16] = -3.0
    changed = model.generate_saliency(pixel_values=other, **options)
    torch.testing.assert_close(changed.logits, found.logits, rtol=1e-10, atol=1e-10)
    whole = model.generate_saliency(**inputs, rollout=rollout)
    assert (whole.logits - found.logits)[:2].abs().max() > 1e-3
    torch.testing.assert_close(whole.logits[2], found.logits[2], rtol=1e-10, atol=1e-10)
    flat = model.generate_saliency(**inputs, attention_mask=mask.flatten(1).long(), target="all", rollout=rollout)
    assert flat.saliency.equal(found.saliency)


def test_an_image_without_patches_says_nothing():
    for tokens in ({}, {"class_token": False, "reg_tokens": 0}):
        model = lively("vit", architecture_kwargs=VIT | tokens)
        inputs = image_batch(size=(32, 48), dtype=torch.float64)
        found = model.generate_saliency(**inputs, attention_mask=torch.zeros(3, 24))
        assert not found.logits.any() and not found.saliency.any()


def test_masks_that_cannot_be_are_named():
    model, inputs = lively("vit", torch.float32), image_batch(size=(32, 48))
    with pytest.raises(ValueError, match=r"attention_mask must be \[batch, patches\] = \[3, 24\]"):
        model(**inputs, attention_mask=torch.ones(3, 25))
    with pytest.raises(TypeError, match="attention_mask must be a tensor, got list"):
        model(**inputs, attention_mask=[1, 0])
    with pytest.raises(ValueError, match="attention_mask takes tokens out of attention, which MHEXResNetModel cannot"):
        lively("resnet", torch.float32).base_model(**image_batch(), attention_mask=torch.ones(3, 4))


@pytest.mark.parametrize("eps", [0.0, float("inf"), "1e-6"])
def test_layer_norms_need_a_positive_eps(eps):
    assert small_config("vit", layer_norm_eps=1.0).layer_norm_eps == 1.0
    with pytest.raises(ValueError, match="layer_norm_eps must be None or a positive float"):
        small_config("vit", layer_norm_eps=eps)
