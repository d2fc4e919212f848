"""Does each variant of MHEX's training change what it says, in training alone?"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from hf_mhex.training.demo import minilm_folder
from hf_mhex.training.inputs import TextCollator
from hf_mhex.training.job import prepare
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.run import make_trainer
from hf_mhex.training.variants import (
    cut_mix,
    distil_heads,
    erase_patches,
    fade_block_losses,
    mask_tokens,
    weigh_block_losses,
)
from networks import image_batch, lively_bert, lively_resnet
from schemas import write_medmnist


@pytest.fixture
def network():
    """A network that learns, its batch, and the losses [blocks] of its heads by loops."""
    model, inputs, labels = lively_resnet(torch.float32).train(), image_batch(), torch.tensor([0, 1, 2])
    model.config.deep_supervision_weight = 0.7
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # two passes over one batch are alike
    found = model(**inputs, labels=labels)
    losses = [F.cross_entropy(scores, labels) for scores in found.block_logits.unbind(1)]
    return SimpleNamespace(model=model, inputs=inputs | {"labels": labels}, found=found, losses=losses)


@pytest.mark.parametrize("deeper", [True, False])
def test_block_losses_weighed_by_depth(network, deeper):
    weigh_block_losses(SimpleNamespace(model=network.model), deeper)
    blocks = len(network.losses)
    weights = [2 * (b + 1 if deeper else blocks - b) / (blocks + 1) for b in range(blocks)]
    assert sum(weights) == pytest.approx(blocks) and (weights[-1] > weights[0]) == deeper
    main = F.cross_entropy(network.found.logits, network.inputs["labels"])
    expected = main + 0.7 * sum(weight * loss for weight, loss in zip(weights, network.losses))
    torch.testing.assert_close(network.model(**network.inputs).loss, expected)
    network.model.eval()
    torch.testing.assert_close(network.model(**network.inputs).loss, network.found.loss)


def test_heads_that_learn_from_the_last(network):
    distil_heads(SimpleNamespace(model=network.model), share=0.25, temperature=3.0)
    goal = (network.found.block_logits[:, -1] / 3).softmax(-1)
    expected = network.found.loss
    for block in range(len(network.losses) - 1):
        own = (network.found.block_logits[:, block] / 3).softmax(-1)
        apart = (goal * (goal / own).log()).sum(-1).mean()
        expected = expected + 0.7 * 0.25 * (9 * apart - network.losses[block])
    torch.testing.assert_close(network.model(**network.inputs).loss, expected)


def test_block_losses_that_fade_out(tmp_path):
    source = f"source={write_medmnist(tmp_path / 'x.npz', 2, False, 48)}"
    small = "architecture_kwargs={layers: [1, 1, 1, 1], channels: [4, 8, 8, 8]}"
    steps = ["max_steps=4", "per_device_train_batch_size=8", "use_cpu=true", "logging_steps=1", "save_strategy=no"]
    last = ["eval_strategy=no", "load_best_model_at_end=false", "image_size=28", "class_weights=none"]
    recipe = load_recipe("medmnist/pneumoniamnist", [source, small, *steps, *last])
    trainer = make_trainer(recipe, recipe.training_arguments(tmp_path / "run"), prepare(recipe, 0))
    fade_block_losses(trainer)
    trainer.train()
    for step, row in enumerate(trainer.state.log_history[:4]):
        blocks = sum(value for name, value in row.items() if name.startswith("loss_block_"))
        assert row["loss"] == pytest.approx(row["loss_main"] + (1 - step / 4) * blocks, rel=1e-3)


def test_random_erasing_takes_rectangles_out_of_training_images():
    model, pixels = lively_resnet(torch.float32).train(), torch.rand(64, 3, 32, 32) + 1
    kept, seen = pixels.clone(), []
    erase_patches(SimpleNamespace(model=model))
    model.resnet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    model(pixel_values=pixels)
    model.eval()(pixel_values=pixels)
    assert torch.equal(pixels, kept) and torch.equal(seen[1], pixels)
    gone = (seen[0] == 0).all(1)
    assert torch.equal(seen[0][~gone.unsqueeze(1).expand_as(pixels)], pixels[~gone.unsqueeze(1).expand_as(pixels)])
    erased = gone.flatten(1).any(1)
    assert 16 <= erased.sum() <= 48
    for picture in gone[erased]:
        rows, columns = picture.any(1), picture.any(0)
        assert picture.sum() == rows.sum() * columns.sum()


def test_token_masking_spares_special_tokens():
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    model, seen = lively_bert(torch.float32, vocab_size=len(tokenizer)).train(), []
    batch = tokenizer(["a great phone with a poor battery"] * 40 + ["poor"], padding=True, return_tensors="pt")
    mask_tokens(SimpleNamespace(model=model, data_collator=TextCollator(tokenizer)))
    model.bert.register_forward_pre_hook(
        lambda module, inputs, named: seen.append(named["input_ids"]), with_kwargs=True
    )
    torch.manual_seed(0)
    model(**batch)
    model.eval()(**batch)
    assert torch.equal(seen[1], batch["input_ids"])
    special = torch.isin(batch["input_ids"], torch.tensor(tokenizer.all_special_ids))
    changed = seen[0] != batch["input_ids"]
    assert (seen[0][changed] == tokenizer.mask_token_id).all() and not changed[special].any()
    assert 0.15 < changed[~special].float().mean() < 0.35


def test_cut_mix_weighs_both_labels_by_area(network):
    seen = []
    network.model.resnet.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0]))
    cut_mix(SimpleNamespace(model=network.model))
    pixels, labels = network.inputs["pixel_values"], network.inputs["labels"]
    torch.manual_seed(0)
    np.random.seed(0)
    mixed = 0
    for _ in range(20):
        found = network.model(**network.inputs)
        pasted = (seen[-1] != pixels).any(1)  # [B, H, W]
        other = torch.arange(len(labels))
        for row in pasted.flatten(1).any(1).nonzero()[:, 0].tolist():
            whole = [bool((seen[-1][row] == pixels[source])[:, pasted[row]].all()) for source in range(len(labels))]
            other[row] = whole.index(True)
        gone = float(pasted.flatten(1).double().mean(1).max())  # one rectangle for the batch; some rows keep their own
        mixed += 0 < gone < 1
        one, two = (
            [F.cross_entropy(scores, wanted) for scores in (found.logits, *found.block_logits.unbind(1))]
            for wanted in (labels, labels[other])
        )
        parts = [(1 - gone) * own + gone * pasted_one for own, pasted_one in zip(one, two)]
        torch.testing.assert_close(found.loss, parts[0] + 0.7 * sum(parts[1:]))
    assert mixed > 3
    network.model.eval()
    torch.testing.assert_close(network.model(**network.inputs).loss, network.found.loss)
