"""The other forms of part consistency do what their names say, derived again slowly in float64."""

from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from hf_mhex.benchmarks.journal import Journal
from hf_mhex.training import PartConsistency, part_consistency_loss
from hf_mhex.training import consistency as tested
from hf_mhex.training.studies.part_forms import FORMS, PatchGame, Told, deleted, enlarge, tell, write_table
from networks import batch_for, image_batch, lively

LABELS = torch.arange(4)
RESULTS = Path(__file__).parents[2] / "results"


@contextmanager
def in_place(form):
    """The functions of a form in their places."""
    places = FORMS[form].places()
    with patch.multiple(tested, **places):
        yield


def caught(form, family, monkeypatch, **settings):
    """The two sides of the term, the rows' parts and the inputs, of one loss by a form."""
    model, inputs = lively(family), batch_for(family, torch.float64, batch=4)
    sides, drawn = [], []
    with in_place(form):
        usual, draw = tested.disagreement, tested.draw_parts
        monkeypatch.setattr(tested, "disagreement", lambda *given: sides.append(given[:2]) or usual(*given))
        monkeypatch.setattr(tested, "draw_parts", lambda *given: drawn.append(draw(*given)) or drawn[-1])
        text = family == "bert"
        settings = PartConsistency(share=1.0, **({"mask_id": 3} if text else {"removals": ("zero",)}), **settings)
        loss = part_consistency_loss(model, inputs, LABELS, settings)
        monkeypatch.undo()
    return model, inputs, loss, sides[0], drawn[0]


def kl(answer, claim):
    p, q = answer.softmax(-1), claim.softmax(-1)
    return (p * (p / q).log()).sum(-1)


@pytest.mark.parametrize("form, side", [("answer still", 0), ("claim still", 1)])
def test_a_side_that_is_still_has_no_gradient_of_the_term(form, side):
    answer, claim = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found = FORMS[form].places()["disagreement"](answer, claim, "single_label_classification")
    assert torch.allclose(found, kl(answer, claim))
    found.sum().backward()
    assert [value.grad is None for value in (answer, claim)] == [side == 0, side == 1]


def test_the_term_on_maps_of_rollout_compares_with_their_sums(monkeypatch):
    model, inputs, _, (_, claim), parts = caught("rollout", "bert", monkeypatch)
    maps = model.generate_saliency(**inputs, target="all", rollout=True).saliency
    wanted = torch.stack([(maps[part.row] * part.keep).sum(-1) for part in parts])
    assert torch.allclose(claim, wanted, rtol=1e-6)


def test_deleted_tokens_leave_no_gap(monkeypatch):
    model, inputs, _, (answer, _), parts = caught("deletion", "bert", monkeypatch)
    assert any((~part.keep).any() for part in parts)
    for row, part in enumerate(parts):
        kept = part.keep & inputs["attention_mask"][part.row].bool()
        alone = {name: value[part.row][None, kept] for name, value in inputs.items()}
        segments = {"token_type_ids": alone["token_type_ids"]} if "token_type_ids" in alone else {}
        said = model(input_ids=alone["input_ids"], **segments).logits
        assert torch.allclose(answer[row], said[0], rtol=1e-8)
    assert set(deleted()) == {"joined"}


@pytest.mark.parametrize("form", ["antithetic", "Shapley"])
def test_parts_come_in_pairs_that_make_a_whole(form, monkeypatch):
    model, inputs, _, (answer, claim), parts = caught(form, "resnet", monkeypatch)
    assert parts and len(parts) % 2 == 0 and len(answer) == len(parts)
    maps = model.generate_saliency(**inputs, target="all").saliency
    wanted = torch.stack([(maps[part.row] * part.keep).flatten(1).sum(-1) for part in parts])
    assert torch.allclose(claim, wanted, rtol=1e-6)
    for one, other in zip(parts[::2], parts[1::2]):
        assert one.row == other.row and (one.keep ^ other.keep).all()
        if form == "Shapley":
            assert one.keep.any() and other.keep.any()


def test_shapley_sizes_follow_their_kernel_and_errors_are_squared():
    places = FORMS["Shapley"].places()
    draw = torch.Generator().manual_seed(0)
    sizes = torch.stack([places["kept_number"](5, draw) for _ in range(4000)]).sum(1)
    weights = torch.tensor([1 / (k * (5 - k)) for k in range(1, 5)])
    assert torch.allclose(sizes.bincount(minlength=6)[1:5] / 4000, weights / weights.sum(), atol=0.03)
    assert set(sizes.tolist()) == {1, 2, 3, 4}
    answer, claim = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    assert places["disagreement"](answer, claim, "").tolist() == [2.5]


def test_a_network_that_is_told_knows_black_from_removed():
    model, inputs = lively("resnet"), image_batch(2, dtype=torch.float64)
    before = model(**inputs).logits
    tell(model)
    told = next(module for module in model.modules() if isinstance(module, Told)).double()
    assert torch.equal(model(**inputs).logits, before)
    with torch.no_grad():
        told.told.weight.add_(1)
    assert torch.equal(model(**inputs).logits, before)
    inputs["pixel_values"][:, :, :9] = 0
    with torch.no_grad():
        removed = (inputs["pixel_values"] == 0).all(1, keepdim=True).double()
        wanted = told.convolution(inputs["pixel_values"]) + told.told(removed)
    assert (
        removed.any()
        and torch.equal(told(inputs["pixel_values"]), wanted)
        and not torch.equal(model(**inputs).logits, before)
    )


def test_early_heads_start_larger():
    model = lively("resnet")
    before = [head.weight.clone() for head in model.heads]
    enlarge(model)
    assert [(head.weight / old).mean().item() for head, old in zip(model.heads, before)] == [4, 4, 1, 1, 1]


def test_hidden_patches_are_those_that_the_model_is_not_shown():
    shape = {"img_size": 28, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
    model = lively("vit", architecture_kwargs=shape)
    pixels = torch.randn(4, 3, 28, 28, dtype=torch.float64)
    with in_place("patches hidden"), patch.object(model, "forward", wraps=model.forward) as forward:
        part_consistency_loss(model, {"pixel_values": pixels}, LABELS, PartConsistency(share=1.0))
        seen = forward.call_args.kwargs["attention_mask"]
    assert seen.shape == (8, 7, 7) and seen[:4].all() and not seen[4:].all()
    keep = seen[4:].flatten(1).bool()
    wanted = model(pixel_values=pixels, attention_mask=keep.long()).logits[0, 1]
    assert torch.allclose(PatchGame(model, pixels[0], 1)(keep[:1])[0], wanted)


def test_the_page_is_what_its_rows_say(tmp_path):
    write_table(Journal(RESULTS / "part_forms.jsonl"), tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (RESULTS / "part_forms.md").read_text()


def test_another_row_stands_where_pixels_were():
    values = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert FORMS["other images"].places()["filled"](values, [])[:, 0, 0, 0].tolist() == [2, 0, 1]
