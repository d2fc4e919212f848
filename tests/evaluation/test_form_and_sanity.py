"""Form, controls, intervals and sanity checks against known answers."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from hf_mhex.evaluation import (
    blurred_copy,
    bootstrap,
    centred_gaussian,
    completeness_error,
    constant_map,
    correlation,
    edge_map,
    entropy,
    gini,
    paired_difference,
    parameter_randomisation,
    random_logit,
    random_map,
    share_interval,
    shuffle_parameters,
    similarity,
    student_interval,
    unit_range,
)
from hf_mhex.evaluation.controls import gaussian_blur
from hf_mhex.evaluation.ordering import ranks
from hf_mhex.evaluation.sanity import bottom_up
from networks import image_batch, lively_resnet


def test_gini_and_entropy_of_known_maps():
    one = torch.zeros(1, 4, 5)
    one[0, 1, 2] = -3
    flat, zero = torch.full((1, 4, 5), 2.0), torch.zeros(1, 4, 5)
    two = torch.zeros(1, 4, 5)
    two[0, 0, :2] = torch.tensor([1.0, -1.0])
    assert gini(torch.cat([one, flat, zero, two])).tolist() == pytest.approx([1 - 1 / 20, 0, 0, 0.9])
    expected = [0, math.log(20), math.log(20), math.log(2)]
    assert entropy(torch.cat([one, flat, zero, two])).tolist() == pytest.approx(expected, abs=1e-12)


def test_unit_range_gives_zeros_for_flat_maps():
    maps = torch.stack([torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.full((2, 2), 7.0), torch.zeros(2, 2)])
    found = unit_range(maps)
    assert found[0].tolist() == [[0, 0.25], [0.5, 1]] and not found[1:].any()


def test_ranks_and_correlation_with_ties():
    assert ranks(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0, 2.5, 1]
    a = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert correlation(a, a**3) == pytest.approx(1.0) and correlation(a, -a, "pearson") == pytest.approx(-1.0)
    assert correlation(torch.ones(4), torch.ones(4)) == 1.0
    assert correlation(torch.ones(4), a) == correlation(a, torch.zeros(4)) == 0.0
    with pytest.raises(ValueError, match="how"):
        correlation(a, -a, "kendall")
    with pytest.raises(ValueError, match="alike"):
        correlation(a, a[:2])


@pytest.mark.parametrize("shape, sigma", [((2, 9), 1.5), ((1, 7, 5), 0.8), ((2, 4, 6), 3.0)])
def test_a_blur_is_a_sum_over_neighbours_with_edges_continued(shape, sigma):
    """Axis by axis, cut at three sigma; longer than the map too, and in half precision."""
    maps = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reach, wanted = max(1, round(3 * sigma)), maps
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-reach, reach + 1)]
    for axis in range(1, len(shape)):
        lines, found = wanted.movedim(axis, -1), torch.zeros_like(wanted.movedim(axis, -1))
        for place in range(lines.shape[-1]):
            for step, weight in zip(range(-reach, reach + 1), weights):
                near = min(max(place + step, 0), lines.shape[-1] - 1)
                found[..., place] += lines[..., near] * weight / sum(weights)
        wanted = found.movedim(-1, axis)
    assert torch.allclose(gaussian_blur(maps, sigma), wanted, atol=1e-12)
    half = gaussian_blur(maps.bfloat16(), sigma)
    assert half.dtype == torch.bfloat16 and torch.allclose(half.double(), wanted, atol=0.02)


def test_controls_have_the_shape_of_maps():
    images, tokens = torch.rand(2, 3, 10, 14), torch.randint(0, 9, (2, 7))
    for control in (constant_map, random_map, centred_gaussian):
        assert control(images).shape == (2, 10, 14) and control(tokens).shape == (2, 7)
    assert edge_map(images).shape == (2, 10, 14)
    middle = centred_gaussian(torch.zeros(1, 3, 9, 9))[0]
    assert middle.argmax() == 40 and torch.equal(middle, middle.T) and torch.allclose(middle, middle.flip(0))
    assert not torch.equal(random_map(images, 0), random_map(images, 1))


def test_edges_lie_where_the_image_changes():
    step = torch.zeros(1, 2, 6, 6)
    step[..., 3:] = 1
    found = edge_map(step)[0]
    assert found[:, 2:4].tolist() == [[8.0, 8.0]] * 6 and not found[:, [0, 1, 4, 5]].any()


def test_a_blurred_copy_keeps_the_sum_inside_and_flat_maps():
    maps = torch.zeros(1, 41, 41)
    maps[0, 20, 20] = 1
    found = blurred_copy(maps, 0.05)
    assert found.sum().item() == pytest.approx(1.0) and found.argmax() == maps.argmax() and found.max() < 0.1
    assert torch.allclose(blurred_copy(torch.full((2, 9), 3.0)), torch.full((2, 9), 3.0))
    with pytest.raises(ValueError, match="sigma"):
        blurred_copy(maps, 0)


def test_bootstrap_intervals_cover_and_pairing_narrows():
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        found = bootstrap(generator.normal(1.0, 1.0, 60), seed=seed, samples=400)
        hits += found.low <= 1.0 <= found.high
    assert 86 <= hits <= 100
    shared = generator.normal(0, 5, 80)
    left, right = shared + generator.normal(0.5, 0.5, 80), shared
    paired = paired_difference(left, right)
    assert paired.low > 0 and paired.high - paired.low < 0.4
    assert bootstrap(left).low < bootstrap(right).high  # the separate intervals overlap all the same


@pytest.mark.parametrize(("share", "rows"), [(0.0, 5), (1.0, 30), (0.85, 600), (0.5, 1)])
def test_the_interval_of_a_share_is_wilson_s(share, rows):
    found, known = share_interval(share, rows), binomtest(round(share * rows), rows).proportion_ci(method="wilson")
    if (share * rows).is_integer():
        assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.low <= share <= found.high and found.rows == rows
    with pytest.raises(ValueError, match="share must lie in"):
        share_interval(1.5, rows)


def test_students_interval_over_seeds():
    found = student_interval([0.1, 0.3, 0.2])
    half = 4.302653 * 0.1 / 3**0.5  # t of two degrees of freedom, from a table
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), rel=1e-5)
    assert found.rows == 3
    with pytest.raises(ValueError, match="at least two"):
        student_interval([0.1])


def test_bootstrap_of_the_median_of_one_row_and_of_nothing():
    assert bootstrap([1, 2, 100], statistic="median").estimate == 2
    alone = bootstrap([0.4])
    assert (alone.low, alone.high, alone.rows) == (0.4, 0.4, 1) and "0.400" in str(alone)
    for wrong in ([], [float("nan")], [[1.0]]):
        with pytest.raises(ValueError, match="values"):
            bootstrap(wrong)
    with pytest.raises(ValueError, match="groups"):
        bootstrap([1, 2], groups=[1])
    with pytest.raises(ValueError, match="same rows"):
        paired_difference([1], [1, 2])
    with pytest.raises(ValueError, match="statistic"):
        bootstrap([1, 2], statistic="mode")


def mhex_map(model, inputs, target):
    return model.generate_saliency(pixel_values=inputs, target=target).saliency


def edges(model, inputs, target):
    return edge_map(inputs)


def test_a_class_blind_map_has_random_logit_correlation_one():
    model, inputs = lively_resnet(), image_batch(dtype=torch.float64)["pixel_values"]
    target = torch.tensor([0, 1, 2])
    assert random_logit(edges, model, inputs, target, 4) == [1.0, 1.0, 1.0]
    found = random_logit(mhex_map, model, inputs, target, 4)
    assert max(found) < 0.95

    def signed(model, inputs, target):
        return torch.arange(12.0).view(1, 3, 4) * (2 * target.view(-1, 1, 1) - 1)

    assert random_logit(signed, None, inputs, torch.tensor([0, 1, 0]), 2) == pytest.approx([-1, -1, -1])
    with pytest.raises(ValueError, match="num_labels"):
        random_logit(edges, model, inputs, target, 1)


def test_a_model_blind_map_survives_randomisation_and_a_map_of_the_model_does_not():
    model, inputs = lively_resnet(), image_batch(dtype=torch.float64)["pixel_values"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    blind = parameter_randomisation(edges, model, inputs, 1, stages=2)
    assert blind["similarity"] == [1, 1, 1] and blind["complexity_rise"] == [0, 0, 0]
    found = parameter_randomisation(mhex_map, model, inputs, 1, stages=3)
    assert found["shares"][0] == 0 and found["shares"][-1] == 1
    assert found["similarity"][0] == 1 and abs(found["similarity"][-1]) < 0.7
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_layers_are_shuffled_from_the_input_up():
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 3))
    changed = []
    for share, found in bottom_up(model, 3):
        changed.append([share] + [not torch.equal(model[i].weight, found[i].weight) for i in (0, 2, 3)])
    assert changed == [
        [0, False, False, False],
        [pytest.approx(1 / 3), True, False, False],
        [pytest.approx(2 / 3), True, True, False],
        [1, True, True, True],
    ]
    assert torch.equal(found[0].weight.flatten().sort().values, model[0].weight.flatten().sort().values)


def test_shuffling_is_reproducible():
    layer = nn.Linear(8, 8)
    first, second = (nn.Linear(8, 8) for _ in range(2))
    for other in (first, second):
        other.load_state_dict(layer.state_dict())
        shuffle_parameters(other.parameters(), seed=4)
    assert torch.equal(first.weight, second.weight) and not torch.equal(first.weight, layer.weight)


def test_completeness_error_is_relative_above_one():
    maps = torch.tensor([[1.0, 2.0], [10.0, 10.0]])
    assert completeness_error(maps, torch.tensor([3.0, 10.0])).tolist() == [0.0, 1.0]
    assert completeness_error(maps[:1], torch.tensor([0.5])).tolist() == [2.5]


def test_similarity_works_row_by_row():
    maps = torch.rand(2, 3, 3)
    assert similarity(maps, torch.stack([maps[0], -maps[1]])).tolist() == pytest.approx([1, -1])
