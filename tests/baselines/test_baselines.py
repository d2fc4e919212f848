"""Baselines through their libraries: what their definitions say, on every family, with the model left as it was."""

import pytest
import timm
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig

from hf_mhex import baselines
from hf_mhex.baselines import image_methods, text_methods
from hf_mhex.baselines.attention import attention_rollout
from hf_mhex.baselines.cams import LAST_BLOCK_CAM, plain_cam
from hf_mhex.baselines.networks import PixelsToLogits, as_maps, private_copy, target_layer
from hf_mhex.baselines.taylor import taylor_terms
from hf_mhex.evaluation import impute
from networks import FIELDS, IMAGES, TEXTS, batch_for, lively, lively_bert, lively_resnet

pytest.importorskip("captum", reason="the methods compared with are in the extra bench: make test-extras")
pytest.importorskip("pytorch_grad_cam", reason="the methods compared with are in the extra bench: make test-extras")
IMAGE = {method.name: method for method in [*image_methods(), LAST_BLOCK_CAM]}
TEXT = {method.name: method for method in text_methods()}
FAST = {"LIME": {"samples": 60}, "SHAP partition": {"evaluations": 60}, "occlusion": {"cells": 4}}
FAST["T-Explainer"] = {"cells": 3}
QUICK = ("Grad-CAM", "LayerCAM", "CAM of the last block", "input x gradient")  # asked on every family of images
REST = ("resnet", "vit")  # families that all methods are asked on


def cases(names):
    """Pairs of a family and a method; shap's are slow, since its import alone takes long."""
    pairs = ((family, name) for family in names for name in names[family])
    return [pytest.param(*pair, marks=[pytest.mark.slow] * pair[1].startswith("SHAP")) for pair in pairs]


def images(channels=2, size=6, rows=3):
    return torch.randn(rows, channels, size, size, generator=torch.Generator().manual_seed(0))


def texts(name="bert", rows=3):
    """A batch of a family, whose tokens below 5 are special."""
    return {**batch_for(name, batch=rows), "mask_id": 9, "pad_id": 0, "special_ids": (0, 1, 2)}


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


@pytest.mark.parametrize("name", ["input x gradient", "integrated gradients", "DeepLift"])
def test_additive_methods_are_exact_on_a_linear_model(name):
    torch.manual_seed(0)
    model, pixels, target = LinearImages(), images(), torch.tensor([0, 2, 1])
    assert torch.allclose(IMAGE[name].call(model, pixels, target), model.terms(pixels, target), atol=1e-5)


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


def test_t_explainer_takes_centred_differences():
    weights = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    terms, _ = taylor_terms(lambda points: points @ weights, 3)
    assert torch.allclose(terms, weights)
    terms, step = taylor_terms(lambda points: (points**3).sum(1), 3)
    assert torch.allclose(terms, torch.tensor(3 + step**2, dtype=torch.float64).expand(3)) and 0.01 <= step <= 0.5
    assert taylor_terms(lambda points: points.sum(1), 0)[0].shape == (0,)


def test_cam_of_a_plain_network_adds_up_to_the_logit_without_bias():
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=4, layers=[1, 1, 1, 1], channels=[8, 8, 8, 16]).eval()
    nn.init.normal_(model.fc.weight)
    pixels, target = images(3, 64), torch.tensor([0, 3, 2])
    found = plain_cam(model, pixels, target)
    logits = model(pixels) - model.fc.bias
    assert torch.allclose(found.mean((1, 2)) * 4, logits.gather(1, target[:, None])[:, 0], atol=1e-4)
    with pytest.raises(ValueError, match="linear layer"):
        plain_cam(lively_resnet(torch.float32), pixels, target)


