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


def test_gradient_norms_are_alike_over_accumulation_and_processes(folder):
    alone, together = start(folder, "8x1", "2x4"), start(folder, "4x1", processes=2)
    (whole, accumulated), (shared,) = answers(alone), answers(together)
    assert len(whole) == 12
    for case, norm in whole.items():
        assert norm > 0.05, case
        assert accumulated[case] == pytest.approx(norm, rel=1e-4), case
        assert shared[case] == pytest.approx(norm, rel=1e-4), case
