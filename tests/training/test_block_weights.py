"""Are fitted weights of blocks those that least squares finds by hand, and does the weighed map still add up?"""

import pytest
import torch

from hf_mhex.evaluation import ImageGame
from hf_mhex.evaluation.faithfulness import random_subsets
from hf_mhex.quality.images import ImageMeasures, square_numbers
from hf_mhex.quality.parts import Images, Sizes, Texts, image_scores
from hf_mhex.quality.texts import TextMeasures
from hf_mhex.training.block_weights import block_terms, fit_block_weights, weighed_map
from networks import image_batch, lively_bert, lively_resnet


@pytest.fixture
def images():
    """Measures over three images."""
    pixels = image_batch()["pixel_values"]
    return ImageMeasures(lively_resnet(torch.float32).eval(), Images(pixels, torch.arange(3)), Sizes(rows=3))


@pytest.fixture
def texts():
    """Measures over three texts, one of special tokens alone."""
    ids = (torch.tensor([1, 7, 8, 9, 10, 2]), torch.tensor([1, 2]), torch.tensor([1, 12, 9, 5, 2]))
    part = Texts(ids, torch.arange(3), mask_id=4, pad_id=0, special_ids=(0, 1, 2))
    return TextMeasures(lively_bert(torch.float32).eval(), part, Sizes(rows=3))


def test_weights_are_those_of_the_normal_equations(images):
    model, part = images.model, images.part
    left, right = torch.zeros(model.num_blocks, model.num_blocks).double(), torch.zeros(model.num_blocks).double()
    numbers = square_numbers(*part.pixels.shape[-2:])
    for row in range(3):
        target = int(images.target[row])
        maps = [
            model.generate_saliency(pixel_values=part.pixels[row : row + 1], target=target, blocks=[block]).saliency[0]
            for block in range(model.num_blocks)
        ]
        generator = torch.Generator().manual_seed(row)
        squares = int(numbers.max()) + 1
        sizes = torch.randint(1, squares + 1, (16,), generator=generator).tolist()
        for subset in random_subsets(squares, sizes, row):
            gone = subset[numbers]
            held = torch.stack([each.flatten()[gone].double().sum() for each in maps])
            whole, rest = ImageGame(image_scores(model), part.pixels[row], target)(torch.stack([gone | True, ~gone]))
            left, right = left + held.outer(held), right + held * (whole - rest)
    torch.testing.assert_close(fit_block_weights(images, {}, 16), torch.linalg.solve(left, right), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_weighed_map_adds_up_to_the_weighed_logits(kind, request):
    measures = request.getfixturevalue(kind)
    model, target = measures.model, measures.target[:1]
    inputs = measures.part.pixels[:1] if kind == "images" else measures.part.inputs([0])
    given = {"pixel_values": inputs} if kind == "images" else {name: inputs[name] for name in ("input_ids",)}
    weights = torch.linspace(-1, 2, model.num_blocks).double()
    logits = model(**given).block_logits[0, :, int(target)]
    found = weighed_map(model, inputs, target, weights, {})
    assert found.shape[1:] == (inputs.shape[-2:] if kind == "images" else (6,))
    torch.testing.assert_close(found.sum().double(), (weights * logits.double()).sum(), rtol=1e-4, atol=1e-4)


def test_weights_of_a_text_serve_its_removals_best(texts):
    found = fit_block_weights(texts, {}, 32)
    assert found.shape == (texts.model.num_blocks,) and found.isfinite().all()

    def infidelity(weights):
        total = 0.0
        for row in (0, 2):
            terms, game = block_terms(texts, row, {})
            generator = torch.Generator().manual_seed(row)
            sizes = torch.randint(1, terms.shape[1] + 1, (32,), generator=generator).tolist()
            gone = random_subsets(terms.shape[1], sizes, row)
            cost = game(torch.ones(1, terms.shape[1], dtype=torch.bool)) - game(~gone)
            total += float((cost - gone.double() @ terms.mT @ weights).square().sum())
        return total

    least = infidelity(found)
    steps = 0.01 * torch.eye(len(found)).double()
    assert all(infidelity(found + sign * step) >= least for step in steps for sign in (1, -1))
