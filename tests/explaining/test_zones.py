"""Zones of a signal: exact sums, three ways to make them, and what is refused."""

import numpy as np
import pytest
import torch

from hf_mhex.explaining.zones import Zones, equal_zones, read_zones, valley_zones
from networks import lively, signal_batch

AXIS = np.linspace(400.0, 1000.0, 61)


@pytest.mark.parametrize("axis", [AXIS, AXIS[::-1]])
def test_tiling_zones_add_up_to_the_logit(axis):
    model = lively("signal", torch.float64)
    found = model.generate_saliency(**signal_batch(dtype=torch.float64), target="all")
    for zones in (equal_zones(axis, 7), valley_zones(axis, found.saliency.flatten(0, 1).numpy(), 5)):
        assert zones.tile and 2 <= len(zones) <= 7
        sums = zones.contributions(found.saliency.numpy())
        assert np.abs(sums.sum(-1) - found.logits.numpy()).max() < 1e-10
        for place, zone in enumerate(zones):  # again, slowly: point by point
            last = zone.stop == axis.max()
            inside = [n for n, x in enumerate(axis) if zone.start <= x < zone.stop or (last and x == zone.stop)]
            assert sums[0, 1, place] == pytest.approx(sum(found.saliency[0, 1, n].item() for n in inside), abs=1e-12)


def test_valleys_part_the_peaks():
    axis = np.arange(300.0)
    values = sum(np.exp(-((axis - centre) ** 2) / 200) for centre in (50, 150, 250))
    assert [zone.start for zone in valley_zones(axis, values, 3)][1:] == pytest.approx([100, 200], abs=5)


def test_a_table_has_the_largest_first_and_a_width():
    zones = Zones([("a", 400, 500), ("b", 500, 800)], AXIS)
    values = np.where(AXIS < 500, 1.0, -0.5)
    first, second = zones.table(values)
    assert not zones.tile
    assert (first.name, first.points, first.contribution, first.per_width) == ("a", 10, 10.0, 0.1)
    assert (second.name, second.contribution, second.share) == ("b", -15.0, 0.6)


@pytest.mark.parametrize(
    "zones, words",
    [
        ([], "at least one zone"),
        ([("a", 500, 450)], r"'a' must start below its stop, .* got \[500, 450\); swap"),
        ([("a", float("nan"), 450)], "'a' must start below its stop"),
        ([("a", 300, 450)], "'a' .* lies outside the axis, 400.0 to 1000.0"),
        ([("a", 900, 1100)], "'a' .* lies outside the axis"),
        (
            [("a", 600, 700), ("b", 450, 500)],
            "sorted by their start, but 'b', from 450, follows 'a', from 600; sort them",
        ),
        (
            [("a", 450, 600), ("b", 550, 700)],
            "must not overlap, but 'b' starts at 550, before 'a' stops at 600; let one stop",
        ),
        ([("a", 450, 500), ("a", 550, 700)], "names of their own, .*; rename"),
        ([("a", 401, 402)], "'a' holds no point of the axis"),
    ],
)
def test_zones_that_cannot_be_are_refused(zones, words):
    with pytest.raises(ValueError, match=words):
        Zones(zones, AXIS)


@pytest.mark.parametrize("axis", [[1, 2, 2], [1, 3, 2], [1, float("nan")], [1]])
def test_an_axis_that_cannot_be_is_refused(axis):
    with pytest.raises(ValueError, match="axis must"):
        Zones([("a", 1, 2)], axis)


def test_maps_that_do_not_fit_are_refused():
    zones = equal_zones(AXIS, 3)
    with pytest.raises(ValueError, match="axis' 61 points, got shape"):
        zones.contributions(np.zeros(60))
    with pytest.raises(ValueError, match="must be finite"):
        zones.contributions(np.full(61, np.nan))
    for count in (0, 62, 2.5):
        with pytest.raises(ValueError, match="count must be an int"):
            equal_zones(AXIS, count)


def test_zones_of_a_file(tmp_path):
    path = tmp_path / "zones.csv"
    path.write_text("name,start,stop\namide,400,700\nrest,700,1000\n")
    assert read_zones(path, AXIS).names == ["amide", "rest"] and read_zones(path, AXIS).tile
    for separator in ";\t":
        path.write_text("name,start,stop\namide,400,700\nrest,700,1000\n".replace(",", separator))
        assert read_zones(path, AXIS).names == ["amide", "rest"]
    path.write_text("name,start,stop\namide,400,seven\n")
    with pytest.raises(
        ValueError,
        match="zones.csv, line 2: stop of zone 'amide' must be a place on the axis, got 'seven'; write a number",
    ):
        read_zones(path, AXIS)
    path.write_text("name,start,stop\nrest,700,1000\namide,400,700\n")
    with pytest.raises(ValueError, match="zones.csv: zones must be sorted by their start"):
        read_zones(path, AXIS)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="with the columns name, start and stop"):
        read_zones(path, AXIS)
