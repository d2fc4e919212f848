"""A step's gradient, however its rows are split over micro-batches and processes.

Single label, several labels and regression; texts and images; a recipe's Trainer and transformers' as it is.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from networks import NAMES, batch_for, lively
from schemas import patches, small_bert, texts, write_csv

SCRIPT = Path(__file__).with_name("gradient_norms.py")
RECIPE = """
model: {architecture: resnet18, architecture_kwargs: {layers: [1, 1, 1, 1], channels: [8, 8, 12, 12]}, weights: none}
data: {validation_fraction: 0.2, test_fraction: 0.2}
processing: {image_size: 28, crop_pct: 1.0}
training: {max_steps: 1, learning_rate: 1e-3, logging_steps: 1, seed: 0, use_cpu: true}
"""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight training rows of each kind: with the rest split off, an epoch is one step."""
    folder = tmp_path_factory.mktemp("gradients")
    (folder / "recipe.yaml").write_text(RECIPE)
    torch.manual_seed(0)
    small_bert(folder / "bert")
    found, labels = texts(16)
    labels = [min(label, 1) for label in labels]  # skewed, so that class weights differ from 1
    generator = np.random.default_rng(0)
    several, grades = (generator.random((16, 3)) < 0.5).astype(int), generator.normal(size=16)
    columns = {"text": found, "topic": labels, "grade": grades.round(3)}
    write_csv(folder / "texts.csv", columns | dict(zip("abc", several.T)))
    images = patches(np.arange(16) % 4, 28, 4, colour=True)
    for kind, truth in (("single", np.array(labels)), ("several", several), ("number", grades)):
        arrays = {}
        for split, rows in (("train", slice(8)), ("val", slice(8, 12)), ("test", slice(12, 16))):
            arrays |= {f"{split}_images": images[rows], f"{split}_labels": truth[rows]}
        np.savez(folder / f"{kind}.npz", **arrays)
    return folder


def start(folder, *splits, processes=1):
    """The script, at work."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [str(SCRIPT), str(folder), *splits]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def answers(process):
    """What the script has found, one dict a split."""
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return [json.loads(line.removeprefix("FOUND ")) for line in out.splitlines() if line.startswith("FOUND ")]


@pytest.mark.slow
def test_gradient_norms_are_alike_over_accumulation_and_processes(folder):
    """With parts too, which texts of one label lose by default and images here."""
    alone, together = start(folder, "8x1", "2x4"), start(folder, "4x1", "2x2", processes=2)
    (whole, accumulated), (shared, both) = answers(alone), answers(together)
    assert len(whole) == 12
    for case, norm in whole.items():
        assert norm > 0.05, case
        assert accumulated[case] == pytest.approx(norm, rel=1e-4), case
        assert shared[case] == pytest.approx(norm, rel=1e-4), case
        assert both[case] == pytest.approx(norm, rel=1e-4), case


FAST = ("bert",)
NO_DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0},
}
NO_DROPOUT |= dict.fromkeys(("roberta", "deberta_v2"), NO_DROPOUT["bert"])
CHECKPOINTING = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(TrainingArguments, n))


def norm_of_a_step(name, folder, batch, accumulate, **arguments):
    """The gradient's norm of one step of transformers' Trainer over the same eight rows, norms' statistics kept."""
    model = lively(name, torch.float32, **NO_DROPOUT.get(name, {}))
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.train = lambda mode=True, module=module: module
    columns = batch_for(name, batch=8) | {"labels": torch.arange(8) % 4}
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    common = {"max_steps": 1, "logging_steps": 1, "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 0}
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate}
    trainer = Trainer(model, TrainingArguments(str(folder), **common, **sizes, **arguments), train_dataset=rows)
    trainer.train()
    return trainer.state.log_history[0]["grad_norm"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in NAMES])
def test_every_family_s_step_is_the_same_however_it_is_split(name, tmp_path):
    """Accumulated, computed again in the backward pass, and in bfloat16."""
    whole = norm_of_a_step(name, tmp_path, 8, 1)
    assert whole > 0.05
    assert norm_of_a_step(name, tmp_path, 2, 4) == pytest.approx(whole, rel=1e-4)
    assert norm_of_a_step(name, tmp_path, 2, 4, **{CHECKPOINTING: True}) == pytest.approx(whole, rel=1e-4)
    half = [norm_of_a_step(name, tmp_path, *split, bf16=True) for split in ((8, 1), (2, 4))]
    assert half[1] == pytest.approx(half[0], rel=0.02)
    assert half[0] == pytest.approx(whole, rel=0.3)  # such random weights make much of its rounding
