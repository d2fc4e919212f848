"""Sharded models learn as whole ones, and Accelerate takes the launch configurations."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from fsdp_steps import steps
from hf_mhex import load
from hf_mhex.training import recipe as recipes
from hf_mhex.training import run
from schemas import read_log, small_bert, texts, write_csv, write_medmnist

CONFIGS = sorted((Path(recipes.__file__).parent / "configs").glob("*.yaml"))
SCRIPT = Path(__file__).parents[1] / "support" / "fsdp_steps.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
RECIPES = {
    "resnet": """
model: {architecture: resnet18, architecture_kwargs: {layers: [1, 1, 1, 1], channels: [8, 8, 12, 12]}, config: {%s}}
data: {source: %s}
processing: {image_size: 28, crop_pct: 1.0}
optimisation: {freeze_batch_norm: true}
""",
    "bert": """
model: {family: bert, weights: %s, config: {hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0, %s}}
data: {source: %s}
""",
}


def recipe_text(family, folder, config=""):
    """A recipe over generated data of the family in `folder`."""
    torch.manual_seed(0)
    if family == "resnet":
        return RECIPES[family] % (config, write_medmnist(folder / "set.npz", 3, colour=True))
    found, labels = texts(64)
    source = write_csv(folder / "rows.csv", {"text": found, "label": labels})
    return RECIPES[family] % (small_bert(folder / "bert"), config, source)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["", "binary_share: 0.5, instance_share: 0.3"])
@pytest.mark.parametrize("family", ["resnet", "bert"])
def test_fsdp2_on_two_processes_learns_as_one(family, config, tmp_path):
    """torch's fully_shard over gloo; Accelerate itself takes FSDP on accelerators only."""
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text(family, tmp_path, config))
    _, whole = steps(str(path), shard=False)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(SCRIPT), str(path)], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    shared = next(json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("FOUND "))
    for alone, together in zip(whole, shared):
        assert together == pytest.approx(alone, rel=1e-4)


@pytest.mark.slow
def test_the_command_under_torchrun(tmp_path):
    """Two processes leave one model, one log and one answer."""
    source = write_medmnist(tmp_path / "set.npz", 3, colour=True)
    path = tmp_path / "recipe.yaml"
    training = "training: {max_steps: 4, per_device_train_batch_size: 4, logging_steps: 1, use_cpu: true}\n"
    path.write_text(RECIPES["resnet"] % ("", source) + training)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "hf_mhex.cli",
    ]
    command += ["train", str(path), "activation_checkpointing=true", "--json", "--output", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    (answer,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    row = json.loads(answer)
    assert row["processes"] == 2 and row["steps"] == 4
    assert row["rows"]["test"] == 32
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("family, stage", [("bert", 2), ("bert", 3), ("resnet", 2), ("resnet", 3)])
def test_deepspeed_on_two_processes_learns_as_one(family, stage, tmp_path):
    """The shipped configuration, in float32 on CPUs; the folder that it saves holds the whole weights."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is none of the extras: pip install deepspeed")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        recipe_text(family, tmp_path) + "training: {max_steps: 4, logging_steps: 1, use_cpu: true, learning_rate: 1e-3}"
    )
    alone = tmp_path / "alone"
    run.train(recipes.load_recipe(str(recipe), ["per_device_train_batch_size=8"]), alone)
    values = yaml.safe_load(next(path for path in CONFIGS if path.stem == f"deepspeed_zero{stage}").read_text())
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values | {"mixed_precision": "no"}))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "-m", "hf_mhex.cli"]
    command += ["train", str(recipe), "per_device_train_batch_size=4", "--output", str(tmp_path / "shared")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT | {"DS_ACCELERATOR": "cpu"})
    assert done.returncode == 0, done.stderr[-3000:]
    for one, two in zip(read_log(alone)[:4], read_log(tmp_path / "shared")[:4], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-2)
    whole, shared = (load(folder / "model")[0].state_dict() for folder in (alone, tmp_path / "shared"))
    assert whole.keys() == shared.keys()
    assert all(torch.allclose(whole[name], shared[name], atol=1e-3) for name in whole)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_launch_configurations(path):
    """Accelerate reads them, and its own dataclass knows every key."""
    from accelerate.commands.config.config_args import load_config_from_file

    values = yaml.safe_load(path.read_text())
    config = load_config_from_file(str(path))
    assert str(config.distributed_type).endswith(values["distributed_type"])
    assert config.num_processes == 2


def test_the_fsdp_configuration_wraps_blocks_that_there_are():
    from hf_mhex import MHEXBertForSequenceClassification, MHEXResNetForImageClassification

    path = next(path for path in CONFIGS if path.stem == "fsdp2")
    wrapped = yaml.safe_load(path.read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"]
    assert wrapped in MHEXBertForSequenceClassification._no_split_modules
    assert all(name in path.read_text() for name in MHEXResNetForImageClassification._no_split_modules)
