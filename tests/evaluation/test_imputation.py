"""ROAD's linear system, for every mask at once, against a dense solver."""

import pytest
import torch

from hf_mhex.evaluation import impute


def slow_imputation(image, keep):
    """The same, pixel by pixel and with a dense solver, in float64."""
    height, width = keep.shape
    weights = {(0, 1): 1 / 6, (1, 0): 1 / 6, (0, -1): 1 / 6, (-1, 0): 1 / 6}
    weights |= {(a, b): 1 / 12 for a in (-1, 1) for b in (-1, 1)}
    gone = [(i, j) for i in range(height) for j in range(width) if not keep[i, j]]
    place = {pixel: number for number, pixel in enumerate(gone)}
    matrix = torch.zeros(len(gone), len(gone), dtype=torch.float64)
    right = torch.zeros(len(gone), len(image), dtype=torch.float64)
    for (i, j), number in place.items():
        for (a, b), weight in weights.items():
            if 0 <= i + a < height and 0 <= j + b < width:
                matrix[number, number] += weight
                if (i + a, j + b) in place:
                    matrix[number, place[i + a, j + b]] -= weight
                else:
                    right[number] += weight * image[:, i + a, j + b].double()
    filled = image.double().clone()
    if gone:
        for number, values in enumerate(torch.linalg.solve(matrix, right)):
            filled[:, gone[number][0], gone[number][1]] = values
    return filled


@pytest.mark.parametrize("sides", [(9, 11), (11, 9), (1, 60), (60, 1)])
def test_equals_a_dense_solver_on_every_mask(sides):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, *sides, generator=generator)
    keep = torch.rand(6, *sides, generator=generator) > torch.tensor([0.05, 0.2, 0.4, 0.6, 0.8, 0.95])[:, None, None]
    keep[0, 0, 0] = keep[1, -1, -1] = False  # corners have three neighbours, the ends of a line one
    found = impute(image, keep, noise=0.0)
    for row in range(6):
        assert torch.allclose(found[row].double(), slow_imputation(image, keep[row]), atol=1e-4)
        assert torch.equal(found[row][:, keep[row]], image[:, keep[row]])


def test_a_flat_image_stays_flat_and_a_whole_one_as_it_is():
    flat, keep = torch.full((2, 6, 6), 0.3), torch.zeros(1, 6, 6, dtype=torch.bool)
    keep[0, 2, 3] = True
    assert torch.allclose(impute(flat, keep, noise=0.0)[0], flat, atol=1e-5)
    image = torch.rand(1, 5, 5)
    assert torch.equal(impute(image, torch.ones(1, 5, 5, dtype=torch.bool))[0], image)


def test_noise_lies_on_filled_pixels_only_and_is_reproducible():
    image, keep = torch.zeros(1, 40, 40), torch.ones(1, 40, 40, dtype=torch.bool)
    keep[0, :20] = False
    found = impute(image, keep, noise=0.5)
    assert found[0, 0, :20].std().item() == pytest.approx(0.5, rel=0.1)
    assert (found[0, 0, 20:] == 0).all() and torch.equal(found, impute(image, keep, noise=0.5))


def test_a_long_signal_takes_little():
    """A system as large as the signal would take 8 GB for each of the masks."""
    keep = torch.ones(2, 1, 32_000, dtype=torch.bool)
    keep[0, 0, 10:20] = keep[1, 0, 31_000:] = False
    found = impute(torch.arange(32_000.0)[None, None], keep, noise=0.0)
    assert torch.allclose(found[0, 0, 0, 9:21], torch.arange(9.0, 21.0)) and (found[1, 0, 0, 31_000:] == 30_999).all()


def test_nothing_to_fill_from_is_refused():
    with pytest.raises(ValueError, match="at least one pixel"):
        impute(torch.rand(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool))
