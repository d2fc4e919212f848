"""Does the Trainer log the parts of the loss, weigh labels, sample, freeze and set learning rates as recipes say?"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import TrainingArguments

from hf_mhex.modeling.mhex_loss import deep_supervision_loss
from hf_mhex.training.job import prepare
from hf_mhex.training.losses import balanced_weights
from hf_mhex.training.optimisation import EpochSampler, depths, freeze, parameter_groups
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.run import make_trainer, train
from hf_mhex.training.settings import OptimisationSettings
from hf_mhex.training.trainer import MHEXTrainer
from networks import image_batch, lively_bert, lively_resnet, text_batch
from schemas import read_log, write_medmnist

RECIPE = """
model: {architecture: resnet18, architecture_kwargs: {layers: [1, 1, 1, 1], channels: [8, 8, 12, 12]}}
processing: {image_size: 28, crop_pct: 1.0}
training: {max_steps: 6, per_device_train_batch_size: 8, learning_rate: 3e-3, logging_steps: 2, use_cpu: true, seed: 0}
evaluation: {metrics: [accuracy]}
"""


@pytest.fixture
def recipe(tmp_path):
    """A recipe over three classes of images; call it with overrides."""
    source = write_medmnist(tmp_path / "set.npz", 3, colour=True, counts=(48, 24, 24))
    (tmp_path / "recipe.yaml").write_text(RECIPE + f"data: {{source: {source}}}")
    return lambda *changes: load_recipe(str(tmp_path / "recipe.yaml"), changes)


def trainer_of(recipe, folder):
    arguments = recipe.training_arguments(folder)
    return make_trainer(recipe, arguments, prepare(recipe, arguments.seed))


def test_logs_have_every_part_and_the_parts_make_the_whole(recipe, tmp_path):
    found = recipe("model.config.deep_supervision_weight=0.5", "eval_strategy=steps", "eval_steps=3")
    trainer = trainer_of(found, tmp_path)
    trainer.train()
    trained = [entry for entry in trainer.state.log_history if "loss" in entry]
    judged = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(trained) == 3 and len(judged) == 2
    for entry, prefix in [(entry, "") for entry in trained] + [(entry, "eval_") for entry in judged]:
        parts = [entry[f"{prefix}loss_block_{block}"] for block in range(4)]
        assert entry[f"{prefix}loss"] == pytest.approx(entry[f"{prefix}loss_main"] + 0.5 * sum(parts), rel=1e-4)
        assert all(0 <= entry[f"{prefix}accuracy_block_{block}"] <= 1 for block in range(4))


def test_logged_block_accuracy_is_that_of_the_block(recipe, tmp_path):
    trainer = trainer_of(recipe(), tmp_path)
    trainer.train()
    entry = trainer.evaluate()
    rows = trainer.data_collator([trainer.eval_dataset[row] for row in range(24)])
    with torch.no_grad():
        outputs = trainer.model.eval()(**rows)
    for block in range(4):
        right = (outputs.block_logits[:, block].argmax(-1) == rows["labels"]).float().mean().item()
        assert entry[f"eval_accuracy_block_{block}"] == pytest.approx(right)
        assert entry[f"eval_loss_block_{block}"] == pytest.approx(outputs.block_losses[block].item(), rel=1e-5)


def test_evaluation_keeps_plain_logits_alone(recipe, tmp_path):
    """However many blocks there are, [rows, labels] is all that is gathered."""
    trainer = trainer_of(recipe(), tmp_path)
    found = trainer.predict(trainer.eval_dataset)
    assert isinstance(found.predictions, np.ndarray)
    assert found.predictions.shape == (24, 3)


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
@pytest.mark.parametrize("items", [None, 40])
def test_weighted_loss_by_a_slow_loop(kind, items):
    model = lively_bert(num_labels=4, problem_type=kind, label_smoothing=0.1, deep_supervision_weight=0.7)
    labels = torch.tensor([0, 3, 1, 1]) if kind.startswith("single") else torch.eye(4, dtype=torch.float64)
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    outputs = model(**text_batch(), labels=labels)
    heads = [outputs.logits, *outputs.block_logits.unbind(1)]
    total, blocks = deep_supervision_loss(
        outputs.logits, outputs.block_logits, labels, model.config, items, None, weights
    )
    expected = []
    for head in heads:
        value = 0.0
        for row, label in zip(head, labels):
            if kind.startswith("single"):
                goal = torch.full((4,), 0.1 / 4, dtype=torch.float64)
                goal[label] += 0.9
                value -= weights[label] * (goal * row.log_softmax(-1)).sum()
            else:
                goal = label * 0.9 + 0.05
                value -= (weights * goal * F.logsigmoid(row) + (1 - goal) * F.logsigmoid(-row)).sum()
        expected.append(value / (items or labels.numel()))
    assert torch.allclose(blocks, torch.stack(expected[1:]))
    assert torch.allclose(total, expected[0] + 0.7 * sum(expected[1:]))
    even = deep_supervision_loss(outputs.logits, outputs.block_logits, labels, model.config, None, None, torch.ones(4))
    assert torch.allclose(even[0], outputs.loss)


def test_balanced_weights():
    assert torch.allclose(balanced_weights(np.array([0, 0, 0, 1]), 2), torch.tensor([2 / 3, 2.0]))
    several = np.array([[1, 0], [0, 1], [0, 1], [0, 1.0]], dtype=np.float32)
    assert torch.allclose(balanced_weights(several, 2), torch.tensor([3.0, 1 / 3]))
    with pytest.raises(ValueError, match=r"no training row has the labels \[1\]"):
        balanced_weights(np.array([0, 2]), 3)
    with pytest.raises(ValueError, match="no meaning for regression"):
        balanced_weights(np.array([0.5, 2.0]), 1)


class FewRows:
    """Nine rows of label 0 and one of label 1, of different lengths."""

    labels, lengths, epoch = np.array([0] * 90 + [1] * 10), np.arange(100), 0

    def __len__(self):
        return 100


def test_samplers_follow_seed_and_epoch():
    rows = FewRows()
    for sampling in ("shuffle", "balanced", "by_length"):
        first = list(EpochSampler(rows, sampling, 1, 8))
        assert len(first) == 100
        assert first == list(EpochSampler(rows, sampling, 1, 8))
        assert first != list(EpochSampler(rows, sampling, 2, 8))
        rows.epoch = 1
        assert first != list(EpochSampler(rows, sampling, 1, 8))
        rows.epoch = 0
        if sampling != "balanced":
            assert sorted(first) == list(range(100))
    balanced = [row for epoch in range(20) for row in EpochSampler(rows, "balanced", epoch, 8)]
    assert rows.labels[balanced].mean() == pytest.approx(0.5, abs=0.04)
    batches = [list(EpochSampler(rows, "by_length", 1, 8))[at : at + 8] for at in range(0, 96, 8)]
    assert all(max(batch) - min(batch) < 8 for batch in batches)


def test_samplers_that_rows_do_not_allow():
    rows = FewRows()
    rows.labels = np.zeros((100, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="needs one label a row"):
        EpochSampler(rows, "balanced", 0, 8)
    with pytest.raises(ValueError, match="is for texts"):
        EpochSampler(range(3), "by_length", 0, 8)


@pytest.mark.parametrize("network", [lively_bert, lively_resnet])
def test_depths_and_learning_rates(network):
    model = network(dtype=torch.float32)
    found = depths(model)
    new = {name for name, depth in found.items() if depth is None}
    assert new == {name for name in found if ".gate." in name or name.startswith("heads.")}
    assert {depth for depth in found.values() if depth is not None} == set(range(model.num_blocks + 1))
    settings = OptimisationSettings(layer_decay=0.5, head_learning_rate=9.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {}
    for group in parameter_groups(model, settings, 1.0, 0.1, set()):
        rates |= {names[id(parameter)]: group["lr"] for parameter in group["params"]}
    assert rates.keys() == found.keys()
    for name, rate in rates.items():
        assert rate == (9.0 if found[name] is None else 0.5 ** (model.num_blocks - found[name]))


@pytest.mark.parametrize("network, batch", [(lively_bert, text_batch), (lively_resnet, image_batch)])
@pytest.mark.parametrize("blocks", [0, 2, -1])
def test_frozen_blocks_get_no_gradient_and_keep_their_statistics(network, batch, blocks):
    model = network(dtype=torch.float32)
    norms = freeze(model, OptimisationSettings(freeze_blocks=blocks))
    model.train()
    for norm in norms:
        norm.eval()
    inputs = batch()
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    model(**inputs, labels=torch.zeros(len(next(iter(inputs.values()))), dtype=torch.long)).loss.backward()
    deepest = model.num_blocks if blocks == -1 else blocks
    for name, depth in depths(model).items():
        frozen = blocks != 0 and depth is not None and depth <= deepest
        assert (model.get_parameter(name).grad is None) == frozen, name
    after = dict(model.named_buffers())
    for name, value in before.items():
        frozen = blocks != 0 and depths(model)[name.rsplit(".", 1)[0] + ".weight"] <= deepest
        assert value.equal(after[name]) == frozen, name


def test_too_many_frozen_blocks():
    with pytest.raises(ValueError, match="freeze_blocks=9, but the model has 3 blocks"):
        freeze(lively_bert(), OptimisationSettings(freeze_blocks=9))


def test_early_stop_and_return_to_the_best(recipe, tmp_path):
    changes = ["max_steps=40", "learning_rate=0", "early_stopping_patience=2", "eval_steps=4", "save_steps=4"]
    changes += ["eval_strategy=steps", "save_strategy=steps", "load_best_model_at_end=true"]
    changes += ["metric_for_best_model=accuracy", "greater_is_better=true"]
    row = train(recipe(*changes), tmp_path / "run")
    assert row["steps"] == 12  # the first is the best, two more are no better
    assert row["best_step"] == 4
    entries = read_log(tmp_path / "run")
    assert [entry["step"] for entry in entries if "eval_loss" in entry] == [4, 8, 12]


def test_the_trainers_own_smoothing_and_sampling_are_refused(recipe, tmp_path):
    model, common = lively_bert(), {"output_dir": str(tmp_path), "use_cpu": True}
    for arguments, words in (
        ({"label_smoothing_factor": 0.1}, "set label_smoothing in the model's config"),
        ({"train_sampling_strategy": "group_by_length"}, "set optimisation.sampling instead"),
    ):
        with pytest.raises(ValueError, match=words):
            MHEXTrainer(model=model, args=TrainingArguments(**common, **arguments), optimisation=OptimisationSettings())


def test_checkpointing_changes_nothing_and_bf16_little(recipe, tmp_path):
    """In training by the recipe; each block is computed again in the backward pass, or autocast."""
    found = {}
    for name, changes in (("plain", []), ("again", ["activation_checkpointing=true"]), ("half", ["bf16=true"])):
        trainer = trainer_of(recipe("max_steps=3", "freeze_batch_norm=true", *changes), tmp_path / name)
        trainer.train()
        found[name] = trainer.model.state_dict(), trainer.state.log_history[0]["loss"]
    for name, weight in found["plain"][0].items():
        assert torch.allclose(weight.float(), found["again"][0][name].float(), atol=1e-6), name
    assert found["again"][1] == pytest.approx(found["plain"][1], rel=1e-5)
    assert found["half"][1] == pytest.approx(found["plain"][1], rel=2e-2)


def test_output_that_holds_another_run(recipe, tmp_path):
    output = tmp_path / "run"
    train(recipe("max_steps=1"), output)
    with pytest.raises(ValueError, match="exists and is not empty; name a new folder, or --resume"):
        train(recipe("max_steps=1"), output)
    with pytest.raises(ValueError, match="was started by another recipe"):
        train(recipe("max_steps=2"), output, resume=True)
