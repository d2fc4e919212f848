"""The Trainer: parts of the loss in its logs, mosaics, samplers, frozen blocks and learning rates as recipes say."""

import logging
import re
from functools import partial

import numpy as np
import pytest
import torch
from peft import get_peft_model
from transformers import (
    AutoConfig,
    AutoModel,
    BertTokenizerFast,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

import hf_mhex
from hf_mhex.training import MHEXTrainer, PartConsistency, mosaic_loss
from hf_mhex.training.consistency import usual_weight
from hf_mhex.training.job import prepare
from hf_mhex.training.optimisation import EpochSampler, depths, freeze, parameter_groups
from hf_mhex.training.plain import PlainImageClassifier, plain_text
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.run import make_trainer, train
from hf_mhex.training.settings import OptimisationSettings
from networks import CONVERTED, FIELDS, batch_for, family_named, lively, small_config
from schemas import read_log, small_bert, write_medmnist

# The setting's name before transformers 5.24 is gradient_checkpointing.
CHECKPOINTING = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(TrainingArguments, n))

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


def test_several_gpus_in_one_process_are_refused(tmp_path):
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    assert arguments.n_gpu <= 1
    arguments._n_gpu = 2
    with pytest.raises(ValueError, match="train on 2 GPUs by DataParallel.*torchrun --nproc-per-node 2"):
        MHEXTrainer(lively("resnet"), arguments)


def test_a_rare_label_stops_no_training_and_loses_no_model(tmp_path):
    """Validation rows have none of it, so that AUC is not defined there; a recipe that asks for AUC hears so first."""
    source = write_medmnist(tmp_path / "set.npz", 3, colour=True, counts=(48, 24, 24))
    arrays = dict(np.load(source))
    for split in ("val", "test"):
        arrays[f"{split}_labels"] = np.minimum(arrays[f"{split}_labels"], 1)
    np.savez(source, **arrays)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("[accuracy]", "null") + f"data: {{source: {source}}}")
    with pytest.warns(UserWarning, match="auc is left out"):
        row = train(load_recipe(str(tmp_path / "recipe.yaml"), ["max_steps=1"]), tmp_path / "run")
    assert "accuracy" in row["test"] and "auc" not in row["test"]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    asked = load_recipe(str(tmp_path / "recipe.yaml"), ["metrics=[auc]"])
    with pytest.raises(ValueError, match="evaluation.metrics cannot be had on the validation rows: AUC needs rows"):
        train(asked, tmp_path / "other")
    assert not (tmp_path / "other" / "checkpoints").exists()


def test_a_folder_that_holds_no_run_is_not_resumed(recipe, tmp_path):
    (tmp_path / "project" / "model").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no run to resume"):
        train(recipe(), tmp_path / "project", resume=True)
    assert (tmp_path / "project" / "model").is_dir()


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


def plain_twin(name, folder):
    """The plain network that a family's small one is made from, with a classifier."""
    config = small_config(name)
    if family_named(name).kind == "image":
        return PlainImageClassifier(config)
    source = AutoConfig.for_model(family_named(name).sources[0], **FIELDS[name])
    AutoModel.from_config(source).save_pretrained(folder)
    return plain_text(folder, {"id2label": config.id2label, "label2id": config.label2id})


