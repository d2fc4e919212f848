"""Grid Pointing Game and pointing game: chance for maps that know nothing, 1 for those that know."""

import numpy as np
import pytest
import torch

from hf_mhex.evaluation import (
    bootstrap,
    build_mosaics,
    centred_gaussian,
    confident_rows,
    constant_map,
    pointing_game,
    points_nowhere,
    positive_share,
    random_map,
)


@pytest.mark.parametrize("grid", [2, 3])
def test_constant_and_random_maps_score_chance(grid):
    inputs = torch.zeros(90, 3, 12 * grid, 12 * grid)
    cells = torch.arange(90) % grid**2
    chance = 1 / grid**2
    assert positive_share(constant_map(inputs), cells, grid).tolist() == pytest.approx([chance] * 90)
    found = positive_share(random_map(inputs), cells, grid)
    assert found.mean().item() == pytest.approx(chance, abs=0.005)
    assert found.median().item() == pytest.approx(chance, abs=0.01)
    assert positive_share(centred_gaussian(inputs), cells, grid).mean().item() == pytest.approx(chance)


def test_a_perfect_map_scores_one_and_the_opposite_zero():
    maps = torch.zeros(4, 6, 10)
    for cell, (row, column) in enumerate([(0, 0), (0, 5), (3, 0), (3, 5)]):
        maps[cell, row : row + 3, column : column + 5] = torch.rand(3, 5) + 0.1
    assert positive_share(maps, torch.arange(4), 2).tolist() == [1, 1, 1, 1]
    assert positive_share(maps, torch.tensor([1, 2, 3, 0]), 2).tolist() == [0, 0, 0, 0]
    assert positive_share(-maps, torch.arange(4), 2).tolist() == [0.25] * 4  # points nowhere: chance
    assert points_nowhere(-maps).all() and not points_nowhere(maps).any()


def test_negative_values_are_cut_off_not_turned():
    maps = torch.tensor([[[1.0, -5.0], [3.0, 0.0]]])
    assert positive_share(maps, torch.tensor([0]), 2).tolist() == [0.25]
    assert positive_share(maps, torch.tensor([1]), 2).tolist() == [0.0]


def test_cells_and_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not split"):
        positive_share(torch.ones(1, 5, 4), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match="cells"):
        positive_share(torch.ones(1, 4, 4), torch.tensor([4]), 2)


def test_pointing_game_counts_ties_as_ties():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 0, :2] = True
    peak = torch.zeros(1, 4, 4)
    peak[0, 0, 1] = 1
    assert pointing_game(peak, masks).tolist() == [1.0]
    assert pointing_game(torch.ones(1, 4, 4), masks).tolist() == [2 / 16]  # flat: the mask's area, not a hit
    peak[0, 3, 3] = 1
    assert pointing_game(peak, masks).tolist() == [0.5]
    assert pointing_game(peak, torch.zeros_like(masks)).tolist() == [0.0]


def test_pointing_game_tolerance_widens_the_mask():
    masks, peak = torch.zeros(1, 5, 5, dtype=torch.bool), torch.zeros(1, 5, 5)
    masks[0, 0, 0], peak[0, 1, 1] = True, 1
    assert pointing_game(peak, masks).tolist() == [0.0]
    assert pointing_game(peak, masks, tolerance=1).tolist() == [1.0]


def numbered_images(labels):
    """Images whose every pixel is their row's number plus 1, [N, 1, 2, 3]."""
    return torch.arange(1, len(labels) + 1).view(-1, 1, 1, 1).expand(-1, 1, 2, 3).float()


@pytest.mark.parametrize(("classes", "grid"), [(10, 3), (10, 2), (2, 2), (2, 3), (5, 3)])
def test_mosaics_hold_the_asked_class_in_one_cell_only(classes, grid):
    labels = torch.arange(60) % classes
    found = build_mosaics(numbered_images(labels), labels, grid, 8, seed=3)
    assert found.images.shape == (8, 1, 2 * grid, 3 * grid)
    assert len(found.target) == (8 * grid**2 if classes >= grid**2 else 8)
    for mosaic, target, cell in zip(found.mosaic, found.target, found.cell):
        rows = found.images[mosaic, 0, ::2, ::3].flatten().long() - 1
        assert len(rows.unique()) == grid**2
        assert (labels[rows] == target).nonzero()[:, 0].tolist() == [int(cell)]
    if classes < grid**2:
        assert len(found.cell.unique()) > 1 and len(found.target.unique()) > 1


@pytest.mark.parametrize(("grid", "asked"), [(2, 1), (2, 2), (3, 3)])
def test_asked_cells_go_round(grid, asked):
    labels = torch.arange(60) % 10
    found = build_mosaics(numbered_images(labels), labels, grid, 2 * grid**2, asked=asked)
    assert torch.bincount(found.mosaic).tolist() == [asked] * 2 * grid**2
    assert torch.bincount(found.cell).tolist() == [2 * asked] * grid**2  # no cell is asked more often than another
    for mosaic, target, cell in zip(found.mosaic, found.target, found.cell):
        rows = found.images[mosaic, 0, ::2, ::3].flatten().long() - 1
        assert (labels[rows] == target).nonzero()[:, 0].tolist() == [int(cell)]
    with pytest.raises(ValueError, match="asked"):
        build_mosaics(numbered_images(labels), labels, grid, 1, asked=grid**2 + 1)


def test_too_few_images_are_refused():
    labels = torch.zeros(9, dtype=torch.long)
    with pytest.raises(ValueError, match="too few"):
        build_mosaics(numbered_images(labels), labels, 2, 1)
    labels[0] = 1
    with pytest.raises(ValueError, match="confidence"):
        build_mosaics(numbered_images(labels)[:4], torch.tensor([0, 0, 1, 1]), 2, 1)


def test_confident_rows_are_right_and_sure():
    probabilities = torch.tensor([[0.95, 0.05], [0.99, 0.01], [0.99, 0.01], [0.6, 0.4]])
    assert confident_rows(probabilities, torch.tensor([0, 0, 1, 0])).tolist() == [1, 0]


def test_questions_of_one_mosaic_are_drawn_together():
    values = np.repeat([0.0, 1.0], 50)
    apart, together = bootstrap(values), bootstrap(values, groups=np.repeat([0, 1], 50))
    assert together.rows == 2 and together.high - together.low > 3 * (apart.high - apart.low)
