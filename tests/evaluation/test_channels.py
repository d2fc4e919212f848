"""Channels' contributions, which add up to the logit, and cosines of gradients against plain autograd."""

import pytest
import torch

from hf_mhex.evaluation.channels import channel_report
from hf_mhex.evaluation.collaboration import collaboration, cosine
from networks import batch_for, lively, lively_resnet

FAMILIES = ["bert", "resnet", "vit"]


def model_and_batches(family):
    return lively(family), [batch_for(family, torch.float64, batch=4, seed=seed) for seed in (0, 1, 2)]


def all_logits(model, batches):
    with torch.no_grad():
        return torch.cat([model(**batch).logits for batch in batches])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("contrast", [None, "mean"])
def test_contributions_add_up_to_the_mean_logit(family, contrast):
    model, batches = model_and_batches(family)
    logits = all_logits(model, batches)
    answers = logits.argmax(-1)
    if contrast:
        logits = logits - (logits.sum(-1, keepdim=True) - logits) / (logits.shape[-1] - 1)
    for report in channel_report(model, batches, top=10_000, examples=0, contrast=contrast):
        rows = answers == report.label
        assert report.rows == int(rows.sum())
        if report.rows:
            expected = logits[rows, report.label].mean().item()
            assert report.logit == pytest.approx(expected) and sum(report.by_block) == pytest.approx(expected)
            assert sum(channel.contribution for channel in report.channels) == pytest.approx(expected)
            assert sum(abs(channel.share) for channel in report.channels) == pytest.approx(1)
        else:
            assert report.channels == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_examples_are_the_strongest_rows_and_their_maps_add_up(family):
    model, batches = model_and_batches(family)
    answers = all_logits(model, batches).argmax(-1)
    for report in channel_report(model, batches, top=5, examples=3):
        sizes = [abs(channel.contribution) for channel in report.channels]
        assert sizes == sorted(sizes, reverse=True)
        for channel in report.channels:
            assert len(channel.examples) == min(3, report.rows)
            amounts = [example.contribution for example in channel.examples]
            assert amounts == sorted(amounts, reverse=channel.contribution >= 0)
            for example in channel.examples:
                assert answers[example.row] == report.label
                assert float(example.map.sum()) == pytest.approx(example.contribution, abs=1e-9)
                assert example.map.ndim == (1 if family == "bert" else 2)


def test_examples_do_not_depend_on_how_rows_are_batched():
    model, batches = model_and_batches("resnet")
    single = [{"pixel_values": row[None]} for batch in batches for row in batch["pixel_values"]]
    for left, right in zip(channel_report(model, batches, 4, 2), channel_report(model, single, 4, 2)):
        assert [[e.row for e in c.examples] for c in left.channels] == [
            [e.row for e in c.examples] for c in right.channels
        ]


@pytest.mark.parametrize("rows", [3, 8, 11, 600])
def test_the_command_looks_at_as_many_rows_as_it_was_told(rows, monkeypatch):
    from hf_mhex.cli.channels import read_batches

    batches = [{"labels": torch.arange(8) + 8 * number} for number in range(3)]
    monkeypatch.setattr("hf_mhex.training.evaluation.rows_for", lambda *_: (iter(batches), {}))
    found = read_batches(lively("bert"), None, "rows.csv", [], None, rows)
    assert torch.cat([batch["labels"] for batch in found]).tolist() == [*range(min(rows, 24))]


def test_options_that_cannot_be_are_refused():
    model, batches = model_and_batches("resnet")
    with pytest.raises(ValueError, match="contrast"):
        channel_report(model, batches, contrast="softmax")
    with pytest.raises(ValueError, match="top"):
        channel_report(model, batches, top=0)
    with pytest.raises(ValueError, match="one label"):
        channel_report(lively_resnet(num_labels=1), batches, contrast="mean")


@pytest.mark.parametrize("family", FAMILIES)
def test_cosines_are_those_of_the_two_gradients(family):
    model, batches = model_and_batches(family)
    batch = batches[0] | {"labels": torch.tensor([0, 1, 2, 3])}
    found = collaboration(model, [batch])
    assert found.cosines.shape == (4, model.num_blocks - 1) and found.cosines.abs().max() <= 1 + 1e-9
    one = {name: value[1:2] for name, value in batches[0].items()}
    for block in range(model.num_blocks - 1):
        gradients = []
        for head in (block, block + 1):
            model.zero_grad()
            torch.nn.functional.cross_entropy(model(**one).block_logits[:, head], batch["labels"][1:2]).backward()
            gradients.append(model.base_model.gates[block].weight.grad.clone())
        assert found.cosines[1, block].item() == pytest.approx(float(cosine(*gradients)), abs=1e-9)
    model.zero_grad(set_to_none=True)


def test_the_summary_relates_cosines_to_confidence_and_drop():
    model, batches = model_and_batches("resnet")
    batches = [batch | {"labels": torch.tensor([0, 1, 2, 3])} for batch in batches]
    model.requires_grad_(False)
    found = collaboration(model, batches, drop=lambda batch: torch.linspace(0, 1, len(batch["labels"])))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    rows = found.summary()
    assert [row["block"] for row in rows] == list(range(model.num_blocks - 1))
    for row in rows:
        assert row["low"] <= row["cosine"] <= row["high"] and row["rows"] == 12
        assert -1 <= row["with drop"]["low"] <= row["with drop"]["high"] <= 1
    assert "with drop" not in collaboration(model, batches).summary()[0]


def test_a_gradient_of_zero_has_no_direction():
    assert cosine(torch.zeros(3), torch.ones(3)) == 0 and cosine(None, torch.ones(3)) == 0
    assert cosine(torch.ones(3), 2 * torch.ones(3)).item() == pytest.approx(1)


def test_what_has_no_collaboration_is_refused():
    model, batches = model_and_batches("bert")
    with pytest.raises(ValueError, match="labels"):
        collaboration(model, batches)
    model.config.problem_type = "regression"
    with pytest.raises(ValueError, match="single labels"):
        collaboration(model, batches)
