"""The survey of timm's architectures: what works, what is refused, and the published page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from hf_mhex import FAMILIES
from hf_mhex.conversion import load_trunk
from hf_mhex.training.studies.architectures import (
    LARGEST,
    completeness_error,
    difference,
    enliven,
    measure,
    plain_network,
    read,
    render,
    survey,
    tried,
    versions,
    works,
)

FAMILY = FAMILIES["mhex_resnet"]
PUBLISHED = Path(__file__).parents[2] / "results/architectures"
IMAGES = [family.name for family in FAMILIES.values() if family.library == "timm"]


@pytest.mark.parametrize("architecture, block, blocks", [("resnet10t", "BasicBlock", 4), ("resnet26", "Bottleneck", 8)])
def test_an_architecture_that_works_is_measured(architecture, block, blocks):
    """Full gates, and those of low rank that bottlenecks have by default."""
    row = measure(FAMILY, architecture)
    assert works(row)
    assert (row["architecture"], row["block"], row["blocks"]) == (architecture, block, blocks)
    body = timm.create_model(architecture, num_classes=0)
    assert row["body_parameters"] == sum(parameter.numel() for parameter in body.parameters())
    model = FAMILY.classifier(FAMILY.config(architecture=architecture, num_labels=1000))
    gates = [parameter for gate in model.base_model.gates for parameter in gate.parameters()]
    assert row["gate_parameters"] == sum(parameter.numel() for parameter in gates)
    assert row["head_parameters"] == sum(head.weight.numel() for head in model.heads)
    assert json.loads(json.dumps(row)) == row


def test_what_differs_is_seen(monkeypatch):
    pixels = torch.randn(2, 3, 64, 64)
    plain = plain_network("resnet10t", pixels)
    norms = [value for name, value in plain.named_parameters() if value.ndim == 1 and name.endswith("weight")]
    assert len(norms) > 10 and all(0.5 <= value.min() < value.max() <= 1.5 for value in norms)
    config = FAMILY.config(architecture="resnet10t", num_labels=3, architecture_kwargs={"drop_path_rate": 0.1})
    model = FAMILY.classifier(config)
    load_trunk(model, plain.state_dict(), "a test")
    assert difference(plain, model, pixels, train=False) == 0
    nn.init.normal_(model.base_model.gates[1].weight)
    assert difference(plain, model, pixels, train=False) > 1e-3
    assert difference(plain, model, pixels, train=True) > 1e-3
    enliven(model, pixels)
    block_logits = model(pixels).block_logits
    assert all(1 < block_logits[:, block].std() < 3 for block in range(4))
    assert completeness_error(model, pixels) <= 1e-5
    answer = model.generate_saliency(pixel_values=pixels, target="all")
    *maps, last = answer.block_saliency
    for part in ({"saliency": answer.saliency * 1.01}, {"block_saliency": (*maps, last * 1.01)}):
        wrong = replace(answer, **part)
        monkeypatch.setattr(model, "generate_saliency", lambda wrong=wrong, **inputs: wrong)
        assert completeness_error(model, pixels) > 1e-3


def test_not_a_number_does_not_work():
    row = {"eval_difference": 0.0, "train_difference": 0.0, "completeness_error": 1e-6}
    assert works(row)
    for name in row:
        assert not works({**row, name: float("nan")}) and not works({**row, name: 1e-3})


@pytest.mark.parametrize(
    "architecture, words",
    [
        ("vgg11", "is timm's VGG; MHEXResNetModel takes its ResNet."),
        ("res2net50_26w_4s", "has Bottle2neck blocks; MHEXResNetModel takes BasicBlock, Bottleneck."),
    ],
)
def test_an_architecture_that_does_not_is_refused(architecture, words):
    assert tried(FAMILY, architecture) == words
    with pytest.raises(ValueError, match=f"architecture='{architecture}'"):
        measure(FAMILY, architecture)


def test_a_survey_counts_every_name_once():
    found = survey(FAMILY, ["resnet18", "vgg13", "resnet34", "vgg11"])
    reason = {"reason": "is timm's VGG; MHEXResNetModel takes its ResNet.", "count": 2, "first": "vgg13"}
    assert found == {
        **versions(),
        "family": "resnet",
        "registered": 4,
        "accepted": {
            name: sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())
            for name in ("resnet18", "resnet34")
        },
        "refused": [reason],
    }


@pytest.mark.parametrize("family", IMAGES)
def test_the_published_page_is_the_records_and_every_accepted_name_works(family):
    lines = read(PUBLISHED / f"{family}.jsonl")
    assert render(lines) == (PUBLISHED / f"{family}.md").read_text(encoding="utf-8")
    summary, *rows = lines
    small = {name for name, size in summary["accepted"].items() if size <= LARGEST}
    assert {row["architecture"] for row in rows} == small and len(rows) == len(small) >= 4
    assert all(works(row) for row in rows)
    refused = sum(reason["count"] for reason in summary["refused"])
    assert len(summary["accepted"]) + refused == summary["registered"]


def test_a_page_says_no_where_an_architecture_fails():
    summary, *rows = read(PUBLISHED / "resnet.jsonl")
    row = {**rows[0], "train_difference": 0.5}
    page = render([{**summary, "accepted": {row["architecture"]: row["body_parameters"]}}, row])
    assert "were measured, and 0 work" in page
    assert f"| {row['architecture']} | {row['block']} | no |" in page
