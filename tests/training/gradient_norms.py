"""The gradient norm of one step over the same eight rows; run alone or by torchrun, it prints JSON.

    python gradient_norms.py FOLDER BATCHxACCUMULATION...

FOLDER holds what `test_gradients.py` has put there. Every process runs every case; the first one prints a line a split.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from hf_mhex.training import run
from hf_mhex.training.job import prepare
from hf_mhex.training.optimisation import freeze
from hf_mhex.training.processes import leave_together
from hf_mhex.training.recipe import load_recipe

torch.set_num_threads(1)
KINDS = {"single": "single_label_classification", "several": "multi_label_classification", "number": "regression"}


def recipe_of(folder, family, kind, batch, accumulate):
    """One step over the first eight rows, without dropout and with the norms' statistics kept."""
    changes = [
        f"family={family}",
        f"model.problem_type={KINDS[kind]}",
        f"source={folder / ('images.npz' if family == 'resnet' else 'texts.csv')}",
        f"per_device_train_batch_size={batch}",
        f"gradient_accumulation_steps={accumulate}",
    ]
    if family == "resnet":
        changes += [f"source={folder / f'{kind}.npz'}", "model.weights=null", "freeze_batch_norm=true"]
        changes += ["part_consistency=1.0"] if kind == "several" else []
    else:
        columns = {"single": "[topic]", "several": "[a, b, c]", "number": "[grade]"}[kind]
        changes += [f"model.weights={folder / 'bert'}", f"label_columns={columns}", "input_columns=[text]"]
        changes += ["model.config.hidden_dropout_prob=0.0", "model.config.attention_probs_dropout_prob=0.0"]
    if kind == "single":
        changes += ["class_weights=balanced", "model.config.label_smoothing=0.1"]
    return load_recipe(str(folder / "recipe.yaml"), changes)


def ours(recipe, folder):
    """By the recipe's own Trainer."""
    arguments = recipe.training_arguments(folder / "checkpoints")
    job = prepare(recipe, 0)
    trainer = run.make_trainer(recipe, arguments, job)
    trainer.train()
    return trainer.state.log_history[0]["grad_norm"]


def plain(recipe, folder):
    """By transformers' Trainer as it is, with rows as anybody has them."""
    arguments = TrainingArguments(
        str(folder / "checkpoints"), report_to="none", remove_unused_columns=False, **recipe.training
    )
    job = prepare(recipe, 0)
    collate = DataCollatorWithPadding(job.processor) if recipe.model.family == "bert" else job.collate
    for norm in run_still(job, recipe):
        norm.momentum = 0.0
    trainer = Trainer(job.model, arguments, train_dataset=job.train, data_collator=collate)
    trainer.train()
    return trainer.state.log_history[0]["grad_norm"]


def run_still(job, recipe):
    """Batch norms become eval for good, whatever mode the model is put into."""
    still = freeze(job.model, recipe.optimisation)
    for norm in still:
        norm.eval()
        norm.train = lambda mode=True, norm=norm: norm
    return still


def main(folder, batch, accumulate):
    found = {}
    for family in ("bert", "resnet"):
        for kind in KINDS:
            for entry in (ours, plain):
                recipe = recipe_of(folder, family, kind, batch, accumulate)
                if entry is plain:
                    recipe.optimisation.class_weights = "none"
                found[f"{family} {kind} {entry.__name__}"] = entry(recipe, folder)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        print("FOUND " + json.dumps(found))


if __name__ == "__main__":
    for split in sys.argv[2:]:
        main(Path(sys.argv[1]), *map(int, split.split("x")))
    leave_together()