def check_rates(model, num_blocks):
    """Each depth from stem to last block is there, and learns at its own rate; what is new at another."""
    found = depths(model)
    assert {depth for depth in found.values() if depth is not None} == set(range(num_blocks + 1))
    settings = OptimisationSettings(layer_decay=0.5, head_learning_rate=9.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {}
    for group in parameter_groups(model, settings, 1.0, 0.1, set()):
        rates |= {names[id(parameter)]: group["lr"] for parameter in group["params"]}
    assert rates.keys() == {name for name, weight in model.named_parameters() if weight.requires_grad}
    for name, rate in rates.items():
        assert rate == (9.0 if found[name] is None else 0.5 ** (num_blocks - found[name]))
    return {name for name, depth in found.items() if depth is None}


@pytest.mark.parametrize("name", CONVERTED)
def test_depths_and_learning_rates_of_every_family_and_its_plain_twin(name, tmp_path):
    model = lively(name, dtype=torch.float32)
    new = check_rates(model, model.num_blocks)
    assert new == {name for name, _ in model.named_parameters() if ".gate." in name or name.startswith("heads.")}
    for number, block in enumerate(model.base_model.blocks):
        inside = {id(weight) for weight in block.parameters()} - {id(weight) for weight in block.gate.parameters()}
        assert all(depths(model)[name] == 1 + number for name, w in model.named_parameters() if id(w) in inside)
    twin = plain_twin(name, tmp_path)
    new = check_rates(twin, model.num_blocks)
    answered = {name.rsplit(".", 1)[0] for name, weight in twin.named_parameters() if weight.shape[0] == 4}
    assert any(place.startswith(tuple(answered)) for place in new) and len(new) <= 6


def test_adapters_learn_at_the_depth_of_their_layer(tmp_path):
    """And the gates and heads beside them as what is new."""
    model = lively("bert", dtype=torch.float32)
    adapted = get_peft_model(model, hf_mhex.lora_config(model, r=2, target_modules=["query"]))
    new = check_rates(adapted, model.num_blocks)
    assert all(".gate." in name or ".heads." in name for name in new)
    found = {name: depth for name, depth in depths(adapted).items() if "lora_" in name}
    assert found and all(depth == 1 + int(name.split("layer.")[1].split(".")[0]) for name, depth in found.items())


@pytest.mark.parametrize("name", ["bert", "resnet", "convnext"])
@pytest.mark.parametrize("blocks", [0, 2, -1])
def test_frozen_blocks_get_no_gradient_and_keep_their_statistics(name, blocks):
    model, inputs = lively(name, dtype=torch.float32), batch_for(name)
    norms = freeze(model, OptimisationSettings(freeze_blocks=blocks))
    model.train()
    for norm in norms:
        norm.eval()
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
        freeze(lively("bert"), OptimisationSettings(freeze_blocks=9))


def test_early_stop_and_return_to_the_best(recipe, tmp_path):
    changes = ["max_steps=40", "learning_rate=1e-12", "early_stopping_patience=2", "eval_steps=4", "save_steps=4"]
    changes += ["eval_strategy=steps", "save_strategy=steps", "load_best_model_at_end=true"]
    changes += ["metric_for_best_model=accuracy", "greater_is_better=true"]
    row = train(recipe(*changes), tmp_path / "run")
    assert row["steps"] == 12  # the first is the best, two more are no better
    assert row["best_step"] == 4
    entries = read_log(tmp_path / "run")
    assert [entry["step"] for entry in entries if "eval_loss" in entry] == [4, 8, 12]


def test_the_trainers_own_smoothing_and_sampling_are_refused(recipe, tmp_path):
    model, common = lively("bert"), {"output_dir": str(tmp_path), "use_cpu": True}
    for arguments, words in (
        ({"label_smoothing_factor": 0.1}, "set label_smoothing in the model's config"),
        ({"train_sampling_strategy": "group_by_length"}, "set optimisation.sampling instead"),
    ):
        with pytest.raises(ValueError, match=words):
            MHEXTrainer(model=model, args=TrainingArguments(**common, **arguments), optimisation=OptimisationSettings())


def test_a_loss_of_ones_own_and_a_stop_without_a_measure_are_refused(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match="compute_loss_func would replace the model's loss.* MHEXTrainer.compute_loss"):
        MHEXTrainer(lively("bert"), args, compute_loss_func=lambda outputs, labels, num_items_in_batch: 0)
    for kept in (args, None):
        with pytest.raises(ValueError, match="early_stopping_patience=3 .* set training.eval_strategy"):
            MHEXTrainer(lively("bert"), kept, optimisation=OptimisationSettings(early_stopping_patience=3))


@pytest.mark.parametrize("numbers", [[-100.0, -100, -50, -60], [-100.0] * 4])
@pytest.mark.parametrize("options", [{}, {"part_consistency": 1.0}])
def test_a_target_of_minus_100_is_a_number_of_a_regression(numbers, options, tmp_path):
    """In the loss, in its count over micro-batches, and in the logs, which have no parts without part consistency."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = lively("bert", dtype=torch.float32, num_labels=1, problem_type="regression", **still)
    inputs, labels = batch_for("bert"), torch.tensor(numbers)
    with torch.no_grad():
        wanted = model.eval()(**inputs, labels=labels)
    args = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-9, "max_steps": 1}
    args |= {"report_to": "none", "use_cpu": True, "logging_steps": 1, "average_tokens_across_devices": False}
    rows = [{**{n: v[row] for n, v in inputs.items()}, "labels": labels[row]} for row in range(4)]
    trainer = MHEXTrainer(model, TrainingArguments(str(tmp_path), **args), train_dataset=rows, **options)
    trainer.train()
    entry = trainer.state.log_history[0]
    if options:
        assert wanted.loss < entry["loss"] < 4 * wanted.loss
        return
    assert entry["loss"] == pytest.approx(wanted.loss.item(), rel=1e-4)
    assert entry["loss_block_0"] == pytest.approx(wanted.block_losses[0].item(), rel=1e-4)


def rows_of_ids():
    """Rows as anybody has them: texts of three lengths."""
    lengths = [3 + row % 3 for row in range(24)]
    return [
        {"input_ids": [5 + row] * length, "attention_mask": [1] * length, "labels": row % 4}
        for row, length in enumerate(lengths)
    ]


def test_it_serves_without_a_recipe(tmp_path):
    """Trainer's own samplers, learning rates and metrics where no recipe says otherwise, and no parts are asked for."""
    arguments = {"report_to": "none", "use_cpu": True, "seed": 1, "logging_steps": 2, "max_steps": 4}
    found = []
    for kind in (partial(MHEXTrainer, part_consistency=None), Trainer):
        model = lively("bert", dtype=torch.float32, hidden_dropout_prob=0.0)
        tokenizer = BertTokenizerFast.from_pretrained(small_bert(tmp_path / "bert"))
        args = TrainingArguments(str(tmp_path), **arguments, train_sampling_strategy="group_by_length")
        trainer = kind(model, args, train_dataset=rows_of_ids(), eval_dataset=rows_of_ids(), processing_class=tokenizer)
        trainer.train()
        found.append((model.state_dict(), trainer.evaluate(), trainer.state.log_history[0]))
    (ours, judged, entry), (theirs, _, _) = found
    assert all(weight.equal(theirs[name]) for name, weight in ours.items())
    assert 0 <= judged["eval_accuracy"] <= 1 and "eval_accuracy_block_2" in judged and "loss_block_0" in entry


def test_a_grid_of_labels_is_taught_as_mosaics(recipe, tmp_path):
    changes = ["mosaics=1", "max_steps=1", "logging_steps=1", "model.config={binary_share: 0.5, instance_share: 0.2}"]
    trainer = trainer_of(recipe(*changes, "freeze_batch_norm=true"), tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch.pop("labels")
    assert labels.shape == (2, 2, 2)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch | {"labels": labels})
    assert loss.item() == pytest.approx(mosaic_loss(trainer.model, batch, labels).item(), rel=1e-6)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(entry["loss_main"] + sum(entry[f"loss_block_{b}"] for b in range(4)), 1e-4)


def test_balanced_weights_are_the_models_own(recipe, tmp_path):
    trainer = trainer_of(recipe("class_weights=balanced"), tmp_path)
    assert trainer.model.config.class_weights == pytest.approx([1.0] * 3)


OTHERS = {  # than those of the run that is gone on from, by key, and how an error shows its own
    "architecture=resnet34": "'resnet18'",
    "model.architecture_kwargs.channels=[8, 8, 12, 16]": r"\[8, 8, 12, 12\]",
    "image_size=32": "28",
    "crop_pct=0.5": "1.0",
    "mean=[0.5, 0.5, 0.5]": r"\[0.2, 0.3, 0.4\]",
    "processing.std=[0.5, 0.5, 0.5]": r"\[0.229, 0.224, 0.225\]",
    "num_channels=1": "3",
}


def test_a_run_that_starts_from_another_has_its_inputs_but_its_own_weights_of_labels(recipe, tmp_path):
    train(recipe("class_weights=balanced", "max_steps=1", "mean=[0.2, 0.3, 0.4]"), tmp_path / "begun")
    start = f"model.weights={tmp_path / 'begun' / 'model'}"
    job = prepare(recipe(start), 0)
    assert job.model.config.class_weights is None and list(job.processor.image_mean) == [0.2, 0.3, 0.4]
    assert prepare(recipe(start, "class_weights=balanced"), 0).model.config.class_weights is not None
    same = prepare(recipe(start, "mean=[0.2, 0.3, 0.4]", "num_channels=3", "architecture=resnet18.a1_in1k"), 0)
    assert list(same.processor.image_mean) == [0.2, 0.3, 0.4]
    own = prepare(recipe(start, "model.config.class_weights=[1, 2, 3]"), 0)
    assert own.model.config.class_weights == [1, 2, 3]
    for change, kept in OTHERS.items():
        words = rf"{change.partition('=')[0]}=.* does not fit model.weights=.*begun.* with its own, {kept}; write"
        with pytest.raises(ValueError, match=words):
            prepare(recipe(start, change), 0)


@pytest.mark.slow
def test_checkpointing_changes_nothing_and_bf16_little(recipe, tmp_path):
    """In training by the recipe; each block is computed again in the backward pass, or autocast."""
    found = {}
    for name, changes in (("plain", []), ("again", [f"{CHECKPOINTING}=true"]), ("half", ["bf16=true"])):
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


def test_part_consistency_is_logged_apart_and_repeats_itself(recipe, tmp_path):
    found = []
    for turn, weight in enumerate(("2.0", "2.0", "0.0")):
        trainer = trainer_of(recipe(f"part_consistency={weight}"), tmp_path / str(turn))
        trainer.train()
        found.append([entry for entry in trainer.state.log_history if "loss" in entry])
        assert "loss_parts" not in trainer.evaluate()
    assert [entry["loss"] for entry in found[0]] == [entry["loss"] for entry in found[1]]
    assert found[2][-1]["loss"] != found[0][-1]["loss"]
    for entry in found[0]:
        parts = sum(entry[f"loss_block_{block}"] for block in range(4))
        assert entry["loss_parts"] > 0
        assert entry["loss"] == pytest.approx(entry["loss_main"] + parts + 2 * entry["loss_parts"], rel=1e-4)


def test_part_consistency_takes_mask_and_special_tokens_from_the_tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc"]))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    kept = {tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}  # an unknown word is a part as any
    for asked, mask_id in ((1.0, tokenizer.mask_token_id), (PartConsistency(mask_id=7), 7)):
        trainer = MHEXTrainer(lively("bert"), arguments, processing_class=tokenizer, part_consistency=asked)
        assert trainer.part_consistency.mask_id == mask_id
        assert set(trainer.part_consistency.special_ids) == kept


SINGLE, MULTI = "single_label_classification", "multi_label_classification"


@pytest.mark.parametrize("family, problem_type, mask_token, taught", [
    ("bert", SINGLE, "[MASK]", True), ("distilbert", None, "[MASK]", True), ("bert", SINGLE, None, False),
    ("bert", MULTI, "[MASK]", False), ("bert", "regression", "[MASK]", False), ("resnet", SINGLE, "[MASK]", False),
])  # fmt: skip
@pytest.mark.parametrize("source", ["processing_class", "data_collator"])
def test_texts_of_one_label_with_a_mask_token_are_taught_with_parts_unless_told_not_to(
    family, problem_type, mask_token, taught, source, tmp_path
):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc"]))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"), mask_token=mask_token)
    model = lively(family, num_labels=1 if problem_type == "regression" else 3, problem_type=problem_type)
    given = {source: DataCollatorWithPadding(tokenizer) if source == "data_collator" else tokenizer}
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    found = MHEXTrainer(model, args, **given).part_consistency
    assert (found is not None) == taught
    assert found is None or (found.weight, found.mask_id) == (1.0, tokenizer.mask_token_id)
    assert MHEXTrainer(model, args, **given, part_consistency=None).part_consistency is None


