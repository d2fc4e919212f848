"""The paper's measures against their formulas, on networks that can be computed by hand."""

import pytest
import torch

from hf_mhex.evaluation import average_drop, effective_average_drop, marked_area, soft_average_drop, text_drop
from hf_mhex.evaluation.drop import area_weight

MASK, CLS, SEP, PAD = 9, 1, 2, 0


def mean_score(inputs):
    """Class 1 has the mean of the pixels as its probability."""
    p = inputs.mean((1, 2, 3))
    return torch.stack([1 - p, p], 1)


def image_and_map():
    """A 2 x 2 image of ones whose left column is marked."""
    return torch.ones(1, 1, 2, 2), torch.tensor([[[1.0, 0.0], [0.6, 0.5]]])


def test_average_drop_sets_what_is_above_one_half_to_zero():
    inputs, maps = image_and_map()  # 1 and 0.6 go, 0.5 stays: p falls from 1 to 1/2
    assert average_drop(mean_score, inputs, maps, 1).tolist() == [0.5]
    assert average_drop(mean_score, inputs, maps, 0).tolist() == [0.0]  # p was 0 and rose: no drop, no NaN


def test_a_rise_counts_as_no_drop():
    inputs, maps = -torch.ones(1, 1, 2, 2), image_and_map()[1]
    assert average_drop(lambda x: mean_score(x * 0.5 + 1), inputs, maps, 1).tolist() == [0.0]


def test_soft_average_drop_moves_towards_the_images_own_mean_colour():
    inputs = torch.tensor([[[[2.0, 0.0]]]])  # mean 1
    maps = torch.tensor([[[1.0, 0.5]]])  # becomes 1 and 0.5

    def first_pixel(x):
        return torch.stack([x[:, 0, 0, 0] / 4, x[:, 0, 0, 1] / 4], 1)

    assert soft_average_drop(first_pixel, inputs, maps, 0).tolist() == [0.5]
    flat = torch.full((1, 1, 1, 2), 0.7)
    assert soft_average_drop(mean_score, flat, maps, 1).tolist() == pytest.approx([0.0])


def test_effective_average_drop_weighs_by_area():
    inputs, maps = image_and_map()  # three of four pixels above 0.2
    t = 0.75
    expected = 0.5 * 5 * t / (1 + 256 * t**5)
    assert effective_average_drop(mean_score, inputs, maps, 1).tolist() == pytest.approx([expected])
    assert marked_area(maps).tolist() == [0.75]
    areas = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    assert area_weight(areas).tolist() == pytest.approx([0.0, 1.0, 5 / 257])
    assert area_weight(torch.linspace(0, 1, 101)).argmax() == 25


def test_an_empty_map_drops_nothing():
    inputs = torch.rand(3, 2, 4, 4)
    for measure in (average_drop, soft_average_drop, effective_average_drop):
        assert measure(mean_score, inputs, torch.zeros(3, 4, 4), 1).tolist() == [0, 0, 0]


def test_maps_out_of_range_are_refused():
    inputs = torch.rand(1, 1, 2, 2)
    with pytest.raises(ValueError, match="unit_range"):
        average_drop(mean_score, inputs, torch.full((1, 2, 2), 1.5), 1)
    with pytest.raises(ValueError, match="maps must be"):
        average_drop(mean_score, inputs, torch.zeros(1, 3, 2), 1)
    with pytest.raises(ValueError, match="target"):
        average_drop(mean_score, inputs, torch.zeros(1, 2, 2), 2)


def unmasked_share(input_ids, attention_mask):
    """Class 0 has the share of token 5 among the content tokens."""
    content = (attention_mask != 0) & (input_ids != CLS) & (input_ids != SEP)
    p = (content & (input_ids == 5)).sum(1) / content.sum(1).clamp(min=1)
    return torch.stack([p, 1 - p], 1)


def text(words, padding=0):
    """A text of that many tokens 5 between [CLS] and [SEP]."""
    ids = torch.tensor([[CLS, *[5] * words, SEP, *[PAD] * padding]])
    return ids, (ids != PAD).long()


@pytest.mark.parametrize(("words", "replaced"), [(1, 1), (4, 1), (5, 1), (6, 2), (10, 2), (100, 20), (300, 20)])
def test_text_drop_replaces_a_fifth_at_least_one_at_most_twenty(words, replaced):
    ids, mask = text(words, padding=3)
    found = text_drop(unmasked_share, ids, mask, torch.rand(ids.shape), 0, MASK, (CLS, SEP))
    assert found.tolist() == pytest.approx([replaced / words])


def test_text_drop_leaves_special_tokens_alone_and_takes_the_highest():
    ids, mask = torch.tensor([[CLS, 5, 6, 6, 6, SEP, PAD]]), torch.tensor([[1, 1, 1, 1, 1, 1, 0]])
    maps = torch.tensor([[99.0, 3, 2, 1, 0, 99, 99]])
    assert text_drop(unmasked_share, ids, mask, maps, 0, MASK, (CLS, SEP)).tolist() == [0.25]
    assert text_drop(unmasked_share, ids, mask, -maps, 0, MASK, (CLS, SEP)).tolist() == [0.0]


def test_text_drop_of_nothing_but_special_tokens_is_zero():
    ids, mask = torch.tensor([[CLS, SEP]]), torch.ones(1, 2, dtype=torch.long)
    assert text_drop(unmasked_share, ids, mask, torch.ones(1, 2), 0, MASK, (CLS, SEP)).tolist() == [0.0]
