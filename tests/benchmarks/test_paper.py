"""The paper's protocol: its map from the equivalent matrix by hand, drops of the true label, rows that go on."""

import json

import pytest
import torch
import torch.nn.functional as F

from hf_mhex.benchmarks.explanations.methods import PAPER, paper_map
from hf_mhex.benchmarks.explanations.parts import Images
from hf_mhex.benchmarks.explanations.report import label, replaced
from networks import image_batch, lively_resnet

pytest.importorskip("captum", reason="the methods compared with are in the extra bench: make test-extras")


def by_hand(model, pixels, target):
    """Block by block, entry by entry: sharpness by shares, bilinear resizing, 0.9^(B-1-b)."""
    shown, count = {}, model.config.num_labels
    model(pixel_values=pixels, explain=lambda block, f: shown.update({block: f.added(gated=True)}))
    total = 0
    for block in range(model.num_blocks):
        matrix, kept = model.equivalent_matrix(block), torch.zeros_like(model.equivalent_matrix(block))
        for channel in range(matrix.shape[1]):
            column = matrix[:, channel]
            for name in range(count):
                own = float(column[name])
                same_sign = sum(abs(float(value)) for value in column if float(value) * own > 0)
                if own and abs(own) / same_sign >= (1 / count + 0.1 if own > 0 else 0.1):
                    kept[name, channel] = own
        y = shown[block].summands[0]
        cam = torch.stack([kept[name] @ y[row] for row, name in enumerate(target.tolist())])
        cam = cam.unflatten(1, shown[block].shape)[:, None]
        total = total + 0.9 ** (model.num_blocks - 1 - block) * F.interpolate(cam, pixels.shape[-2:], mode="bilinear")
    return total[:, 0].detach()


def test_the_map_of_the_paper_by_hand():
    model = lively_resnet()
    pixels, target = image_batch(3, dtype=torch.float64)["pixel_values"], torch.tensor([2, 0, 3])
    torch.testing.assert_close(paper_map(model, pixels, target), by_hand(model, pixels, target).float())


def test_lines_are_of_the_true_label_by_every_scorer_and_go_on(tmp_path):
    from hf_mhex.benchmarks.paper import compare, write_page

    model = lively_resnet(torch.float32)
    scorer = lively_resnet(torch.float32)
    torch.nn.init.normal_(scorer.heads[-1].weight)
    pixels = image_batch(3)["pixel_values"]
    part = Images(pixels, torch.tensor([3, 1, 2]))
    found = compare({"mhex": model}, {"judge": scorer}, part, tmp_path, 3, "c", lambda _: None)
    row = next(row for row in found if row["method"] == PAPER)
    assert "values kept" in row["implementation"] and set(row["values"]) == {"judge", "itself"}
    maps = model.paper_saliency(pixel_values=pixels, target=part.labels, sharpness=(0.35, 0.1)).saliency
    before, after = (scorer(x).logits.softmax(-1).detach() for x in (pixels, pixels * (maps <= 0.5)[:, None]))
    for number, name in enumerate(part.labels.tolist()):
        fall = max(0.0, float((before[number, name] - after[number, name]) / before[number, name]))
        assert row["values"]["judge"]["AVG drop"][number] == pytest.approx(fall, abs=1e-4)
    assert compare({"mhex": model}, {}, part, tmp_path, 3, "c", pytest.fail) == found
    other = lively_resnet(torch.float32, num_labels=5)
    for networks, scorers, rows, seed, words in (
        ({"mhex": model}, {}, 2, 0, "rows=3, not 2"),
        ({"mhex": model}, {}, 3, 1, "seed=0, not 1"),
        ({"mhex": other}, {}, 3, 0, "weights="),
        ({"mhex": model}, {"judge": other}, 3, 0, "weights="),
        ({"mhex": model}, {"judge": scorer, "second": other}, 3, 0, "weights="),
    ):
        with pytest.raises(ValueError, match=f"holds rows that were made with {words}.*; name another folder"):
            compare(networks, scorers, part, tmp_path, rows, "c", pytest.fail, seed)
    older = [{name: value for name, value in row.items() if name not in ("weights", "seed")} for row in found]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in older))
    assert compare({"mhex": other}, {}, part, tmp_path, 3, "c", pytest.fail) == older  # they do not say of what
    page = write_page(found, tmp_path, "t").read_text()
    assert "## Scored by judge" in page and "0.189" in page


def test_a_row_of_a_replaced_implementation_is_marked():
    row = {"method": PAPER, "slow": False, "settings": {}}
    assert label(PAPER, row | {"replaced": replaced(row)}).endswith("‡")
    assert label(PAPER, row | {"replaced": replaced(row | {"implementation": "hf-mhex 0.2.0"})}) == PAPER