@pytest.mark.parametrize("labels, taught", [(torch.arange(8) % 3, True), (torch.eye(3)[torch.arange(8) % 3], False)])
def test_the_first_labels_tell_whether_a_text_has_one(labels, taught, tmp_path):
    """As `convert` leaves it: the model's problem type is unknown until then."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc"]))
    model, inputs = lively("bert", torch.float32, num_labels=3), batch_for("bert", batch=8)
    rows = [{**{n: v[row] for n, v in inputs.items()}, "labels": labels[row]} for row in range(8)]
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, max_steps=2, logging_steps=1)
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    trainer = MHEXTrainer(model, args, train_dataset=rows, processing_class=tokenizer)
    assert model.config.problem_type is None
    trainer.train()
    assert all(("loss_parts" in entry) == taught for entry in trainer.state.log_history if "loss" in entry)


def test_runs_that_can_have_no_parts_go_without_by_default(tmp_path):
    """Embeddings, wider masks, a compiled model and a [MASK] without a vector: as before there were parts."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc"]))
    tokenizer, labels = BertTokenizerFast(str(tmp_path / "vocab.txt")), torch.arange(8) % 3
    model, inputs = lively("bert", torch.float32, num_labels=3), batch_for("bert", batch=8)
    ids = inputs.pop("input_ids")
    embedded = inputs | {"inputs_embeds": model.get_input_embeddings()(ids).detach()}
    wide = inputs | {"input_ids": ids, "attention_mask": inputs["attention_mask"][:, None, None].bool()}
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, max_steps=1, logging_steps=1)
    for given in (embedded, wide):
        rows = [{**{n: v[row] for n, v in given.items()}, "labels": labels[row]} for row in range(8)]
        trainer = MHEXTrainer(
            model, args, train_dataset=rows, processing_class=tokenizer, data_collator=default_data_collator
        )
        trainer.train()
        assert trainer.part_consistency is not None and "loss_parts" not in trainer.state.log_history[0]
    assert usual_weight("auto", model, tokenizer) == 1.0 and usual_weight("auto", model, tokenizer, True) is None
    tokenizer.mask_token_id = 10 * model.config.vocab_size
    assert usual_weight("auto", model, tokenizer) is None and usual_weight(2.0, model, tokenizer, True) == 2.0


