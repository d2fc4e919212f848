"""Maps point by the default call, where a plain loop teaches it images that no recipe knows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hf_mhex
from hf_mhex.evaluation import build_mosaics, positive_share
from hf_mhex.training.studies.shapes import NAMES, write_shapes

SMALL = {"layers": [1, 2, 2, 1], "channels": [32, 64, 96, 128], "output_stride": 8}
UNTAUGHT = {"rectified": False, "binary_share": 0, "instance_share": 0}


def pixels_of(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def share_at_the_right_place(arrays, **fields) -> float:
    """The mean positive share of a map in the cell of its label, of mosaics of 3 x 3, where chance is 1/9."""
    torch.manual_seed(0)
    model = hf_mhex.convert("resnet18", id2label=dict(enumerate(NAMES)), architecture_kwargs=SMALL, **fields).train()
    pixels, labels = pixels_of(arrays["train_images"]), torch.from_numpy(arrays["train_labels"]).flatten().long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    steps = 8 * len(labels) // 32
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(labels), (32,))
        optimizer.zero_grad()
        model(pixel_values=pixels[rows], labels=labels[rows]).loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    pixels, labels = pixels_of(arrays["val_images"]), torch.from_numpy(arrays["val_labels"]).flatten().long()
    with torch.no_grad():
        scores = F.softmax(model(pixel_values=pixels).logits, -1)
    right = (scores.argmax(-1) == labels) & (scores.amax(-1) >= 0.5)
    assert right.float().mean() > 0.8
    asked = build_mosaics(pixels[right], labels[right], 3, 12, 0, 3)
    maps = model.generate_saliency(pixel_values=asked.images[asked.mosaic], target=asked.target).saliency
    return float(positive_share(maps, asked.cell, 3).mean())


@pytest.mark.slow
def test_the_default_call_gives_maps_that_point(tmp_path):
    arrays = np.load(write_shapes(tmp_path / "shapes.npz"))
    assert share_at_the_right_place(arrays) > max(0.7, 1.5 * share_at_the_right_place(arrays, **UNTAUGHT))
