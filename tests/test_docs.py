"""The site: the code on its pages runs as printed, its commands parse, its notebooks are clean, its links are whole."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import click
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoTokenizer
from typer.main import get_command

import hf_mhex
from hf_mhex.cli import app
from minilm import MINILM
from networks import lively

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = {path.name: path.read_text() for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]}
PYTHON = re.compile(r"^( *)```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
SHELL = re.compile(
    r"^(?: {4}|\$ )?(mhex [a-z].*|torchrun .*hf_mhex\.cli .*|accelerate launch .*hf_mhex\.cli .*)$", re.M
)
NOT_RUN = {
    "README.md": "tests/test_readme.py and tests/training/test_trainer.py run them",
    "hub.md": "tests/hub runs them against a stub of the Hub",
}


def code_of(page):
    """The page's Python, block after block; small things stand in for what needs a network or minutes."""
    blocks = [re.sub(rf"(?m)^{indent}", "", code) for indent, code in PYTHON.findall(TEXTS[page])]
    code = "\n".join(blocks).replace('"bert-base-uncased"', repr(str(MINILM)))
    return code.replace("num_train_epochs=30", "num_train_epochs=1").replace(
        'convert("resnet18"', 'convert("resnet10t"'
    )


RUN = [page for page in TEXTS if page not in NOT_RUN and PYTHON.search(TEXTS[page])]


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """A folder with what the pages speak of: small models, tables, photos, an archive of MedMNIST's form."""
    home = tmp_path_factory.mktemp("things")
    torch.manual_seed(0)
    clothes = lively("resnet", torch.float32, num_labels=10)
    xrays = lively("resnet", torch.float32, num_labels=2)
    reviews, news = (hf_mhex.convert(MINILM, num_labels=count) for count in (2, 4))
    for model, names in ((news, ("World", "Sports", "Business", "Sci/Tech")), (xrays, ("normal", "pneumonia"))):
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: number for number, name in enumerate(names)}
    for model, names in (
        (clothes, ("clothes/model", "outputs/demo/mhex-resnet-fashion-mnist")),
        (xrays, ("pneumonia/model",)),
        (reviews, ("reviews/model", "outputs/demo/mhex-bert-product-reviews", "my-model")),
        (news, ("news/model",)),
    ):
        first = home / names[0]
        model.save_pretrained(first)
        if model in (clothes, xrays):
            hf_mhex.image_processor_for(model.config, image_size=56).save_pretrained(first)
        else:
            AutoTokenizer.from_pretrained(MINILM).save_pretrained(first)
        for name in names[1:]:  # files that take no room of their own
            shutil.copytree(first, home / name, copy_function=os.link)
    (home / "ag_news_test.csv").write_text('"3","Oil prices fall","as traders go home"\n' * 2)
    for part in ("train", "test"):
        (home / f"{part}.csv").write_text("text,label\n" + "A great phone,1\nA poor battery,0\n" * 4)
        for name, colour in (("cat", "red"), ("dog", "blue")):
            folder = home / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (40, 30), colour).save(folder / f"{number}.png")
    generator = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 24), ("val", 8), ("test", 16)):
        parts[f"{part}_images"] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        parts[f"{part}_labels"] = np.arange(count)[:, None] % 2
    np.savez(home / "pneumoniamnist.npz", **parts)
    save_file(timm.create_model("resnet18").state_dict(), home / "resnet18.safetensors")
    return home


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs(page, things, tmp_path, monkeypatch):
    """Block after block, in a fresh folder."""
    if any(name in TEXTS[page] for name in ("image_methods", "pytorch_grad_cam", "filter_report(")):
        pytest.importorskip("pytorch_grad_cam", reason="the methods of the extra bench")
    if "pyspark" in code_of(page):
        pytest.importorskip("pyspark", reason="the extra engines")
    shutil.copytree(things, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    names = GIVEN[page]() if page in GIVEN else {}
    exec(compile(code_of(page), page, "exec"), names)


def given_training():
    model, tokenizer = hf_mhex.load("my-model")
    inputs = tokenizer(["A great phone", "A poor battery"], return_tensors="pt", padding=True)
    from transformers import TrainingArguments

    rows = [dict(tokenizer(text), labels=number) for number, text in enumerate(("A poor battery", "A great phone"))]
    args = TrainingArguments("run", report_to="none")
    return {
        "hf_mhex": hf_mhex,
        "model": model,
        "inputs": inputs,
        "labels": torch.tensor([1, 0]),
        "rows": rows,
        "args": args,
    }


def given_evaluation():
    model, _ = hf_mhex.load("clothes/model")
    return {"model": model, "pixel_values": torch.rand(1, 3, 56, 56)}


def given_scale():
    model, tokenizer = hf_mhex.load("my-model")
    hf_mhex.explain_dataset(model, tokenizer, [{"text": "A great phone"}], "explained")
    return {}


def given_signals():
    return {"axis": np.linspace(1400, 1800, 1841)}


def given_images():
    model, _ = hf_mhex.load("clothes/model")
    pixels = torch.rand(8, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 2 * 8
    batches = [{"pixel_values": pixels, "labels": labels}]
    target, background = labels, torch.zeros_like(pixels[:1])
    return {"model": model, "pixels": pixels, "labels": labels, "K": 10, "batches": batches} | {
        "target": target,
        "background": background,
    }


# What a page takes as given: a model and rows of its reader's.
GIVEN = {
    "training.md": given_training,
    "evaluation.md": given_evaluation,
    "filters.md": given_images,
    "heads.md": given_images,
    "paper.md": given_images,
    "taylor.md": given_images,
    "scale.md": given_scale,
    "signals.md": given_signals,
}


def commands():
    for page, text in TEXTS.items():
        for line in SHELL.findall(text):
            yield pytest.param(line.partition("  #")[0].strip(), id=f"{page}: {line[:60]}")


@pytest.mark.parametrize("line", list(commands()))
def test_commands_parse(line, things, tmp_path, monkeypatch):
    """Every verb, option and number of arguments is one that `mhex` knows; nothing runs."""
    words = shlex.split(line)
    words = words[words.index("mhex" if words[0] == "mhex" else "hf_mhex.cli") + 1 :]
    words = [re.sub(r"^\[|\]$", "", word) for word in words if word != "..."]
    command = get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    if not words:
        return  # named, not shown
    command.make_context(line, words, resilient_parsing=False)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_hold_no_outputs(path):
    """The build runs them; what it shows is made there."""
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("page", TEXTS)
def test_links_to_others_are_whole(page):
    """Nothing is asked over a network: a scheme, a host with a dot, no blanks."""
    for link in re.findall(r"\]\((https?:[^)]*)\)", TEXTS[page]):
        parts = urlsplit(link)
        assert parts.scheme == "https" and "." in parts.netloc and not re.search(r"\s", link), link


def test_results_stand_in_results():
    assert not list((ROOT / "docs").rglob("*.jsonl"))
    index = (ROOT / "results" / "README.md").read_text()
    for path in (ROOT / "results").iterdir():
        assert path.stem in index, f"results/README.md does not name {path.name}"
