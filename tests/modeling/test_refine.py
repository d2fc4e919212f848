"""`refine`: shares handed out again by pixel * gradient, derived again; their sums; what is refused."""

import numpy as np
import pytest
import torch

from networks import IMAGES, SIGNALS, TEXTS, batch_for, lively

FAMILIES = [*IMAGES, *SIGNALS]


def small(name, dtype=torch.float32):
    if name in SIGNALS:
        return batch_for(name, dtype, length=117)
    return batch_for(name, dtype, size=(33, 37) if name in ("resnet", "convnext") else (24, 16))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"target": 1, "contrast": "softmax"}, {"blocks": [-1], "contrast": "mean"}])
@pytest.mark.parametrize("points", [True, 2])
def test_a_refined_map_adds_up(name, options, points):
    """As the coarse one does: to the same `explained`, with the same maps of blocks and the same logits."""
    model, inputs = lively(name), small(name)
    coarse = model.generate_saliency(**inputs, **options)
    fine = model.generate_saliency(**inputs, **options, refine=points)
    bound = 1e-5 * max(1, coarse.logits.abs().max().item())
    assert (fine.saliency.flatten(1).sum(-1) - coarse.explained).abs().max() <= bound
    torch.testing.assert_close(fine.logits, coarse.logits)
    for found, expected in zip(fine.block_saliency, coarse.block_saliency):
        torch.testing.assert_close(found, expected)
    assert fine.saliency.shape == coarse.saliency.shape
    assert not torch.allclose(fine.saliency, coarse.saliency, atol=bound)


