"""Does a saved folder work for somebody without hf_mhex? In fresh processes that cannot import it."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from hf_mhex import MHEXBertConfig, MHEXBertForSequenceClassification, image_processor_for
from minilm import MINILM
from networks import enliven, image_batch, lively_resnet

MODELING = Path(__file__).parents[2] / "modeling"
STRANGER = Path(__file__).with_name("stranger_reads.py")
SENTENCES = [
    "good phone",
    "the battery is bad",
    "I like it, mostly.",
    "no",
] * 5  # more rows than blocks
FAMILIES = ["image-classification", "text-classification"]


def save_text_model(folder, inputs):
    """An MHEX-BERT with a real vocabulary, its tokenizer, 20 sentences and a padded batch of them."""
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    batch = dict(tokenizer(SENTENCES[:4], padding=True, return_tensors="pt"))
    torch.manual_seed(0)
    names = {0: "bad", 1: "good", 2: "unclear"}
    fields = {"id2label": names, "problem_type": "single_label_classification"}
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    config = MHEXBertConfig(vocab_size=len(tokenizer), **fields, **sizes)
    model = enliven(MHEXBertForSequenceClassification(config).double(), batch).float()
    tokenizer.save_pretrained(folder)
    (inputs / "items.json").write_text(json.dumps(SENTENCES))
    return model, batch


def save_image_model(folder, inputs):
    """An MHEX-ResNet, its image processor, 20 pictures and a batch of pixels."""
    model = lively_resnet(torch.float32, id2label={0: "a", 1: "b", 2: "c"}, problem_type="single_label_classification")
    image_processor_for(model.config, image_size=48).save_pretrained(folder)
    generator = torch.Generator().manual_seed(1)
    names = [f"{number}.png" for number in range(20)]
    for name in names:
        pixels = torch.randint(0, 256, (50, 40, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(inputs / name)
    (inputs / "items.json").write_text(json.dumps(names))
    return model, image_batch()


def ask(task, folder, inputs, home, resaved):
    """What a fresh process finds in `folder`: its record and its tensors."""
    answers = home / "answers"
    answers.mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", str(STRANGER), task, str(folder), str(inputs), str(answers), str(resaved)]
    subprocess.run(command, check=True, env=environment, cwd=home)
    return json.loads((answers / "record.json").read_text()), load_file(answers / "answers.safetensors")


@pytest.mark.parametrize("task", FAMILIES)
def test_a_saved_folder_in_a_fresh_process(task, tmp_path):
    folder, inputs = tmp_path / "model", tmp_path / "inputs"
    inputs.mkdir()
    save = save_image_model if task == "image-classification" else save_text_model
    model, batch = save(folder, inputs)
    model.save_pretrained(folder)
    save_file(batch, inputs / "inputs.safetensors")
    answer = model.generate_saliency(**batch)
    every = model.generate_saliency(**batch, target="all", contrast="softmax")
    assert answer.logits.abs().max() > 0.5

    def check(record, tensors):
        assert "transformers_modules" in record["module"]
        assert record["body"] == type(model.base_model).__name__
        assert (tensors["logits"] - answer.logits).abs().max() <= 1e-6
        assert (tensors["saliency"] - answer.saliency).abs().max() <= 1e-6
        assert (tensors["every"] - every.saliency).abs().max() <= 1e-6
        for block, values in enumerate(every.block_saliency):
            assert (tensors[f"block.{block}"] - values).abs().max() <= 1e-6
        assert "trust_remote_code=True" in record["refusal"]
        assert len(record["batched"]) == 20
        labels = set(model.config.id2label.values())
        for one, many in zip(record["one_by_one"], record["batched"]):
            one, many = (found[0] if isinstance(found, list) else found for found in (one, many))
            assert one["label"] == many["label"] and one["label"] in labels
            assert abs(one["score"] - many["score"]) <= 1e-5
        if task == "text-classification":
            assert not any(name.startswith("timm") for name in record["modules"])

    check(*ask(task, folder, inputs, tmp_path / "first", tmp_path / "resaved"))
    for extra in folder.iterdir():  # what the model itself does not save: the processor's files
        if not (tmp_path / "resaved" / extra.name).exists():
            shutil.copy(extra, tmp_path / "resaved")
    shutil.rmtree(folder)
    check(*ask(task, tmp_path / "resaved", inputs, tmp_path / "second", tmp_path / "again"))


SOURCES = sorted(path for path in MODELING.glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_code_that_travels(path):
    """Flat relative imports, one a line; torch, transformers and timm; no files, no network, no hf_mhex; short."""
    text = path.read_text()
    tree = ast.parse(text)
    allowed = {"torch", "transformers"} | set(sys.stdlib_module_names)
    if "resnet" in path.name:
        allowed.add("timm")
    barred = {
        "os",
        "io",
        "pathlib",
        "socket",
        "subprocess",
        "urllib",
        "shutil",
        "pickle",
        "http",
        "ctypes",
        "importlib",
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                assert node.level == 1 and node.module and "." not in node.module
                assert (MODELING / f"{node.module}.py").exists()
                continue
            modules = [node.module]
        else:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "exec", "eval", "compile", "__import__"}
            continue
        for module in modules:
            assert module.split(".")[0] in allowed - barred, module
    for found in re.findall(r"^\s*from\s+\.(\S+)\s+import", text, re.MULTILINE):  # what transformers copies
        assert (MODELING / f"{found}.py").exists()
    limit = 400 if path.name == "mhex.py" else 350
    assert len(text.splitlines()) < limit
