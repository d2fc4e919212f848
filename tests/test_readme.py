"""README and docs: their code runs as printed, their figures are those of committed results, their links lead on."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

import hf_mhex
from hf_mhex.training.studies.added import BODIES
from hf_mhex.training.studies.readme import with_tables
from minilm import MINILM
from networks import lively

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
README = PAGES[0].read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(code):
    """The names that a block of the README leaves behind."""
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs/demo/mhex-resnet-fashion-mnist"
    model = lively("resnet", torch.float32, num_labels=10)
    model.save_pretrained(folder)
    hf_mhex.image_processor_for(model.config, image_size=56).save_pretrained(folder)
    names = run(BLOCKS[0])
    why, saliency = names["why"], names["saliency"]
    assert saliency.saliency.shape == (1, 56, 56) and why.saliency.shape == (56, 56)
    tolerance = 1e-5 * max(1, saliency.logits.abs().max().item())
    assert (saliency.saliency.sum() - saliency.explained[0]).abs() < tolerance
    assert abs(why.saliency.sum() - why.explained) < 2 * tolerance and why.picture.size[0] > 50


def test_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs/demo/mhex-bert-product-reviews"
    hf_mhex.convert(MINILM, num_labels=2).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    run(BLOCKS[1])
    assert "Word(text='battery'" in capsys.readouterr().out


def test_own_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(timm.create_model("resnet50").state_dict(), "resnet50.safetensors")
    names = run(BLOCKS[2].replace("bert-base-uncased", str(MINILM)))
    assert names["text"].config.num_labels == 4 and names["image"].config.id2label == {0: "normal", 1: "pneumonia"}


@pytest.mark.parametrize(
    "page, tables",
    [
        ("README.md", ["demo"]),
        ("docs/measured.md", ["explanations", "accuracy", "what gates add"]),
        ("docs/meaning.md", ["explanations"]),
        (
            "docs/heads.md",
            [
                "single heads of Fashion-MNIST",
                "single heads of a plain network for Fashion-MNIST",
                "single heads of product reviews",
                "single heads of a plain network for product reviews",
            ],
        ),
        ("docs/filters.md", ["filters of Fashion-MNIST", "filters of a plain network"]),
        ("docs/paper.md", ["the paper's measures"]),
        ("docs/signals.md", ["zones of coffee", "zones of coffee by a plain network", "signals"]),
        ("docs/taylor.md", ["stability"]),
    ],
)
def test_tables_are_those_of_the_results(page, tables):
    text = (ROOT / page).read_text()
    assert with_tables(text, ROOT / "results") == text
    assert re.findall(r"<!-- (?!end of )(.+?) table -->", text) == tables
    assert len(json.loads((ROOT / "results/demo.json").read_text())["models"]) == 2


@pytest.mark.parametrize("name", BODIES)
def test_parameters_that_gates_add(name):
    """Counted again by the weights' names; the page has no number of its own."""
    family, fields = BODIES[name]
    entry = hf_mhex.FAMILIES[f"mhex_{family}"]
    with torch.device("meta"):
        body = entry.body(entry.config(**fields))
    gates = sum(weight.numel() for key, weight in body.named_parameters() if "gate" in key)
    rest = sum(weight.numel() for key, weight in body.named_parameters() if "gate" not in key)
    line = f"| {name} | {gates / 1e6:.2f} M | {rest / 1e6:.2f} M | {100 * gates / rest:.1f} % |"
    assert line in (ROOT / "results/added.md").read_text()


def test_the_two_commands():
    assert "    make demo" in README and "    make test" in README
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")
    assert len(README.encode()) < 6000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link, mark in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / link if link else page
        assert target.exists(), link
        if mark:
            titles = re.findall(r"(?m)^#+ (.*)$", target.read_text())
            assert mark in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], mark