@pytest.mark.parametrize("rectified", [False, True])
def test_grad_cam_of_the_last_stage_is_the_last_heads_positive_map(rectified):
    """The head is linear in the mean of what it reads, so gradients weigh channels as W_eq does (Selvaraju 2017)."""
    model = lively_resnet(torch.float32, rectified=rectified, head_decay=0.0)
    pixels, target = images(3, 64), torch.tensor([0, 3, 2])
    found = IMAGE["Grad-CAM"].call(model, pixels, target)
    own = model.generate_saliency(pixel_values=pixels, target=target, blocks=[-1]).block_saliency[0].clamp(min=0)
    exact = nn.functional.interpolate(own[:, None], (64, 64), mode="bilinear")[:, 0]
    exact = exact / exact.amax((1, 2), keepdim=True).clamp(min=1e-9)
    assert (found - exact).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("family", "name"), cases({family: sorted(IMAGE) if family in REST else QUICK for family in IMAGES})
)
def test_image_methods_give_finite_maps_and_leave_the_model_alone(family, name):
    model, pixels = lively(family, torch.float32), images(3, 64, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state, kept = torch.get_rng_state(), pixels.clone()
    found = IMAGE[name].call(model, pixels, torch.tensor([0, 3]), **FAST.get(name, {}))
    assert found.shape == (2, 64, 64) and found.dtype == torch.float32 and found.isfinite().all()
    assert found.std() > 0 and not found.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state) and torch.equal(pixels, kept)


def plain_twin(family):
    """timm's network of a family, with a classifier."""
    fields = FIELDS[family]
    return timm.create_model(fields["architecture"], num_classes=4, **fields["architecture_kwargs"]).eval()


@pytest.mark.parametrize("family", IMAGES)
@pytest.mark.parametrize("stage", [-1, -2])
@pytest.mark.parametrize("make", [lambda family: lively(family, torch.float32), plain_twin], ids=["mhex", "plain"])
def test_layer_methods_see_a_stage_of_every_family_and_of_its_plain_twin(make, stage, family):
    model, pixels, shown = make(family), images(3, 64, 2), []
    network = PixelsToLogits(private_copy(model))
    target_layer(network, stage).register_forward_hook(lambda _module, _args, output: shown.append(output))
    assert torch.allclose(network(pixels), PixelsToLogits(model)(pixels), atol=1e-5)  # the view changes nothing
    (laid_out,) = map(as_maps(network, pixels), shown)
    rows, channels, height, width = laid_out.shape
    assert rows == 2 and channels in shown[0].shape and height == width >= 2
    found = IMAGE["LayerCAM"].call(model, pixels, torch.tensor([1, 2]), stage=stage)
    assert found.shape == (2, 64, 64) and found.isfinite().all() and found.max() > 0


class Logits(nn.Module):
    """What users of grad-cam and captum wrap a model in."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        return self.model(*inputs).logits


@pytest.mark.parametrize("family", ["resnet", "convnext"])
def test_a_block_can_be_the_layer_of_grad_cam_and_torchcam(family):
    """As their users write it; not the last block, whose output nothing reads."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, pixels = lively(family, torch.float32), images(3, 64, 2)
    layer = model.base_model.blocks[-2]
    with GradCAM(model=Logits(model), target_layers=[layer]) as cam:
        found = cam(input_tensor=pixels, targets=[ClassifierOutputTarget(1), ClassifierOutputTarget(2)])
    assert found.shape == (2, 64, 64) and found.std() > 0
    methods = pytest.importorskip("torchcam.methods", reason="torch-cam is in the extra bench: make test-extras")
    network = Logits(model)
    with methods.LayerCAM(network, layer) as extractor:
        (found,) = extractor([1, 2], network(pixels))
    assert found.isfinite().all() and found.std() > 0


