"""Runs that were killed and resumed: they end with the weights of those that were not, bit for bit."""

import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_mhex.training.run import last_whole_checkpoint
from schemas import small_bert, texts, write_csv, write_medmnist

LOOP = Path(__file__).parents[2] / "training" / "examples" / "accelerate_loop.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
TRAINING = """
training: {num_train_epochs: 2, per_device_train_batch_size: 4, gradient_accumulation_steps: 2, learning_rate: 1e-3,
           seed: 3, use_cpu: true, save_steps: 3, save_strategy: steps, logging_steps: 1, lr_scheduler_type: cosine,
           eval_strategy: steps, eval_steps: 3, load_best_model_at_end: true, metric_for_best_model: accuracy}
evaluation: {metrics: [accuracy]}
"""
IMAGES = """
model: {architecture: resnet18, architecture_kwargs: {layers: [1, 1, 1, 1], channels: [8, 8, 12, 12],
        drop_path_rate: 0.2}}
processing: {image_size: 28, crop_pct: 1.0, flip: 0.5, shift: 0.1, min_area: 0.6}
optimisation: {sampling: balanced}
"""
TEXTS = """
model: {family: bert, weights: %s}
optimisation: {sampling: by_length, layer_decay: 0.8, head_learning_rate: 3e-3}
"""


def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(tmp_path):
    for step, text in ((2, '{"global_step": 2}'), (10, '{"global_step": 10}'), (12, '{"glob'), (14, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if text:
            (folder / "trainer_state.json").write_text(text)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_whole_checkpoint(tmp_path / "none") is None


def start(*command):
    """A Python program at work."""
    command = [sys.executable, *map(str, command)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)


def train(recipe, output, *options):
    """`mhex train` at work."""
    return start("-m", "hf_mhex.cli", "train", recipe, "--output", output, *options)


def finish(process):
    """Wait for a program and see that it went well."""
    out = process.communicate()[0]
    assert process.returncode == 0, out[-3000:]


def different(whole, killed):
    """Names of the weights in which two runs' models differ."""
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (whole, killed))
    assert first.keys() == second.keys()
    return [name for name in first if not first[name].equal(second[name])]


def wait_for(path, process, seconds=180):
    """Until `path` is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0][-3000:]
        time.sleep(0.01)


@pytest.fixture
def recipe(request, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "recipe.yaml"
    if request.param == "images":
        source = write_medmnist(tmp_path / "set.npz", 3, colour=True, counts=(92, 24, 24))
        path.write_text(IMAGES + f"data: {{source: {source}}}" + TRAINING)
    else:
        found, labels = texts(120)
        source = write_csv(tmp_path / "rows.csv", {"text": found, "label": labels})
        path.write_text(TEXTS % small_bert(tmp_path / "bert") + f"data: {{source: {source}}}" + TRAINING)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["images", "texts"], indirect=True)
def test_killed_and_resumed_is_uninterrupted(recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    other, process = train(recipe, whole), train(recipe, killed)
    wait_for(killed / "checkpoints/checkpoint-9/trainer_state.json", process)  # it saves after steps 3, 6 and 9 of 12
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "model").exists()
    assert (killed / "checkpoints" / "checkpoint-9").is_dir()
    finish(other)
    finish(train(recipe, killed, "--resume"))
    assert different(whole, killed) == []


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["images", "texts"], indirect=True)
def test_the_accelerate_loop_goes_on_after_a_kill_at_any_point(recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(LOOP, recipe, whole, "num_train_epochs=4.0"))
    generator = random.Random(0)
    for epoch in (1, 2, 3):  # killed while it saves the epoch's state, or soon after
        process = start(LOOP, recipe, killed, "num_train_epochs=4")
        wait_for(killed / "states" / f"epoch-{epoch}", process)
        time.sleep(generator.uniform(0, 0.1))
        process.kill()
        process.communicate()
    finish(start(LOOP, recipe, killed, "num_train_epochs=4"))
    assert different(whole, killed) == []


def test_a_state_that_a_kill_cut_short_is_passed_over(tmp_path):
    last_state = runpy.run_path(str(LOOP))["last_state"]
    assert last_state(tmp_path / "states") == 0
    for epoch, marked in ((2, True), (10, True), (11, False)):
        (tmp_path / "states" / f"epoch-{epoch}").mkdir(parents=True)
        if marked:
            (tmp_path / "states" / f"epoch-{epoch}" / "whole").touch()
    assert last_state(tmp_path / "states") == 10
