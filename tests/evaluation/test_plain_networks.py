"""Single heads and filters of plain networks: what a piece adds is measured, and exact before a last linear layer."""

import copy

import pytest
import torch

from hf_mhex.evaluation import filter_report, single_heads
from hf_mhex.families import FAMILIES
from hf_mhex.training.plain import PlainImageClassifier, PlainSignalClassifier, plain_text
from networks import image_batch, lively, signal_batch
from schemas import small_bert

NAMES = {family.name: family for family in FAMILIES.values()}


def settled(model):
    """A network in eval mode whose weights say something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight + 0.2 * weight.std().nan_to_num(1.0) * torch.randn(weight.shape, generator=generator))
    return model.eval()


def plain_image(family="resnet", labels=4):
    config = copy.deepcopy(lively(family, torch.float32).config)
    config.num_labels = labels
    torch.manual_seed(0)
    return settled(PlainImageClassifier(config))


def batches(labels=4, rows=24):
    pixels = image_batch(rows, size=(32, 32))["pixel_values"]
    return [{"pixel_values": part, "labels": torch.arange(len(part)) % labels} for part in pixels.split(8)]


def test_a_channel_group_before_the_last_layer_adds_what_the_layer_takes_of_it():
    model, data = plain_image(), batches()
    found = single_heads(model, data, groups=3)
    with torch.no_grad():
        pooled = torch.cat([model.network.forward_features(batch["pixel_values"]).mean((2, 3)) for batch in data])
        logits = torch.cat([model(pixel_values=batch["pixel_values"]).logits for batch in data])
    labels, weight = torch.cat([batch["labels"] for batch in data]), model.network.fc.weight.detach()
    for report in found.pieces:
        part = slice(report.piece.start, report.piece.stop)
        added = pooled[:, part] @ weight[:, part].mT
        for label in range(4):
            torch.testing.assert_close(
                report.field[label].float(), added[labels == label].mean(0), rtol=1e-3, atol=1e-4
            )
        assert report.predicted is None and report.block_fall is None
        torch.testing.assert_close(report.model_fall, report.field.diagonal())
    total = sum(report.field for report in found.pieces)[2].float() + model.network.fc.bias.detach()
    torch.testing.assert_close(total, logits[labels == 2].mean(0), rtol=1e-3, atol=1e-4)
    assert found.agreement == {} and found.rest == {}
    assert {len(points) for points in found.curves.values()} == {4} and found.curves["strongest first"][0][2] is None
    assert not any(module._forward_hooks for module in model.modules())


def test_a_head_of_a_plain_bert_adds_what_is_lost_with_its_columns(tmp_path):
    torch.manual_seed(0)
    names = {0: "a", 1: "b"}
    fields = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    model = settled(plain_text(str(small_bert(tmp_path / "bert")), fields))
    ids = torch.randint(5, 30, (12, 9), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(12) % 2}
    found = single_heads(model, [batch], blocks=[0, 1])
    assert [str(report.piece) for report in found.pieces] == [f"head {n}" for n in range(4)] * 2
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        before = model(**inputs).logits.double()
        for report in found.pieces:
            without = copy.deepcopy(model)
            project = without.blocks[report.piece.block].attention.output.dense.weight
            project[:, report.piece.start : report.piece.stop] = 0
            lost = before - without(**inputs).logits.double()
            for label in (0, 1):
                torch.testing.assert_close(
                    report.field[label], lost[batch["labels"] == label].mean(0), atol=1e-5, rtol=0
                )
    grouped = single_heads(model, [batch], blocks=[1], groups=2)
    assert [str(report.piece) for report in grouped.pieces] == ["channels 0-15", "channels 16-31"]
    assert found.record(names)["pieces"][0]["predicted"] is None


def test_a_filter_before_the_last_layer_adds_its_exact_part():
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is in the extra bench: make test-extras")
    model, data = plain_image(), batches()
    found = filter_report(model, data, label=1, steps=2)
    with torch.no_grad():
        logits = torch.cat([model(pixel_values=batch["pixel_values"]).logits for batch in data])
    labels = torch.cat([batch["labels"] for batch in data])
    total = sum(one.contribution for one in found.filters) + model.network.fc.bias[1].item()
    assert total == pytest.approx(logits[labels == 1, 1].mean().item(), rel=1e-4)
    first = found.filters[0]
    assert first.weight == model.network.fc.weight[1, first.channel].item()
    earlier = filter_report(model, data, label=1, block=0, steps=2)
    assert earlier.filters[0].weight is None and abs(earlier.filters[0].contribution) > 0
    strong = {point[0]: point[1] for point in earlier.curves["strongest first by contribution"]}
    assert len(strong) == 3 and len(earlier.filters) == model.block_widths[0]


def test_a_plain_network_of_tokens_has_no_filters():
    with pytest.raises(ValueError, match="classifies by tokens has no map of a filter; give one of convolutions"):
        filter_report(plain_image("vit"), batches(), label=1)


def test_channel_groups_of_plain_signals():
    config = copy.deepcopy(lively("signal", torch.float32).config)
    model = settled(PlainSignalClassifier(config))
    given = signal_batch()
    labels = torch.arange(len(given["input_values"])) % 2
    found = single_heads(model, [given | {"labels": labels}], blocks=[0, -1], groups=2)
    assert {report.piece.block for report in found.pieces} == {0, len(model.blocks) - 1}
    with torch.no_grad():
        pooled = model.signal(**given).pooler_output
        last = found.pieces[-1]
        part = slice(last.piece.start, last.piece.stop)
        added = pooled[:, part] @ model.classifier.weight[:, part].mT
    torch.testing.assert_close(last.field[1].float(), added[labels == 1].mean(0), rtol=1e-3, atol=1e-4)
