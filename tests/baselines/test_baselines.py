"""Do the baselines, through their libraries, give what their definitions say, and leave the model as it was?"""

import pytest
import torch
from torch import nn
from transformers import BertConfig

from hf_mhex import baselines
from hf_mhex.baselines import image_methods, text_methods
from hf_mhex.baselines.attention import attention_rollout
from hf_mhex.baselines.cams import LAST_BLOCK_CAM, plain_cam
from hf_mhex.baselines.taylor import taylor_terms
from hf_mhex.evaluation import impute
from networks import lively_bert, lively_resnet, text_batch

pytest.importorskip("captum", reason="the methods compared with are in the extra bench: make test-extras")
IMAGE = {method.name: method for method in image_methods()}
TEXT = {method.name: method for method in text_methods()}
FAST = {"LIME": {"samples": 60}, "SHAP partition": {"evaluations": 60}, "occlusion": {"cells": 4}}
FAST["T-Explainer"] = {"cells": 3}


def test_attention_of_a_plain_twin_can_be_read():
    from hf_mhex.training.plain import PlainBert

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    plain = PlainBert(BertConfig(vocab_size=120, num_labels=3, **sizes)).eval()
    inputs = text_batch() | {"mask_id": 9, "pad_id": 0, "special_ids": (0, 1, 2)}
    for name in ("attention rollout", "attention x gradient", "integrated gradients"):
        found = TEXT[name].call(plain, inputs, torch.zeros(len(inputs["input_ids"])).long())
        assert found.shape == inputs["input_ids"].shape and found.isfinite().all() and found.any()
        assert not found[inputs["attention_mask"] == 0].any()


def test_grad_cam_of_the_last_stage_is_the_last_head_s_own_map_where_features_are_rectified():
    """The head is linear in the mean of what it reads, so its gradient weighs the channels as W_eq does."""
    model = lively_resnet(torch.float32, rectified=True, head_decay=0.0)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    target = model(pixel_values=pixels).logits.argmax(-1)
    found = IMAGE["Grad-CAM"].call(model, pixels, target, stage=4)
    own = model.generate_saliency(pixel_values=pixels, target=target, blocks=[-1]).block_saliency[0].clamp(min=0)
    coarse = nn.functional.interpolate(own[:, None], (64, 64), mode="bilinear")[:, 0]
    for ours, theirs in zip(coarse.flatten(1), found.flatten(1)):
        assert torch.corrcoef(torch.stack([ours, theirs]))[0, 1] > 0.98


