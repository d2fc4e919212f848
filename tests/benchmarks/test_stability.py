"""Lines of stability: made once, and never of another network, seed or number of rows than the table's."""

import pytest
import torch

from hf_mhex.benchmarks.explanations.parts import Images
from hf_mhex.benchmarks.stability import compare
from networks import image_batch, lively_resnet

pytest.importorskip("captum", reason="the methods compared with are in the extra bench: make test-extras")


def test_lines_are_of_one_network_and_seed_and_a_twin_may_come_later(tmp_path):
    model, other = lively_resnet(torch.float32), lively_resnet(torch.float32, num_labels=5)
    part = Images(image_batch(2)["pixel_values"], torch.tensor([3, 1]))

    def ask(networks, rows=2, seed=0, say=pytest.fail):
        return compare(networks, part, tmp_path, rows, seed, "c", say, only=[])

    found = ask({"mhex": model}, say=lambda _: None)
    assert len(found) == 2 and ask({"mhex": model}) == found
    assert ask({"mhex": model, "plain": other}) == found  # no method of `only` runs on the twin
    for asked, words in (
        (({"mhex": model}, 1), "rows=2, not 1"),
        (({"mhex": model}, 2, 1), "seed=0, not 1"),
        (({"mhex": other},), "weights=.*, not "),
    ):
        with pytest.raises(ValueError, match=f"holds rows that were made with {words}.*; name another folder"):
            ask(*asked)