@pytest.mark.parametrize("family", ["resnet", "convnext"])
def test_the_feature_map_of_the_last_block_is_a_layer(family):
    """Where Grad-CAM's users would write `layer4[-1]`; integrated gradients of it add up to the last head's change."""
    from captum.attr import LayerIntegratedGradients
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, pixels = lively(family, torch.float32), images(3, 64, 2)
    network, layer = Logits(model), model.base_model.blocks[-1].feature_map
    with GradCAM(model=network, target_layers=[layer]) as cam:
        found = cam(input_tensor=pixels, targets=[ClassifierOutputTarget(1), ClassifierOutputTarget(2)])
    assert found.shape == (2, 64, 64) and found.std() > 0
    explainer = LayerIntegratedGradients(network, layer)
    terms = explainer.attribute(pixels, torch.zeros_like(pixels), target=1, n_steps=200)
    with torch.no_grad():
        last = [model(values).block_logits[:, -1, 1] for values in (pixels, torch.zeros_like(pixels))]
    torch.testing.assert_close(terms.flatten(1).sum(1).float(), last[0] - last[1], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("family", TEXTS)
def test_integrated_gradients_of_a_layer_add_up_to_the_change_of_the_logit(family):
    """captum's LayerIntegratedGradients on the embeddings and on a block, as its users write it."""
    from captum.attr import LayerIntegratedGradients

    model, inputs = lively(family, torch.float32), texts(family, 1)
    network, ids, mask = Logits(model), inputs["input_ids"], inputs["attention_mask"]
    empty = torch.full_like(ids, 9)
    with torch.no_grad():
        change = float((network(ids, mask) - network(empty, mask))[0, 2])
    for layer in (model.get_input_embeddings(), model.base_model.blocks[0]):
        explainer = LayerIntegratedGradients(network, layer)
        found = explainer.attribute(ids, empty, target=2, additional_forward_args=(mask,), n_steps=200)
        assert found.shape[:2] == ids.shape and found.isfinite().all() and found.any()
        if layer is model.get_input_embeddings():  # the block's own head has read it by then
            assert float(found.sum()) == pytest.approx(change, rel=0.1, abs=0.1)


@pytest.mark.parametrize(("family", "name"), cases(dict.fromkeys(TEXTS, sorted(TEXT))))
def test_text_methods_give_finite_maps_with_nothing_on_padding(family, name):
    model, inputs = lively(family, torch.float32), texts(family, 4)
    before = model.config._attn_implementation
    given = {key: value for key, value in FAST.get(name, {}).items() if key != "cells"}
    found = TEXT[name].call(model, inputs, torch.tensor([0, 3, 1, 2]), **given)
    assert found.shape == (4, 13) and found.isfinite().all() and not found.requires_grad
    assert not found[inputs["attention_mask"] == 0].any() and found[0].std() > 0
    assert model.config._attn_implementation == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attention_of_a_plain_network_can_be_read():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=120, num_labels=3, **sizes)
    plain, inputs = AutoModelForSequenceClassification.from_config(config).eval(), texts()
    for name in ("attention rollout", "attention x gradient", "integrated gradients"):
        found = TEXT[name].call(plain, inputs, torch.zeros(3).long())
        assert found.shape == inputs["input_ids"].shape and found.isfinite().all() and found.any()
        assert not found[inputs["attention_mask"] == 0].any()


def test_integrated_gradients_add_up_to_the_difference_from_the_empty_text():
    model, inputs, target = lively_bert(torch.float32), texts(rows=2), torch.tensor([0, 3])
    found = TEXT["integrated gradients"].call(model, inputs, target, baseline="mask", n_steps=400)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask).logits
        empty = model(input_ids=torch.where(ids < 3, ids, 9), attention_mask=mask).logits
    expected = (whole - empty).gather(1, target[:, None])[:, 0]
    assert torch.allclose(found.sum(1), expected, rtol=0.05, atol=0.05)


def test_rollout_is_a_distribution_and_blind_to_the_class():
    model, inputs = lively_bert(torch.float32), texts()
    found = attention_rollout(model, inputs)
    assert torch.allclose(found.sum(1), torch.ones(3), atol=1e-5) and (found >= 0).all()
    assert torch.equal(found, TEXT["attention rollout"].call(model, inputs, torch.tensor([1, 1, 1])))


def test_texts_of_one_token_and_of_none_are_explained():
    model = lively_bert(torch.float32)
    inputs = {"input_ids": torch.tensor([[5, 0], [0, 0]]), "attention_mask": torch.ones(2, 2, dtype=torch.long)}
    inputs |= {"mask_id": 9, "pad_id": 0, "special_ids": (0,)}
    for name in [name for name in TEXT if not name.startswith("SHAP")]:
        found = TEXT[name].call(model, inputs, torch.tensor([0, 1]))
        assert found.shape == (2, 2) and found.isfinite().all(), name


def test_a_missing_library_is_named_with_its_cure(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr(baselines, "import_module", absent)
    with pytest.raises(RuntimeError, match=r"shap is not installed; pip install 'hf-mhex\[bench\]'"):
        baselines.library("shap.maskers")


def test_our_imputation_is_that_of_grad_cams_road():
    """Without noise, to the accuracy of the solvers."""
    road = pytest.importorskip(
        "pytorch_grad_cam.metrics.road", reason="grad-cam is in the extra bench: make test-extras"
    )
    image = images(3, 12, 1)[0]
    keep = torch.rand(12, 12, generator=torch.Generator().manual_seed(2)) > 0.6
    theirs = road.NoisyLinearImputer(noise=0.0)(image, keep.float())
    assert torch.allclose(impute(image, keep[None], noise=0.0)[0], theirs.float(), atol=1e-4)
