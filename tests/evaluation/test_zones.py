"""Masking of zones: areas, exact bounds and the null of random orders, derived again by trying every order."""

import itertools

import numpy as np
import pytest
import torch

from hf_mhex.evaluation.zones import MaskedZones
from hf_mhex.explaining.zones import equal_zones
from networks import lively, signal_batch

ZONES = equal_zones(np.arange(61.0), 4)


@pytest.fixture(scope="module")
def masked():
    return MaskedZones(lively("signal"), signal_batch(batch=5, dtype=torch.float64)["input_values"], ZONES)


def test_areas_and_bounds_are_those_of_every_order_tried_slowly(masked):
    model, values = lively("signal"), signal_batch(batch=5, dtype=torch.float64)["input_values"]
    fill, whole = values.median(0).values, model(input_values=values).logits.softmax(-1)
    every = {}
    for order in itertools.permutations(range(4)):
        lost, now = [], values.clone()
        for zone in order:
            now[:, :, ZONES.members[zone]] = fill[:, ZONES.members[zone]]
            found = model(input_values=now).logits.softmax(-1)
            lost.append((whole - found).gather(1, whole.argmax(-1, keepdim=True))[:, 0])
        every[order] = torch.stack(lost).mean(0).detach().numpy()
        assert np.abs(masked.areas(order) - every[order]).max() < 1e-10
    low, high = masked.bounds()
    assert np.abs(low - np.min(list(every.values()), 0)).max() < 1e-10
    assert np.abs(high - np.max(list(every.values()), 0)).max() < 1e-10
    best = max(every, key=lambda order: every[order].mean())
    found = masked.judge([-best.index(zone) for zone in range(4)])
    assert found.percentile > 95 and found.area == pytest.approx(every[best].mean())
    assert found.normalised == pytest.approx(((every[best] - low) / (high - low)).mean())
    assert masked.alone()[2] == pytest.approx(masked.losses[4])


def test_what_cannot_be_judged_is_refused(masked):
    model, values = lively("signal"), signal_batch(dtype=torch.float64)["input_values"]
    with pytest.raises(ValueError, match="zones must be at most 12"):
        MaskedZones(model, values, equal_zones(np.arange(61.0), 13))
    with pytest.raises(ValueError, match="values must be finite"):
        MaskedZones(model, values * float("nan"), ZONES)
    with pytest.raises(ValueError, match="each number below 4 once"):
        masked.areas([0, 1, 1, 2])
    with pytest.raises(ValueError, match="4 finite numbers"):
        masked.judge([1.0, 2.0])
