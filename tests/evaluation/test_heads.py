"""Pieces of blocks: their parts of the logits derived again, groups of labels by hand, and what removal does."""

import pytest
import torch

from hf_mhex.evaluation import label_groups, single_heads
from hf_mhex.evaluation.pieces import look_at, pieces_of, removed
from networks import NAMES, batch_for, family_named, lively

HEADS = [name for name in NAMES if family_named(name).attention]


def labelled(name, rows=4, dtype=torch.float64):
    batch = batch_for(name, dtype, batch=rows)
    return batch | {"labels": torch.arange(rows) % 4}


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_channel_groups_add_up_to_every_block(name, rectified):
    model = lively(name, rectified=rectified)
    batch = labelled(name)
    pieces = pieces_of(model, range(model.num_blocks), groups=3)
    look = look_at(model, batch, pieces)
    for block in range(model.num_blocks):
        mine = [number for number, piece in enumerate(pieces) if piece.block == block]
        assert len(mine) == 3
        torch.testing.assert_close(look.added[:, mine].sum(1), look.block_logits[:, block], rtol=1e-9, atol=1e-9)
    found = single_heads(model, [batch], blocks=[0, -1], groups=3, remove=False)
    for block, rest in found.rest.items():
        assert rest.abs().max() < 1e-9, block


def slowly(model, name, batch, block):
    """What each head of a block adds, one head and one position at a time, from z with and without what it writes."""
    attention = family_named(name).attention
    module = model.base_model.blocks[block]
    get = lambda path: module.get_submodule(path)  # noqa: E731
    seen = {}
    handles = [get(attention.project).register_forward_pre_hook(lambda m, given: seen.update(context=given[0]))]
    if attention.norm:
        handles.append(get(attention.norm).register_forward_pre_hook(lambda m, given: seen.update(norm=given[0])))
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    shown = {}
    with torch.no_grad():
        model(**inputs, explain=lambda b, f: shown.update({b: f.added()}))
    for handle in handles:
        handle.remove()
    z, project = shown[block].summands[0], get(attention.project)
    heads = {"bert": 4, "roberta": 4, "distilbert": 4, "deberta_v2": 4, "modernbert": 4, "vit": 3}[name]
    size = project.in_features // heads
    matrix = model.equivalent_matrix(block)
    rows, skipped = z.shape[0], seen["context"].shape[1] - z.shape[2]
    answer = torch.zeros(rows, heads, 4, dtype=torch.float64)
    for row in range(rows):
        valid = range(z.shape[2]) if shown[block].valid is None else shown[block].valid[row].nonzero()[:, 0].tolist()
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            total = torch.zeros(z.shape[1], dtype=torch.float64)
            for place in valid:
                token = place + skipped
                vector = project.weight[:, part] @ seen["context"][row, token, part]
                if attention.scale:
                    vector = vector * get(attention.scale).gamma
                if attention.norm:
                    before = seen["norm"][row, token]
                    deviation = ((before - before.mean()).square().mean() + get(attention.norm).eps).sqrt()
                    vector = get(attention.norm).weight * (vector - vector.mean()) / deviation
                if model.config.rectified:
                    vector = torch.where(z[row, :, place] > 0, vector, 0)
                total += vector / len(valid)
            if not model.config.rectified:
                total = torch.where(z[row][:, list(valid)].mean(-1) > 0, total, 0)
            answer[row, head] = matrix @ total
    return answer.detach()


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_heads_add_what_they_write(name, rectified):
    model = lively(name, rectified=rectified)
    batch = labelled(name, rows=3)
    block = model.num_blocks - 1
    look = look_at(model, batch, pieces_of(model, [block]))
    torch.testing.assert_close(look.added, slowly(model, name, batch, block), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["bert", "vit", "modernbert", "roberta"])
def test_a_field_predicts_the_fall_where_nothing_but_the_head_reads_it(name):
    """The logits' derivative by what a head writes is what its slice says, once the feed-forward branch is cut off."""
    model = lively(name)
    attention, block = family_named(name).attention, model.num_blocks - 1
    module = model.base_model.blocks[block]
    batch = labelled(name, rows=3)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    piece = pieces_of(model, [block])[1]
    cut = {"vit": "mlp", "modernbert": "mlp"}.get(name, "output.dense")
    handle = module.get_submodule(cut).register_forward_hook(lambda m, given, out: torch.zeros_like(out))
    try:
        added = look_at(model, batch, [piece]).added[:, 0]
        before = model(**inputs).block_logits[:, block]
        if attention.norm is None:  # linear but for the indicator: check the derivative
            small = 1e-6

            def shrunk(m, given):
                context = given[0].clone()
                context[..., piece.start : piece.stop] *= 1 - small
                return (context, *given[1:])

            hook = module.get_submodule(attention.project).register_forward_pre_hook(shrunk)
            after = model(**inputs).block_logits[:, block]
            hook.remove()
            torch.testing.assert_close((before - after) / small, added, rtol=1e-4, atol=1e-4)
    finally:
        handle.remove()


