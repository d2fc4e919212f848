"""Is the README true? Its code runs as printed, and its figures are those of the committed results and of the code."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

import hf_mhex
from hf_mhex.training.studies.readme import with_tables
from minilm import MINILM
from networks import lively_resnet

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(code):
    """The names that a block of the README leaves behind."""
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs/demo/mhex-resnet-fashion-mnist"
    model = lively_resnet(torch.float32, num_labels=10)
    model.save_pretrained(folder)
    hf_mhex.image_processor_for(model.config, image_size=56).save_pretrained(folder)
    why = run(BLOCKS[0])["why"]
    assert why.saliency.shape == (1, 56, 56)
    assert (why.saliency.sum() - why.explained[0]).abs() < 1e-5 * max(1, why.logits.abs().max().item())


def test_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs/demo/mhex-bert-product-reviews"
    hf_mhex.from_bert(MINILM, num_labels=2).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    run(BLOCKS[1])
    assert "Word(text='battery'" in capsys.readouterr().out


def test_own_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(timm.create_model("resnet50").state_dict(), "resnet50.safetensors")
    names = run(BLOCKS[2].replace("bert-base-uncased", str(MINILM)))
    assert names["bert"].config.num_labels == 4 and names["resnet"].config.id2label == {0: "normal", 1: "pneumonia"}


def test_tables():
    result = json.loads((ROOT / "results/demo.json").read_text())
    assert with_tables(README, ROOT / "results") == README
    assert len(result["models"]) == 2


BERT_BASE, MINILM_L6 = {}, {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}


@pytest.mark.parametrize(
    "name, make",
    [
        ("resnet18", lambda: hf_mhex.MHEXResNetModel(hf_mhex.MHEXResNetConfig(architecture="resnet18"))),
        ("resnet50", lambda: hf_mhex.MHEXResNetModel(hf_mhex.MHEXResNetConfig(architecture="resnet50"))),
        (
            "resnet50 at rank 64",
            lambda: hf_mhex.MHEXResNetModel(hf_mhex.MHEXResNetConfig(architecture="resnet50", gate_rank=64)),
        ),
        ("BERT-base", lambda: hf_mhex.MHEXBertModel(hf_mhex.MHEXBertConfig(**BERT_BASE))),
        ("MiniLM-L6", lambda: hf_mhex.MHEXBertModel(hf_mhex.MHEXBertConfig(**MINILM_L6))),
    ],
)
def test_parameters_that_gates_add(name, make):
    with torch.device("meta"):
        body = make()
    gates = sum(weight.numel() for gate in body.gates for weight in gate.parameters())
    rest = sum(weight.numel() for weight in body.parameters()) - gates
    stated = re.search(rf"{name} ([\d.]+) M(?: gates)?\s+to\s+([\d.]+) M", README)
    assert stated.groups() == (f"{gates / 1e6:.2f}", f"{rest / 1e6:.2f}")


def test_the_two_commands():
    assert "    make demo" in README and "    make test" in README
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
