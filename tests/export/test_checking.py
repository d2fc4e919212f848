"""What an exported graph is judged by: values, and sums of the few maps whose indicator is a matter of rounding."""

import pytest
import torch

from hf_mhex.export import LARGEST_ERROR, agreement, checking, graph_of, largest_error
from networks import lively


@pytest.fixture(scope="module")
def model():
    return lively("vit", torch.float32)


@pytest.fixture
def judged(model, monkeypatch):
    """`judged(change)`: the agreement of a graph whose maps [B, H, W] `change(maps, number of the case)` alters."""

    def judge(change, **options):
        graph, number = graph_of(model, **options), iter(range(10**6))

        def run(session, inputs):
            with torch.no_grad():
                found = {name: value.clone() for name, value in graph(**inputs).items()}
            change(found["saliency"], next(number))
            return {name: value.numpy() for name, value in found.items()}

        monkeypatch.setattr(checking, "open_onnx", lambda path: None)
        monkeypatch.setattr(checking, "run_onnx", run)
        found = agreement(model, "model.onnx", **options)
        number = iter(range(10**6))
        assert largest_error(model, "model.onnx", **options) == found.error
        return found

    return judge


def move(maps, row):
    """Take from one pixel what another gets, as a channel does whose mean is 0."""
    maps[row, 0, 0] += 1
    maps[row, -1, -1] -= 1


def test_an_equal_graph_agrees_value_by_value(judged):
    found = judged(lambda maps, case: None)
    assert found.error == 0 and found.by_sum == 0 and found.rows == 8  # of one size, batch 1 and 7


def test_a_map_that_rounding_parts_is_judged_by_its_sum(judged):
    found = judged(lambda maps, case: move(maps, 3) if len(maps) == 7 else None)
    assert found.by_sum == 1 and found.error < LARGEST_ERROR


def test_a_sum_that_differs_is_an_error(judged):
    def change(maps, case):
        if len(maps) == 7:
            maps[3, 0, 0] += 1

    found = judged(change)
    assert found.by_sum == 1 and found.error > 100 * LARGEST_ERROR


def test_many_wrong_maps_are_no_rounding(judged):
    def change(maps, case):
        for row in range(len(maps)):
            move(maps, row)

    found = judged(change)
    assert found.by_sum == 0 and found.error > 100 * LARGEST_ERROR


def test_a_normalised_map_has_no_sum_to_be_judged_by(judged):
    found = judged(lambda maps, case: move(maps, 3) if len(maps) == 7 else None, normalize="minmax")
    assert found.by_sum == 0 and found.error > 100 * LARGEST_ERROR