def test_a_recipe_of_texts_is_taught_with_parts_by_default(tmp_path):
    for name, taught in (("sample_product_reviews", True), ("sample_fashion_mnist", False)):
        for change, expected in (("part_share=0.25", taught), ("part_consistency=null", False)):
            found = load_recipe(name, ["max_train_rows=10", "use_cpu=true", change])
            trainer = trainer_of(found, tmp_path)
            assert (trainer.part_consistency is not None) == expected
            assert not expected or trainer.part_consistency.share == 0.25
    with pytest.raises(ValueError, match="optimisation.part_consistency must be .*'auto'.* got 'always'"):
        load_recipe("sample_product_reviews", ["part_consistency=always"])


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_a_training_says_one_plain_line_an_epoch(recipe, tmp_path, capsys, request, level):
    """Outside a terminal: loss and metrics together, no printed dicts and no bar, however quiet transformers is."""
    request.addfinalizer(partial(logging.getLogger("transformers").setLevel, logging.getLogger("transformers").level))
    logging.getLogger("transformers").setLevel(level)
    changes = ["max_steps=-1", "num_train_epochs=3", "eval_strategy=epoch", "logging_strategy=epoch"]
    trainer_of(recipe(*changes), tmp_path).train()
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"epoch {number} of 3" for number in (1, 2, 3)]
    for line in lines:
        assert re.fullmatch(r"epoch \d of 3: loss [\d.]+, validation loss [\d.]+, validation accuracy [\d.]+", line)
    assert "{" not in captured.out


@pytest.mark.parametrize("share, said", [("0.25", "25%"), (None, None)])
def test_a_training_with_parts_says_so_first(recipe, tmp_path, capsys, share, said):
    changes = ["part_consistency=null"] if share is None else ["part_consistency=1.0", f"part_share={share}"]
    trainer_of(recipe(*changes), tmp_path).train()
    lines = capsys.readouterr().out.splitlines()
    line = f"{said} of the rows pass once more without some of their parts; part_consistency=null leaves that out"
    assert (lines[0] == line) if said else not any("pass once more" in line for line in lines)


def test_a_training_by_steps_counts_steps_and_can_be_quiet(recipe, tmp_path, capsys):
    trainer_of(recipe("eval_strategy=no"), tmp_path / "told").train()
    assert re.fullmatch(r"step 6 of 6: loss [\d.]+", capsys.readouterr().out.splitlines()[-1])
    trainer_of(recipe("disable_tqdm=true"), tmp_path / "quiet").train()
    assert capsys.readouterr().out == ""