@pytest.mark.parametrize("name", ["resnet", "signal"])
@pytest.mark.parametrize("points", [1, 3])
def test_a_refined_map_derived_again(name, points):
    """Pixel by pixel, in float64: evidence net of the neighbours', and each sign's total by share times evidence."""
    model, inputs = lively(name, torch.float64), small(name, torch.float64)
    key = model.main_input_name
    coarse = model.generate_saliency(**inputs, contrast="mean")
    answer = model.generate_saliency(**inputs, contrast="mean", refine=points)
    evidence = torch.zeros_like(coarse.saliency)
    for point in range(1, points + 1):
        given = (inputs[key] * point / points).requires_grad_()
        logits = model(**{**inputs, key: given}).logits
        lead = 0
        for row, target in enumerate(answer.target.tolist()):
            others = [label for label in range(logits.shape[1]) if label != target]
            lead = lead + logits[row, target] - logits[row, others].mean()
        (gradient,) = torch.autograd.grad(lead, given)
        product = inputs[key] * gradient / points
        evidence += product.view(len(product), -1, *evidence.shape[1:]).sum(1)
    reach = [side // (7 if name == "resnet" else 49) // 2 for side in evidence.shape[1:]]
    assert min(reach) > 0
    for row in range(len(evidence)):
        places = torch.cartesian_prod(*map(torch.arange, evidence.shape[1:])).view(-1, evidence.ndim - 1).tolist()
        expected = torch.zeros_like(evidence[row])
        for sign in (1, -1):
            share, signed = (sign * coarse.saliency[row]).clamp(min=0), sign * evidence[row]
            net = torch.zeros_like(share)
            for place in places:
                near = signed[tuple(slice(max(0, at - by), at + by + 1) for at, by in zip(place, reach))].flatten()
                if signed[tuple(place)] > 0 and near.sum() > 0:
                    net[tuple(place)] = signed[tuple(place)] * near.sum() / near[near > 0].sum()
            assert 0 < (net > 0).sum() < (signed > 0).sum()
            weight = (share + share.mean() / 100) * net / net.mean() + share / 1000
            expected += sign * weight / weight.sum() * share.sum()
        torch.testing.assert_close(answer.saliency[row], expected, rtol=1e-9, atol=1e-12)


MASK = 3  # any token may stand for an absent word


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("options", [{}, {"target": 1, "contrast": "softmax", "rollout": True}, {"blocks": [0]}])
@pytest.mark.parametrize("points", [True, 3])
def test_a_refined_map_of_a_text_derived_again(name, options, points):
    """Token by token: half the map, half (e - e_mask) . gradient, and what lacks of the sum shared alike."""
    model, inputs = lively(name, torch.float64), batch_for(name, torch.float64)
    options = {key: value for key, value in options.items() if key != "rollout" or model.base_model.can_roll_out}
    coarse = model.generate_saliency(**inputs, **options)
    fine = model.generate_saliency(**inputs, **options, refine=points, mask_token_id=MASK)
    torch.testing.assert_close(fine.saliency.sum(-1), coarse.explained)
    torch.testing.assert_close(fine.logits, coarse.logits)
    table = model.get_input_embeddings().weight.detach()
    for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        ids = inputs["input_ids"][row, :length]
        target, weights = int(coarse.target[row]), torch.zeros(model.config.num_labels, dtype=torch.float64)
        if "contrast" in options:
            others = [label for label in range(len(weights)) if label != target]
            weights[others] = -coarse.logits[row, others].softmax(-1)
        weights[target] = 1
        evidence = torch.zeros(length, dtype=torch.float64)
        for point in range(1, int(points) + 1):
            given = (table[MASK] + (table[ids] - table[MASK]) * point / int(points)).requires_grad_()
            answer = model(inputs_embeds=given[None])
            logits = answer.block_logits[0, 0] if "blocks" in options else answer.logits[0]
            (gradient,) = torch.autograd.grad((weights * logits).sum(), given)
            for place in range(length):
                evidence[place] += (table[ids[place]] - table[MASK]) @ gradient[place] / int(points)
        mean = (coarse.saliency[row, :length] + evidence) / 2
        expected = mean + (coarse.explained[row] - mean.sum()) / length
        torch.testing.assert_close(fine.saliency[row, :length], expected, rtol=1e-6, atol=1e-9)
        assert not fine.saliency[row, length:].any()
        assert length == 1 or not torch.allclose(fine.saliency[row], coarse.saliency[row], atol=1e-4)


@pytest.mark.parametrize("name", TEXTS)
def test_padding_on_either_side_changes_no_refined_map(name):
    """A model that counts positions from the tokens counts them alike when it is given embeddings."""
    model, inputs = lively(name, torch.float64), batch_for(name, torch.float64)
    ids = inputs["input_ids"][:1, : int(inputs["attention_mask"][0].sum())]
    pad = torch.full((1, 3), model.config.pad_token_id)
    options = {"refine": 2, "mask_token_id": MASK}
    alone = model.generate_saliency(input_ids=ids, **options)
    right = {"input_ids": torch.cat([ids, pad], 1), "attention_mask": torch.cat([ids * 0 + 1, pad * 0], 1)}
    torch.testing.assert_close(model.generate_saliency(**right, **options).saliency[:, :-3], alone.saliency)
    left = {"input_ids": torch.cat([pad, ids], 1), "attention_mask": torch.cat([pad * 0, ids * 0 + 1], 1)}
    coarse, fine = model.generate_saliency(**left), model.generate_saliency(**left, **options)
    torch.testing.assert_close(fine.logits, coarse.logits)
    torch.testing.assert_close(fine.saliency.sum(-1), coarse.explained)
    assert not fine.saliency[:, :3].any()


def test_a_refined_map_of_embeddings_is_that_of_their_tokens():
    model, inputs = lively("bert", torch.float64), batch_for("bert", torch.float64)
    expected = model.generate_saliency(**inputs, refine=2, mask_token_id=MASK).saliency
    embedded = model.get_input_embeddings()(inputs.pop("input_ids")).detach()
    found = model.generate_saliency(inputs_embeds=embedded, **inputs, refine=2, mask_token_id=MASK).saliency
    torch.testing.assert_close(found, expected)


def test_embeddings_of_another_float_type_are_refined_too():
    model, inputs = lively("bert", torch.float64), batch_for("bert", torch.float64)
    given = {"inputs_embeds": model.get_input_embeddings()(inputs.pop("input_ids")).detach().float(), **inputs}
    answer = model.generate_saliency(**given, refine=2, mask_token_id=MASK)
    torch.testing.assert_close(answer.saliency.sum(-1).double(), answer.explained.double(), rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch():
    model, inputs = lively("resnet", torch.float64), small("resnet", torch.float64)
    together = model.generate_saliency(**inputs, refine=True).saliency
    for row in range(len(together)):
        alone = model.generate_saliency(pixel_values=inputs["pixel_values"][row : row + 1], refine=True).saliency
        torch.testing.assert_close(alone[0], together[row])


def test_nothing_is_left_behind():
    """No gradient on weights or inputs, no graph on what is returned, the mode and the answer those of eval."""
    model, inputs = lively("resnet"), small("resnet")
    expected = model.generate_saliency(**inputs, refine=True)
    model.train()
    found = model.generate_saliency(**inputs, refine=True)
    assert model.training and all(weight.grad is None for weight in model.parameters())
    assert inputs["pixel_values"].grad is None and not inputs["pixel_values"].requires_grad
    for value in (found.saliency, found.explained, found.logits, found.block_logits, *found.block_saliency):
        assert not value.requires_grad
    torch.testing.assert_close(found.saliency, expected.saliency)


def test_what_training_does_to_embeddings_is_left_out():
    """As NEFTune's noise, which a hook adds in training mode."""
    model, inputs = lively("bert", torch.float64), batch_for("bert", torch.float64)
    options = {"refine": 2, "mask_token_id": MASK}
    expected = model.generate_saliency(**inputs, **options).saliency
    embeddings = model.get_input_embeddings()
    noise = embeddings.register_forward_hook(lambda module, given, found: found + 0.1 if module.training else found)
    model.train()
    torch.testing.assert_close(model.generate_saliency(**inputs, **options).saliency, expected)
    noise.remove()


def test_numbers_may_be_numpy_s():
    model, inputs = lively("bert", torch.float64), batch_for("bert", torch.float64)
    expected = model.generate_saliency(**inputs, refine=2, mask_token_id=MASK).saliency
    options = {"refine": np.int64(2), "mask_token_id": np.int64(MASK)}
    assert torch.equal(model.generate_saliency(**inputs, **options).saliency, expected)


def test_half_precision_and_autocast_stay_exact():
    model, inputs = lively("resnet").bfloat16(), small("resnet")
    answer = model.generate_saliency(**inputs, refine=True)
    bound = 1e-5 * max(1, answer.logits.abs().max().item())
    assert answer.saliency.dtype == torch.float32
    assert (answer.saliency.flatten(1).sum(-1) - answer.explained).abs().max() <= bound


def test_an_input_without_gradient_keeps_the_coarse_map():
    """Where every pixel is 0 there is nothing to tell pixels apart by."""
    model, inputs = lively("resnet"), {"pixel_values": torch.zeros(2, 3, 32, 32)}
    torch.testing.assert_close(
        model.generate_saliency(**inputs, refine=True).saliency, model.generate_saliency(**inputs).saliency
    )


def test_what_cannot_be_refined_is_refused():
    model, inputs = lively("resnet"), small("resnet")
    with pytest.raises(ValueError, match="target='all'"):
        model.generate_saliency(**inputs, target="all", refine=True)
    with pytest.raises(ValueError, match="upsample=False"):
        model.generate_saliency(**inputs, upsample=False, refine=True)
    with pytest.raises(TypeError, match="refine must be True, False or a number of passes, got 1.5"):
        model.generate_saliency(**inputs, refine=1.5)
    with pytest.raises(ValueError, match="refine must be at least 1 pass .* got -1"):
        model.generate_saliency(**inputs, refine=-1)
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        model.generate_saliency(**inputs, refine=True)
    with pytest.raises(ValueError, match="mask_token_id stands for a word, and the model reads none; got 1"):
        model.generate_saliency(**inputs, refine=True, mask_token_id=1)
    for wrong in (None, -1, True, 10**6, 1.0):
        with pytest.raises(ValueError, match="Pass mask_token_id=tokenizer.mask_token_id, another token"):
            lively(TEXTS[0]).generate_saliency(**batch_for(TEXTS[0]), refine=True, mask_token_id=wrong)
    with pytest.raises(ValueError, match="pixel_values must be given"):
        model.generate_saliency(refine=True)
