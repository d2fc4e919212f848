"""Mosaics whose parts are classified one by one, derived again slowly; weights of labels."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from peft import get_peft_model
from torch.nn.parallel import DistributedDataParallel

import hf_mhex
from hf_mhex.modeling.mhex_loss import deep_supervision_loss
from hf_mhex.training import balanced_weights, mosaic_loss
from hf_mhex.training.losses import mosaic_outputs
from hf_mhex.training.plain import PlainImageClassifier
from networks import ONE_GRAPH, checkpoint_activations, image_batch, lively, small_config, text_batch
from slow_method import caught

SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"


def task_loss(logits, labels):
    """The textbook loss of one head: cross-entropy of integers, else the mean of binary cross-entropies."""
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels)


def parts_by_hand(z, grid):
    """Means [B * R * S, C] over the parts of z [B, C, H, W], row by row, whose sides divide; and the parts."""
    parts = [part for row in z for strip in row.chunk(grid[0], 1) for part in strip.chunk(grid[1], 2)]
    return torch.stack([part.mean((1, 2)) for part in parts]), parts


@pytest.mark.parametrize(
    "family, kind, rectified",
    [
        ("resnet", SINGLE, False),
        ("resnet", SEVERAL, True),
        ("convnext", SEVERAL, False),
        ("swin", SINGLE, True),
        ("vit", SINGLE, False),
    ],
)
def test_each_part_is_taught_by_its_own_positions(family, kind, rectified):
    model = lively(family, problem_type=kind, rectified=rectified)
    inputs = image_batch(2, (64, 128) if family in ("resnet", "convnext") else (96, 96), dtype=torch.float64)
    grid = (2, 4) if family in ("resnet", "convnext") else (2, 2)
    labels = torch.arange(2 * grid[0] * grid[1]) % 4
    given = F.one_hot(labels, 4).double() if kind == SEVERAL else labels
    outputs = mosaic_outputs(model, inputs, given.unflatten(0, (2, *grid)))
    for block, (x, f, w1, w2) in enumerate(caught(model, inputs)[0]):
        means, _ = parts_by_hand((x + f).relu() if rectified else x + f, grid)
        assert torch.allclose(outputs.block_logits[:, block], (w2 @ w1 @ means.relu().mT).mT, rtol=0, atol=1e-9)
        assert torch.allclose(outputs.block_losses[block], task_loss(outputs.block_logits[:, block], given))
    weights = 0.5 ** torch.arange(model.num_blocks - 1, -1, -1, dtype=torch.float64)
    assert torch.allclose(outputs.logits, (weights[:, None] * outputs.block_logits).sum(1))
    assert torch.allclose(outputs.loss, task_loss(outputs.logits, given) + outputs.block_losses.sum())


def test_parts_of_sides_that_do_not_divide_are_those_of_adaptive_pooling():
    model = lively("resnet", rectified=True)
    inputs = image_batch(1, (90, 118), dtype=torch.float64)
    outputs = mosaic_outputs(model, inputs, torch.arange(6).view(1, 2, 3) % 4)
    features, _ = caught(model, inputs)
    assert any(x.shape[-1] % 3 for x, *_ in features)
    for block, (x, f, w1, w2) in enumerate(features):
        means = F.adaptive_avg_pool2d((x + f).relu(), (2, 3))[0].flatten(1)
        assert torch.allclose(outputs.block_logits[:, block], (w2 @ w1 @ means).mT, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [SINGLE, SEVERAL])
@pytest.mark.parametrize("rectified", [False, True])
def test_an_instance_share_denies_absent_labels_at_every_position_of_a_part(kind, rectified):
    share, binary = 0.4, 0.7
    model = lively("resnet", rectified=rectified, binary_share=binary, instance_share=share, problem_type=kind)
    inputs = image_batch(1, (128, 192), dtype=torch.float64)
    labels = torch.arange(4)
    present = F.one_hot(labels, 4).double()
    given = present if kind == SEVERAL else labels
    outputs = mosaic_outputs(model, inputs, given.unflatten(0, (1, 2, 2)))
    for block, (x, f, w1, w2) in enumerate(caught(model, inputs)[0]):
        means, parts = parts_by_hand((x + f).relu() if rectified else x + f, (2, 2))
        costs = []
        for mean, part in zip(means, parts):
            said = (w2 @ w1) @ ((mean > 0)[:, None] * part.flatten(1))  # [K, positions]
            costs.append((1 + said.exp()).log().mean(1))
        logits = outputs.block_logits[:, block]
        blended = (1 - share) * F.softplus(logits) + share * torch.stack(costs)
        by_label = present * F.softplus(-logits) + (1 - present) * blended
        wanted = by_label.mean()
        if kind == SINGLE:
            wanted = (1 - binary) * task_loss(logits, labels) + binary * by_label.sum(-1).mean()
        assert torch.allclose(outputs.block_losses[block], wanted, rtol=1e-9)


@pytest.mark.parametrize("family", ["resnet", "convnext"])
def test_wrapped_or_checkpointed_it_is_the_same_loss_and_every_weight_learns(family, tmp_path):
    """DDP refuses a second step where a weight of the first one got no gradient."""
    inputs = image_batch(2, (64, 64), dtype=torch.float64)
    labels = torch.arange(8).view(2, 2, 2) % 4
    found = []
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        for how in ("alone", "checkpointed", "wrapped"):
            model = lively(family, binary_share=0.5, instance_share=0.3).train()
            for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
                norm.eval()
            if how == "checkpointed":
                checkpoint_activations(model)
            called = DistributedDataParallel(model) if how == "wrapped" else model
            for _ in range(2):
                model.zero_grad()
                loss = mosaic_loss(called, inputs, labels, 16)
                loss.backward()
            found.append((loss.item(), {name: weight.grad for name, weight in model.named_parameters()}))
    finally:
        dist.destroy_process_group()
    (loss, gradients), *others = found
    assert None not in gradients.values()
    for other, same in others:
        assert other == pytest.approx(loss, rel=1e-12)
        assert all(torch.allclose(same[name], gradient, atol=1e-12) for name, gradient in gradients.items())


def test_with_lora_the_loss_of_mosaics_is_that_of_the_network_it_adapts():
    model, labels = lively("vit"), torch.arange(8).view(2, 2, 2) % 4
    inputs = image_batch(2, (64, 64), dtype=torch.float64)
    wanted = mosaic_loss(model, inputs, labels)
    adapted = get_peft_model(model, hf_mhex.lora_config(model, r=2, target_modules=["qkv"])).double().eval()
    assert torch.allclose(mosaic_loss(adapted, inputs, labels), wanted, rtol=1e-9)


@ONE_GRAPH
def test_a_compiled_network_has_the_loss_of_mosaics_of_the_network_itself(request):
    request.addfinalizer(torch.compiler.reset)
    model, labels = lively("resnet"), torch.arange(8).view(2, 2, 2) % 4
    inputs = image_batch(2, (64, 64), dtype=torch.float64)
    found = mosaic_loss(torch.compile(model, backend="eager"), inputs, labels)
    assert torch.allclose(found, mosaic_loss(model, inputs, labels), rtol=1e-9)


def test_what_is_no_mosaic_is_refused():
    model = lively("bert")
    with pytest.raises(ValueError, match=r"must be \[M, R, S\] or \[M, R, S, K\], got \[4\]"):
        mosaic_loss(model, text_batch(), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="mosaics are joined of images"):
        mosaic_loss(model, text_batch(), torch.zeros(4, 2, 2, dtype=torch.long))


@pytest.mark.parametrize("family", ["resnet", "convnext", "swin"])
def test_the_plain_twin_reads_each_part_by_itself(family):
    torch.manual_seed(0)
    model = PlainImageClassifier(small_config(family)).double().eval()
    inputs, labels = image_batch(2, (128, 128), dtype=torch.float64), torch.arange(8) % 4
    outputs = model(**inputs, labels=labels.view(2, 2, 2))
    features = model.network.forward_features(inputs["pixel_values"])
    middle = features.shape[2] // 2
    assert features.shape[2] % 2 == 0
    for image in range(2):
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            row, column = slice(i * middle, None if i else middle), slice(j * middle, None if j else middle)
            part = features[:, row, column] if family == "swin" else features[:, :, row, column]
            logits = model.network.forward_head(part)[image]
            assert torch.allclose(outputs.logits[4 * image + 2 * i + j], logits)
    assert torch.allclose(outputs.loss, task_loss(outputs.logits, labels))


def test_a_plain_network_that_reads_a_token_has_no_parts():
    model = PlainImageClassifier(small_config("vit"))
    with pytest.raises(ValueError, match="processing.mosaics must be 0"):
        model(**image_batch(1, (48, 48)), labels=torch.zeros(1, 2, 2, dtype=torch.long))


@pytest.mark.parametrize("kind", [SINGLE, SEVERAL])
@pytest.mark.parametrize("items", [None, 40])
def test_weighted_loss_by_a_slow_loop(kind, items):
    model = lively("bert", problem_type=kind, label_smoothing=0.1, deep_supervision_weight=0.7)
    labels = torch.tensor([0, 3, 1, 1]) if kind == SINGLE else torch.eye(4, dtype=torch.float64)
    weights = [0.5, 1.0, 2.0, 4.0]
    outputs = model(**text_batch(), labels=labels)
    heads = [outputs.logits, *outputs.block_logits.unbind(1)]
    model.config.class_weights = weights
    total, blocks = deep_supervision_loss(outputs.logits, outputs.block_logits, labels, model.config, items)
    expected = []
    for head in heads:
        value = 0.0
        for row, label in zip(head, labels):
            if kind == SINGLE:
                goal = torch.full((4,), 0.1 / 4, dtype=torch.float64)
                goal[label] += 0.9
                value -= weights[label] * (goal * row.log_softmax(-1)).sum()
            else:
                goal = label * 0.9 + 0.05
                present = torch.tensor(weights) * goal * F.logsigmoid(row)
                value -= (present + (1 - goal) * F.logsigmoid(-row)).sum()
        expected.append(value / (items or labels.numel()))
    assert torch.allclose(blocks, torch.stack(expected[1:]))
    assert torch.allclose(total, expected[0] + 0.7 * sum(expected[1:]))
    model.config.class_weights = [1.0] * 4
    assert torch.allclose(model(**text_batch(), labels=labels).loss, outputs.loss)


def test_balanced_weights():
    assert balanced_weights(np.array([0, 0, 0, 1]), 2) == pytest.approx([2 / 3, 2.0])
    several = np.array([[1, 0], [0, 1], [0, 1], [0, 1.0]], dtype=np.float32)
    assert balanced_weights(several, 2) == pytest.approx([3.0, 1 / 3])
    with pytest.raises(ValueError, match=r"no training row has the labels \[1\]"):
        balanced_weights(np.array([0, 2]), 3)
    with pytest.raises(ValueError, match=r"every training row has the labels \[0\]"):
        balanced_weights(np.array([[1, 0], [1, 1.0]], dtype=np.float32), 2)
    with pytest.raises(ValueError, match="no meaning for regression"):
        balanced_weights(np.array([0.5, 2.0]), 1)
