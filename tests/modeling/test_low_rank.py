"""Gates of low rank: each is the gate of the matrix that its factors make, and holds fewer parameters."""

import pytest
import torch
from transformers import AutoModelForImageClassification

import hf_mhex
from hf_mhex import MHEXResNetConfig, MHEXResNetForImageClassification
from networks import NAMES, RESNET, TEXTS, batch_for, family_named, image_batch, lively, lively_resnet

OPTIONS = [
    ("generate_saliency", {}),
    ("generate_saliency", {"target": "all"}),
    ("generate_saliency", {"contrast": "softmax", "target": 1}),
    ("generate_saliency", {"contrast": "mean", "target": 2, "blocks": [0, -1]}),
    ("paper_saliency", {"mode": "contribution", "sign": "positive", "sharpness": 0.3}),
    ("paper_saliency", {"sharpness": (0.2, 0.4)}),
]


def multiplied_out(low, name):
    """The same classifier with a full W1 in every block."""
    full = lively(name)
    state = low.state_dict()
    for gate in low.base_model.gates:
        if gate.reduce is not None:
            name = next(name for name, weight in low.named_parameters() if weight is gate.weight)
            state[name] = state[name] @ state.pop(name.replace("gate.weight", "gate.reduce.weight"))
    full.load_state_dict(state)
    return full


@pytest.mark.parametrize("name", NAMES)
def test_a_low_rank_gate_is_the_gate_of_its_product(name):
    low = lively(name, gate_rank=5)
    full = multiplied_out(low, name)
    inputs = batch_for(name, torch.float64)
    for method, options in OPTIONS:
        found, expected = (getattr(model, method)(**inputs, **options) for model in (low, full))
        assert found.keys() == expected.keys()
        for key in set(expected) - {"block_saliency"}:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-10, atol=1e-10)
        if method == "generate_saliency":
            sums = found.saliency.flatten(found.explained.ndim).sum(-1)
            torch.testing.assert_close(sums, found.explained)
    for block in range(low.num_blocks):
        matrix = full.heads[block].weight @ full.base_model.gates[block].weight
        torch.testing.assert_close(low.equivalent_matrix(block), matrix, rtol=1e-10, atol=1e-10)


def test_blocks_that_two_factors_would_not_make_smaller_keep_one_matrix():
    model = lively_resnet(gate_rank=8)  # of 8, 12, 16 and 24 channels
    assert [gate.reduce is not None for gate in model.resnet.gates] == [False, False, False, False, True]
    assert sum(weight.numel() for weight in model.resnet.gates[-1].parameters()) == 2 * 8 * 24


def test_a_fresh_low_rank_gate_is_open_learns_and_comes_back_from_its_file(tmp_path):
    config = MHEXResNetConfig(**RESNET, num_labels=3, gate_rank=4)
    torch.manual_seed(0)
    model = MHEXResNetForImageClassification(config)
    gates = model.resnet.gates
    assert all((gate.weight == 0).all() for gate in gates)
    assert all(gate.reduce is None or gate.reduce.weight.abs().min() > 0 for gate in gates)
    model(**image_batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(gate.weight.grad.abs().max() > 0 for gate in gates)
    model.eval().save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert again.config.gate_rank == 4
    assert again(**image_batch()).logits.equal(model(**image_batch()).logits)


def test_a_fresh_classifier_around_a_body_starts_with_open_gates(tmp_path):
    from timm import create_model

    from hf_mhex import from_timm

    model = from_timm("resnet18", num_labels=3, gate_rank=16).eval()
    torch.manual_seed(1)
    plain = create_model("resnet18", num_classes=0, global_pool="").eval()
    model.resnet.trunk.load_state_dict(plain.state_dict(), strict=False)
    pixels = image_batch(size=(64, 64))["pixel_values"]
    assert model.resnet(pixels).last_hidden_state.equal(plain(pixels))
    assert sum(weight.numel() for gate in model.resnet.gates for weight in gate.parameters()) == sum(
        min(channels * channels, 2 * 16 * channels) for channels in (64, 64, 128, 128, 256, 256, 512, 512)
    )


@pytest.mark.parametrize("rank", [0, -1, 2.0, True, "4"])
def test_a_rank_that_cannot_be_is_named(rank):
    with pytest.raises(ValueError, match="gate_rank must be None or an int of at least 1"):
        MHEXResNetConfig(gate_rank=rank)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "seresnet50"])
def test_by_default_no_resnet_grows_by_more_than_15_percent(architecture):
    _within_15_percent(hf_mhex.MHEXResNetForImageClassification, {"architecture": architecture})


@pytest.mark.parametrize(
    "name, fields",
    [
        ("convnext", {"architecture": "convnext_tiny"}),
        ("convnext", {"architecture": "convnextv2_base"}),
        ("vit", {"architecture": "vit_small_patch16_224"}),
        ("vit", {"architecture": "vit_base_patch14_dinov2"}),
        ("swin", {"architecture": "swin_tiny_patch4_window7_224"}),
        ("signal", {}),
        ("signal", {"widths": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "strides": [1, 2, 2, 2]}),
        *((name, {}) for name in TEXTS),
    ],
)
def test_by_default_no_family_grows_by_more_than_15_percent(name, fields):
    _within_15_percent(family_named(name).classifier, fields)


def _within_15_percent(classifier, fields):
    with torch.device("meta"):
        model = classifier(classifier.config_class(num_labels=10, **fields))
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    added = sum(size for name, size in sizes.items() if ".gate." in name or name.startswith("heads."))
    assert 0 < added <= 0.15 * (sum(sizes.values()) - added)


@pytest.mark.parametrize("rank, low", [(None, 0), ("auto", 16)])
def test_files_that_ask_for_full_gates_still_get_them(rank, low):
    config = MHEXResNetConfig.from_dict({"architecture": "resnet50", "num_labels": 2, "gate_rank": rank})
    with torch.device("meta"):
        gates = MHEXResNetForImageClassification(config).resnet.gates
    assert sum(gate.reduce is not None for gate in gates) == low
