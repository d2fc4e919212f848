"""Does a run that was killed in mid-epoch end with the weights of one that was not, bit for bit?"""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from hf_mhex.training.run import last_whole_checkpoint
from schemas import small_bert, texts, write_csv, write_medmnist

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


def start(recipe, output, *options):
    """`mhex train` at work."""
    command = [sys.executable, "-m", "hf_mhex.cli", "train", str(recipe), "--output", str(output), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)


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


@pytest.mark.parametrize(
    "recipe, engine",
    [
        ("images", "trainer"),
        pytest.param("texts", "trainer", marks=pytest.mark.slow),
        pytest.param("images", "accelerate", marks=pytest.mark.slow),
        pytest.param("texts", "accelerate", marks=pytest.mark.slow),
    ],
    indirect=["recipe"],
)
def test_killed_and_resumed_is_uninterrupted(recipe, engine, tmp_path):
    options = ["--engine", engine]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    other = start(recipe, whole, *options)
    process = start(recipe, killed, *options)
    # Trainer saves within the epoch, after steps 3, 6 and 9 of 12; the loop after the first epoch
    saved = "checkpoints/checkpoint-9/trainer_state.json" if engine == "trainer" else "checkpoints/last/log.json"
    wait_for(killed / saved, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "model").exists()
    if engine == "trainer":
        assert (killed / "checkpoints" / "checkpoint-9").is_dir()
    assert other.wait() == 0, other.communicate()[0][-3000:]
    other.communicate()
    resumed = start(recipe, killed, "--resume", *options)
    out = resumed.communicate()[0]
    assert resumed.returncode == 0, out[-3000:]
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (whole, killed))
    assert first.keys() == second.keys()
    assert [name for name in first if not first[name].equal(second[name])] == []
