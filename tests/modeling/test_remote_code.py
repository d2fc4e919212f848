"""Saved folders in the hands of somebody without hf_mhex, in fresh processes that cannot import it."""

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

from hf_mhex import FAMILIES, MHEXSignalFeatureExtractor, image_processor_for
from minilm import MINILM
from networks import IMAGES, NAMES, SIGNALS, batch_for, family_named, lively

TESTS = Path(__file__).parents[1]
STRANGER = Path(__file__).with_name("stranger_reads.py")
SENTENCES = ["good phone", "the battery is bad", "I like it, mostly.", "no"] * 5  # more rows than blocks
FAST = ("bert",)  # images too are pulled by a stranger in tests/hub/test_cycle.py
LABELS = {
    "num_labels": 3,
    "id2label": {0: "bad", 1: "good", 2: "unclear"},
    "problem_type": "single_label_classification",
}


def save(name, folder, inputs):
    """A small model of a family and its processor in `folder`; a batch of tensors and 20 items in `inputs`."""
    if name in IMAGES:
        model = lively(name, torch.float32, **LABELS)
        processor = image_processor_for(model.config, image_size=48)
        generator = torch.Generator().manual_seed(1)
        items = [f"{number}.png" for number in range(20)]
        for item in items:
            pixels = torch.randint(0, 256, (50, 40, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(inputs / item)
    elif name in SIGNALS:
        model = lively(name, torch.float32, **LABELS)
        items = torch.randn(20, 61, generator=torch.Generator().manual_seed(1)).tolist()
        processor = MHEXSignalFeatureExtractor().fit(items)
    else:
        processor, items = AutoTokenizer.from_pretrained(MINILM), SENTENCES
        fields = {"vocab_size": len(processor), "pad_token_id": processor.pad_token_id}
        model = lively(name, torch.float32, **LABELS, **fields)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    batch = batch_for(name)
    save_file(batch, inputs / "inputs.safetensors")
    (inputs / "items.json").write_text(json.dumps(items))
    return model, batch


def ask(task, folder, inputs, home, resaved):
    """What a fresh process finds in `folder`: its record and its tensors."""
    answers = home / "answers"
    answers.mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", str(STRANGER), task, str(folder), str(inputs), str(answers), str(resaved)]
    subprocess.run(command, check=True, env=environment, cwd=home)
    return json.loads((answers / "record.json").read_text()), load_file(answers / "answers.safetensors")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in NAMES])
def test_a_saved_folder_in_a_fresh_process(name, tmp_path):
    """It loads and answers as where it was made; so does what the stranger saved of it."""
    task = family_named(name).input.task
    folder, inputs = tmp_path / "model", tmp_path / "inputs"
    inputs.mkdir()
    model, batch = save(name, folder, inputs)
    answer = model.generate_saliency(**batch)
    every = model.generate_saliency(**batch, target="all", contrast="softmax")
    refined = model.generate_saliency(**batch, refine=2, mask_token_id=3 if "input_ids" in batch else None)
    assert answer.logits.abs().max() > 0.5

    def check(record, tensors):
        assert "transformers_modules" in record["module"]
        assert record["body"] == type(model.base_model).__name__
        assert (tensors["logits"] - answer.logits).abs().max() <= 1e-6
        assert (tensors["saliency"] - answer.saliency).abs().max() <= 1e-6
        assert (tensors["every"] - every.saliency).abs().max() <= 1e-6
        assert (tensors["refined"] - refined.saliency).abs().max() <= 1e-6
        for block, values in enumerate(every.block_saliency):
            assert (tensors[f"block.{block}"] - values).abs().max() <= 1e-6
        assert "trust_remote_code=True" in record["refusal"]
        assert len(record["batched"]) == 20
        labels = set(model.config.id2label.values())
        for one, many in zip(record["one_by_one"], record["batched"], strict=True):
            one, many = (found[0] if isinstance(found, list) else found for found in (one, many))
            assert one["label"] == many["label"] and one["label"] in labels
            assert abs(one["score"] - many["score"]) <= 1e-5
        if name not in IMAGES:
            assert not any(module.startswith("timm") for module in record["modules"])

    check(*ask(task, folder, inputs, tmp_path / "first", tmp_path / "resaved"))
    for extra in folder.iterdir():  # what the model itself does not save: the processor's files
        if not (tmp_path / "resaved" / extra.name).exists():
            shutil.copy(extra, tmp_path / "resaved")
    shutil.rmtree(folder)
    check(*ask(task, tmp_path / "resaved", inputs, tmp_path / "second", tmp_path / "again"))


SOURCES = {
    path.stem: path
    for folder in (TESTS.parent / "modeling", TESTS / "toy")
    for path in sorted(folder.glob("*.py"))
    if path.stem != "__init__"
}
BARRED = {
    "os", "io", "pathlib", "socket", "subprocess", "urllib", "shutil", "pickle", "http", "ctypes", "importlib"
}  # fmt: skip
IMAGE_FILES = {"mhex_images"} | {
    module.rpartition(".")[2] for family in FAMILIES.values() if family.library == "timm" for module in family.files
}


def named(stem):
    """What a file imports from beside it, as transformers reads it: one `from .name import` a line."""
    return set(re.findall(r"^\s*from\s+\.(\S+)\s+import", SOURCES[stem].read_text(), re.MULTILINE))


def needed(stem):
    """The files that a file needs, at any depth."""
    found, waiting = set(), [stem]
    while waiting:
        new = named(waiting.pop()) - found
        found |= new
        waiting += new
    return found


@pytest.mark.parametrize("stem", SOURCES)
def test_the_code_that_travels(stem):
    """Flat relative imports; torch, transformers and, for images, timm; no files, no network, no hf_mhex."""
    allowed = {"torch", "transformers"} | set(sys.stdlib_module_names) - BARRED
    if stem in IMAGE_FILES:
        allowed.add("timm")
    beside = set()
    for node in ast.walk(ast.parse(SOURCES[stem].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module in SOURCES
            beside.add(node.module)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            assert {module.partition(".")[0] for module in modules} <= allowed
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "exec", "eval", "compile", "__import__"}
    assert named(stem) == beside


@pytest.mark.parametrize("stem", SOURCES)
def test_a_file_names_all_that_it_needs(stem):
    """Loaders copy what a file names, and older ones look no deeper."""
    assert needed(stem) - {stem} <= named(stem)
    assert stem in IMAGE_FILES or not needed(stem) & IMAGE_FILES