class LinearImages(nn.Module):
    """Logits that are linear in the pixels: every method that is additive must find weight x pixel."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2 * 6 * 6, 3, bias=False)

    def forward(self, pixel_values):
        return self.fc(pixel_values.flatten(1))

    def terms(self, pixels, target):
        """Weight x pixel, added over channels, [B, H, W]."""
        return (self.fc.weight[target].view_as(pixels) * pixels).sum(1).detach()


def images(channels=2, size=6, rows=3):
    return torch.randn(rows, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["input x gradient", "integrated gradients", "DeepLift"])
def test_additive_methods_are_exact_on_a_linear_model(name):
    torch.manual_seed(0)
    model, pixels, target = LinearImages(), images(), torch.tensor([0, 2, 1])
    found = IMAGE[name].call(model, pixels, target)
    assert torch.allclose(found, model.terms(pixels, target), atol=1e-5)


def test_occlusion_and_t_explainer_find_the_cells_of_a_linear_model():
    torch.manual_seed(0)
    model, pixels, target = LinearImages(), images(), torch.tensor([0, 2, 1])
    cells = model.terms(pixels, target).view(3, 3, 2, 3, 2).sum((2, 4))
    for name in ("occlusion", "T-Explainer"):
        found = IMAGE[name].call(model, pixels, target, cells=3).view(3, 3, 2, 3, 2).sum((2, 4))
        assert torch.allclose(found, cells, atol=1e-4), name


def test_saliency_is_the_size_of_the_gradient():
    torch.manual_seed(0)
    model, pixels = LinearImages(), images()
    found = IMAGE["saliency"].call(model, pixels, torch.tensor([1, 1, 1]))
    assert torch.allclose(found, model.fc.weight[1].view(2, 6, 6).abs().sum(0).expand_as(found))


def test_t_explainer_takes_the_step_that_fits_best():
    weights = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    terms, _ = taylor_terms(lambda points: points @ weights, 3)
    assert torch.allclose(terms, weights)
    terms, step = taylor_terms(lambda points: (points**3).sum(1), 3)
    assert step == 0.01 and torch.allclose(terms, torch.tensor(3.0001, dtype=torch.float64).expand(3))
    staircase, step = taylor_terms(lambda points: (points * 8).round().sum(1), 3)
    assert step == 0.5 and torch.allclose(staircase, torch.tensor(8.0, dtype=torch.float64).expand(3))
    assert taylor_terms(lambda points: points.sum(1), 0)[0].shape == (0,)


def test_cam_of_a_plain_network_adds_up_to_the_logit_without_bias():
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=4, layers=[1, 1, 1, 1], channels=[8, 8, 8, 16]).eval()
    nn.init.normal_(model.fc.weight)
    pixels, target = images(3, 64), torch.tensor([0, 3, 2])
    found = plain_cam(model, pixels, target)
    logits = model(pixels) - model.fc.bias
    assert torch.allclose(found.mean((1, 2)) * 4, logits.gather(1, target[:, None])[:, 0], atol=1e-4)
    with pytest.raises(ValueError, match="linear layer"):
        plain_cam(lively_resnet(torch.float32), pixels, target)


def test_grad_cam_of_the_last_stage_is_the_last_blocks_positive_cam():
    """With global average pooling and a linear read-out the two coincide (Selvaraju et al. 2017)."""
    model = lively_resnet(torch.float32, head_decay=0.0)
    pixels, target = images(3, 64), torch.tensor([0, 3, 2])
    found = IMAGE["Grad-CAM"].call(model, pixels, target)
    answer = model.generate_saliency(pixel_values=pixels, target=target, blocks=[-1])
    exact = nn.functional.interpolate(answer.block_saliency[0].clamp(min=0)[:, None], (64, 64), mode="bilinear")[:, 0]
    exact = exact / exact.amax((1, 2), keepdim=True).clamp(min=1e-9)
    assert (found - exact).abs().mean() < 0.05


def resnet_and_state():
    model = lively_resnet(torch.float32)
    return model, images(3, 48, 2)


@pytest.mark.parametrize("name", sorted([*IMAGE, LAST_BLOCK_CAM.name]))
def test_image_methods_give_finite_maps_and_leave_the_model_alone(name):
    method = IMAGE.get(name, LAST_BLOCK_CAM)
    model, pixels = resnet_and_state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state, kept = torch.get_rng_state(), pixels.clone()
    found = method.call(model, pixels, torch.tensor([0, 3]), **FAST.get(name, {}))
    assert found.shape == (2, 48, 48) and found.dtype == torch.float32 and found.isfinite().all()
    assert found.std() > 0 and not found.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state) and torch.equal(pixels, kept)


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_layer_methods_see_every_stage(stage):
    model, pixels = resnet_and_state()
    found = IMAGE["LayerCAM"].call(model, pixels, torch.tensor([1, 2]), stage=stage)
    assert found.isfinite().all() and found.max() > 0


def texts(rows=3):
    return {**text_batch(rows), "mask_id": 9, "pad_id": 0, "special_ids": (0,)}


@pytest.mark.parametrize("name", sorted(TEXT))
def test_text_methods_give_finite_maps_with_nothing_on_padding(name):
    model, inputs = lively_bert(torch.float32), texts(4)
    before = model.config._attn_implementation
    given = {key: value for key, value in FAST.get(name, {}).items() if key != "cells"}
    found = TEXT[name].call(model, inputs, torch.tensor([0, 3, 1, 2]), **given)
    assert found.shape == (4, 13) and found.isfinite().all() and not found.requires_grad
    assert not found[inputs["attention_mask"] == 0].any() and found[0].std() > 0
    assert model.config._attn_implementation == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_integrated_gradients_add_up_to_the_difference_from_the_empty_text():
    model, inputs, target = lively_bert(torch.float32), texts(2), torch.tensor([0, 3])
    found = TEXT["integrated gradients"].call(model, inputs, target, baseline="mask", n_steps=400)
    with torch.no_grad():
        mask = inputs["attention_mask"]
        whole = model(input_ids=inputs["input_ids"], attention_mask=mask).logits
        special = inputs["input_ids"] == 0
        empty = model(input_ids=torch.where(special, 0, 9), attention_mask=mask).logits
    expected = (whole - empty).gather(1, target[:, None])[:, 0]
    assert torch.allclose(found.sum(1), expected, rtol=0.05, atol=0.05)


def test_rollout_is_a_distribution_and_blind_to_the_class():
    model, inputs = lively_bert(torch.float32), texts(3)
    found = attention_rollout(model, inputs)
    assert torch.allclose(found.sum(1), torch.ones(3), atol=1e-5) and (found >= 0).all()
    other = TEXT["attention rollout"].call(model, inputs, torch.tensor([1, 1, 1]))
    assert torch.equal(found, other)


def test_texts_of_one_token_and_of_none_are_explained():
    model = lively_bert(torch.float32)
    inputs = {"input_ids": torch.tensor([[5, 0], [0, 0]]), "attention_mask": torch.ones(2, 2, dtype=torch.long)}
    inputs |= {"mask_id": 9, "pad_id": 0, "special_ids": (0,)}
    for name, method in TEXT.items():
        found = method.call(model, inputs, torch.tensor([0, 1]))
        assert found.shape == (2, 2) and found.isfinite().all(), name


def test_a_missing_library_is_named_with_its_cure(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(baselines, "import_module", absent)
    with pytest.raises(RuntimeError, match=r"hf-mhex\[bench\]"):
        baselines.library("shap.maskers")


def test_our_imputation_is_that_of_grad_cams_road():
    """Without noise, to the accuracy of the solvers."""
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="grad-cam is in the extra bench")
    image = images(3, 12, 1)[0]
    keep = torch.rand(12, 12, generator=torch.Generator().manual_seed(2)) > 0.6
    theirs = road.NoisyLinearImputer(noise=0.0)(image, keep.float())
    assert torch.allclose(impute(image, keep[None], noise=0.0)[0], theirs.float(), atol=1e-4)
