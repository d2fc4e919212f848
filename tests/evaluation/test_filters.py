"""Filters of a block for a class: shares, likeness and scores derived row by row, ablation ends, q-values by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from hf_mhex.evaluation.filters import corrected, filter_report
from hf_mhex.pictures import filters as pictures
from networks import batch_for, image_batch, lively, lively_resnet

LABELS = torch.tensor([1, 0, 1, 1, 2, 1])


def batches():
    pixels = image_batch(6, size=(40, 40), dtype=torch.float64)["pixel_values"]
    return [{"pixel_values": pixels[:3], "labels": LABELS[:3]}, {"pixel_values": pixels[3:], "labels": LABELS[3:]}]


def marks(model, pixels, target, block):
    """A map that knows nothing of the model, and differs from row to row."""
    ramp = torch.linspace(0, 1, 40).expand(len(pixels), 40, 40)
    return torch.where(pixels.mean((1, 2, 3))[:, None, None] > 0, ramp, ramp.mT)


def test_filters_row_by_row():
    model, data = lively_resnet(), batches()
    found = filter_report(model, data, 1, grad_cam=marks, steps=4)
    pixels = torch.cat([batch["pixel_values"] for batch in data])
    shown = {}
    with torch.no_grad():
        model(pixel_values=pixels, explain=lambda block, f: shown.update({block: f.added()}))
    last, mine = shown[model.num_blocks - 1], LABELS == 1
    matrix = model.equivalent_matrix(-1)
    amounts = matrix[1] * last.p[mine].mean(0)
    assert [one.channel for one in found.filters] == amounts.abs().argsort(descending=True, stable=True).tolist()
    logits = model(pixel_values=pixels).block_logits[mine, -1, 1].detach()
    assert sum(one.contribution for one in found.filters) == pytest.approx(float(logits.mean()))
    assert sum(abs(one.share) for one in found.filters) == pytest.approx(1)
    for one in found.filters[:3]:
        assert one.weight == pytest.approx(float(matrix[1, one.channel]))
        maps = last.summands[0][mine, one.channel].relu().float().unflatten(1, last.shape)
        cams = marks(model, pixels[mine], None, -1).float()
        pearson, dice, errors, spread = [], [], [], []
        for raw, cam in zip(maps, cams):
            big = F.interpolate(raw[None, None], (40, 40), mode="bilinear")[0, 0]
            big = (big - big.min()) / (big.max() - big.min()) if big.max() > big.min() else torch.zeros_like(big)
            varies = big.std() > 0
            pearson.append(float(torch.corrcoef(torch.stack([big.flatten(), cam.flatten()]))[0, 1]) if varies else 0)
            a, b = big >= 0.5, cam >= 0.5
            dice.append(2 * int((a & b).sum()) / max(1, int(a.sum() + b.sum())))
            errors.append(float((big - cam).square().mean()))
            total = float(raw.sum())
            parts = [float(value) / total for value in raw.flatten() if value > 0] if total else []
            spread.append(-sum(part * math.log(part) for part in parts) / math.log(raw.numel()))
        mean = lambda values: sum(values) / len(values)  # noqa: E731
        assert (one.pearson, one.dice) == pytest.approx((mean(pearson), mean(dice)), abs=1e-4)
        assert (one.mse, one.spread) == pytest.approx((mean(errors), mean(spread)), abs=1e-4)
        assert one.intensity == pytest.approx(float(maps.mean()), abs=1e-5)
        assert 0 < one.frequency <= 1 or one.intensity == 0
        assert one.q_class >= one.p_class and one.q_likeness >= one.p_likeness


def test_ablation_starts_whole_and_ends_without_filters():
    model, data = lively_resnet(), batches()
    found = filter_report(model, data, 1, block=1, grad_cam=marks, steps=3)
    assert found.block == 1 and found.rows == 4 and len(found.curves) == 4
    pixels = torch.cat([batch["pixel_values"] for batch in data])[LABELS == 1]
    whole = float(model(pixel_values=pixels).logits.softmax(-1)[:, 1].mean().detach())
    points = list(found.curves.values())
    assert all(curve[0][0] == 0 and curve[0][1] == pytest.approx(whole) for curve in points)
    assert {curve[-1] for curve in points} == {points[0][-1]} and points[0][-1][0] == len(found.filters)


def test_a_picture_of_every_filter_alone(tmp_path, monkeypatch):
    """A tile for each filter in the report's order: its own activation on the first row of the class."""
    model, data = lively_resnet(), batches()
    found = filter_report(model, data, 1, block=1, grad_cam=marks, steps=1)
    shown, drawn = {}, []
    model(pixel_values=data[0]["pixel_values"][:1], explain=lambda block, part: shown.update({block: part.added()}))

    def overlay(image, saliency, title, size):
        drawn.append((title, saliency))
        return Image.new("RGB", (size, size), "white")

    monkeypatch.setattr(pictures, "overlay", overlay)
    processor = SimpleNamespace(image_mean=[0.0] * 3, image_std=[1.0] * 3)
    path = pictures.write_maps(found, model, processor, data, tmp_path / "maps.png")
    assert [title for title, _ in drawn] == [f"{one.channel}: {one.share:+.1%}" for one in found.filters]
    active = shown[1].summands[0][0].detach().clamp(min=0)
    for one, (_, drawn_map) in zip(found.filters, drawn):
        map_ = active[one.channel].float()
        spread = map_.max() - map_.min()
        wanted = (map_ - map_.min()) / spread if spread > 0 else map_ * 0
        torch.testing.assert_close(drawn_map.flatten(), wanted)
    assert Image.open(path).width == pictures.TILE * min(pictures.COLUMNS, len(drawn))


def test_grad_cam_of_the_library_at_a_block():
    pytest.importorskip("pytorch_grad_cam", reason="Grad-CAM is in the extra bench: make test-extras")
    from hf_mhex.baselines.cams import grad_cam_family
    from hf_mhex.evaluation.filters import library_grad_cam

    model, pixels = lively_resnet(torch.float32), image_batch(2, size=(40, 40))["pixel_values"]
    target = torch.tensor([1, 2])
    expected = grad_cam_family("GradCAM")(model, pixels, target)
    torch.testing.assert_close(library_grad_cam(model, pixels, target, model.num_blocks - 1), expected)
    assert library_grad_cam(model, pixels, target, 0).shape == (2, 40, 40)


def test_q_values_by_hand():
    assert corrected([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])


def test_what_cannot_be_is_refused():
    model, data = lively_resnet(), batches()
    with pytest.raises(ValueError, match="label"):
        filter_report(model, data, 9, grad_cam=marks)
    with pytest.raises(ValueError, match="two rows"):
        filter_report(model, data, 0, grad_cam=marks)
    with pytest.raises(ValueError, match="blocks"):
        filter_report(model, data, 1, block=44, grad_cam=marks)
    model.config.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match="must tell single labels apart.*problem_type='multi_label_classification'"):
        filter_report(model, data, 1, grad_cam=pytest.fail)
    with pytest.raises(ValueError, match="images"):
        filter_report(lively("bert"), [batch_for("bert") | {"labels": torch.tensor([0, 1, 1, 1])}], 1)