def test_removal_is_undone_and_exact_for_what_reads_the_channels():
    model = lively("resnet")
    batch = labelled("resnet")
    inputs = {"pixel_values": batch["pixel_values"]}
    last = model.num_blocks - 1
    before = model(**inputs)
    found = single_heads(model, [batch], groups=4)
    after = model(**inputs)
    assert torch.equal(before.logits, after.logits)
    for report in found.pieces:  # nothing but the last head reads the last block
        torch.testing.assert_close(report.block_fall, report.predicted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(report.model_fall, report.predicted_model, rtol=1e-9, atol=1e-9)
    assert found.agreement == pytest.approx({"block": 1, "model": 1})
    with removed(model, pieces_of(model, [last], 1)):
        assert model(**inputs).block_logits[:, last].abs().max() == 0
    early = single_heads(model, [batch], blocks=[0], groups=4)
    assert any(abs(report.model_fall - report.predicted_model).max() > 1e-3 for report in early.pieces)


def test_removing_all_heads_leaves_what_no_head_wrote():
    model = lively("vit")
    batch = labelled("vit")
    pieces = pieces_of(model, range(model.num_blocks))
    assert len(pieces) == 3 * model.num_blocks and str(pieces[0]) == "head 0"
    inputs = {"pixel_values": batch["pixel_values"]}
    with removed(model, pieces):
        got = model(**inputs).logits
    for block in model.base_model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    torch.testing.assert_close(got, model(**inputs).logits)


def test_groups_of_labels_by_hand():
    field = torch.tensor(
        [
            [10.0, 4.0, 0.0, -9.0],
            [5.0, 8.0, 0.0, 0.0],
            [6.0, 0.0, 7.0, 0.0],
            [0.0, 0.0, 2.9, 1.0],
        ]
    )
    scaled, groups, noise, share = label_groups(field)
    torch.testing.assert_close(scaled, field / 10)
    assert groups == ((0, 1), (2,)) and noise == 1 and share == pytest.approx(1 / 6)  # 2 -> 0 is above, one way only
    assert label_groups(field, 0.45)[1] == ((0,), (1,), (2,))
    assert label_groups(-field.abs())[1:] == ((), 0, 0.0)


def test_fields_are_means_by_true_label_and_rows_are_counted():
    model = lively("resnet")
    batches = [
        labelled("resnet", rows=3),
        labelled("resnet", rows=3) | batch_for("resnet", torch.float64, batch=3, seed=5),
    ]
    found = single_heads(model, batches, blocks=[1], groups=2, remove=False)
    assert found.rows.tolist() == [2, 2, 2, 0] and found.curves == {} and found.pieces[0].accuracy is None
    matrix = model.equivalent_matrix(1)
    p, half = [], matrix.shape[1] // 2
    for batch in batches:
        model(pixel_values=batch["pixel_values"], explain=lambda b, f: p.append(f.p) if b == 1 else None)
    for label in range(3):
        mean = (p[0][label] + p[1][label]) / 2
        torch.testing.assert_close(found.pieces[0].field[label], matrix[:, :half] @ mean[:half])
    assert (found.pieces[0].field[3] == 0).all()


def test_curves_start_whole_and_end_without_any_piece():
    model = lively("resnet")
    batch = labelled("resnet", rows=4)
    found = single_heads(model, [batch], groups=4, steps=2)
    logits = model(pixel_values=batch["pixel_values"]).logits
    whole = float((logits.argmax(-1) == batch["labels"]).double().mean())
    for points in found.curves.values():
        assert [count for count, *_ in points] == [0, 2, 4] and points[0][1] == whole
        assert points[-1][2] == 0.25  # the block's own head says nothing, and the first label is answered
    assert found.curves["strongest first"][-1] == found.curves["weakest first"][-1]
    record = found.record({label: f"name {label}" for label in range(4)})
    assert record["labels"][1] == "name 1" and len(record["pieces"]) == 4


def test_what_cannot_be_is_refused():
    model, batch = lively("resnet"), labelled("resnet")
    with pytest.raises(ValueError, match="threshold"):
        single_heads(model, [batch], threshold=0)
    with pytest.raises(ValueError, match="groups"):
        single_heads(model, [batch], groups=0)
    with pytest.raises(ValueError, match="labels"):
        single_heads(model, [{"pixel_values": batch["pixel_values"]}])
    with pytest.raises(ValueError, match="at least one"):
        single_heads(model, [])
    with pytest.raises(ValueError, match="blocks"):
        single_heads(model, [batch], blocks=[99])
    with pytest.raises(ValueError, match="single labels"):
        single_heads(lively("resnet", num_labels=1), [batch])
    model.train()
    with pytest.raises(ValueError, match="eval mode"):
        single_heads(model, [batch])
