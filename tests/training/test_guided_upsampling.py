"""Does upsampling by the image keep sums, follow the image, and equal the model's own where the image is flat?"""

import pytest
import torch

from hf_mhex.modeling.mhex_maps import upsample_map
from hf_mhex.training.guided_upsampling import guided_map, spread
from networks import image_batch, lively_resnet


def test_a_flat_image_changes_nothing():
    cells = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spread(cells, torch.ones(1, 13, 9), 0.5), upsample_map(cells, (13, 9)))


def test_a_cell_falls_on_the_pixels_that_look_like_its_mean_and_keeps_its_sum():
    image = torch.zeros(1, 8, 8)
    image[:, :1] = 3.0  # a few of the upper cells' pixels
    cells = torch.tensor([[2.0, -1.0], [0.0, 0.0]])
    found, plain = spread(cells, image, 0.5), upsample_map(cells, (8, 8))
    assert found.sum() == pytest.approx(1.0, abs=1e-5)
    assert found[0].abs().sum() < plain[0].abs().sum() / 2


def test_the_whole_map_adds_up_to_the_logit():
    model, inputs = lively_resnet(torch.float32).eval(), image_batch()
    target = torch.tensor([0, 1, 2])
    found = guided_map(model, inputs["pixel_values"], target)
    assert found.shape == (3, *inputs["pixel_values"].shape[-2:])
    logits = model(**inputs).logits[torch.arange(3), target]
    torch.testing.assert_close(found.sum((1, 2)), logits, rtol=1e-4, atol=1e-4)
