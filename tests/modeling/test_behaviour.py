"""What does generate_saliency leave alone, and what does an answer not depend on? Batches, padding, modes, threads."""

import copy
import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from networks import image_batch, lively_bert, lively_resnet, text_batch

FAMILIES = ["bert", "resnet"]


@functools.cache
def network(family, dtype=torch.float32, **fields):
    return {"bert": lively_bert, "resnet": lively_resnet}[family](dtype, **fields)


def inputs_for(family, **kwargs):
    return text_batch(**kwargs) if family == "bert" else image_batch(**kwargs)


def same(answer, other, bound=0.0):
    """Whether two answers agree in every field to `bound`."""
    for name in ("saliency", "explained", "logits", "block_logits", "target"):
        if (answer[name] - other[name]).abs().max() > bound:
            return False
    pairs = zip(answer.block_saliency, other.block_saliency)
    return all((one - two).abs().max() <= bound for one, two in pairs)


@pytest.mark.parametrize("options", [{}, {"target": "all"}, {"contrast": "softmax"}, {"mode": "cam", "target": 1}])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_does_not_depend_on_its_batch(family, options):
    model, inputs = network(family), inputs_for(family, batch=4)
    together = model.generate_saliency(**inputs, **options)
    for row in range(4):
        size = max(1, together.saliency[row].abs().max().item())  # a CAM is not divided by N
        alone = model.generate_saliency(**{name: value[row : row + 1] for name, value in inputs.items()}, **options)
        assert (alone.logits[0] - together.logits[row]).abs().max() <= 1e-5
        assert (alone.saliency[0] - together.saliency[row]).abs().max() <= 1e-5 * size
        assert (alone.explained[0] - together.explained[row]).abs().max() <= 1e-5 * size * alone.saliency[0].numel()
        for one, many in zip(alone.block_saliency, together.block_saliency):
            assert (one[0] - many[row]).abs().max() <= 1e-5 * max(1, many[row].abs().max().item())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("normalize", [None, "minmax", "percentile"])
def test_padding_changes_nothing_and_gets_zero(attention, normalize):
    model = network("bert", attn_implementation=attention)
    inputs = text_batch(length=9)
    short = model.generate_saliency(**inputs, normalize=normalize)
    longer = {name: torch.nn.functional.pad(value, (0, 21)) for name, value in inputs.items()}
    long = model.generate_saliency(**longer, normalize=normalize)
    assert (short.logits - long.logits).abs().max() <= 1e-5
    assert (short.saliency - long.saliency[:, :9]).abs().max() <= 1e-5
    outside = longer["attention_mask"] == 0
    assert (long.saliency[outside] == 0).all()
    assert all((found[outside] == 0).all() for found in long.block_saliency)
    junk = longer | {"input_ids": torch.where(outside, 77, longer["input_ids"])}
    assert (model.generate_saliency(**junk, normalize=normalize).saliency - long.saliency).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["bool", "float", "one row"])
def test_extended_masks_are_2d_masks(kind):
    model, inputs = network("bert"), text_batch()
    if kind == "one row":
        inputs["attention_mask"] = inputs["attention_mask"][1:2].expand(4, -1)
    expected = model.generate_saliency(**inputs)
    valid = inputs["attention_mask"].bool()[:, None, None]
    extended = valid[:1] if kind == "one row" else valid
    if kind == "float":
        extended = torch.zeros(valid.shape).masked_fill(~valid, torch.finfo(torch.float32).min)
    assert same(model.generate_saliency(input_ids=inputs["input_ids"], attention_mask=extended), expected, 1e-5)


def test_rows_of_padding_alone_give_zeros():
    model, inputs = network("bert"), text_batch()
    inputs["attention_mask"][2] = 0
    for options in ({}, {"target": "all", "contrast": "softmax"}, {"mode": "cam"}, {"normalize": "percentile"}):
        answer = model.generate_saliency(**inputs, **options)
        assert (answer.saliency[2] == 0).all() and (answer.explained[2] == 0).all()
        assert (answer.logits[2] == 0).all()
        assert all(torch.isfinite(value).all() for value in (answer.saliency, answer.logits, answer.block_logits))


def test_embeddings_as_inputs():
    model, inputs = network("bert"), text_batch()
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    answer = model.generate_saliency(inputs_embeds=embeds, attention_mask=inputs["attention_mask"])
    assert same(answer, model.generate_saliency(**inputs), 1e-5)


def test_token_types_and_positions_are_heard():
    model, inputs = network("bert"), text_batch()
    plain = model(**inputs).logits
    assert not torch.allclose(model(**inputs, token_type_ids=torch.ones_like(inputs["input_ids"])).logits, plain)
    assert not torch.allclose(model(**inputs, position_ids=torch.arange(13).flip(0)[None]).logits, plain)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"target": "all"}, {"contrast": "softmax", "mode": "cam"}])
def test_one_pass_through_the_backbone(family, options):
    model, inputs = network(family), inputs_for(family)
    passes = []
    watched = list(model.base_model.modules())
    hooks = [module.register_forward_hook(lambda module, _a, _o: passes.append(id(module))) for module in watched]
    try:
        model(**inputs)
        expected = sorted(passes)
        passes.clear()
        model.generate_saliency(**inputs, **options)
    finally:
        for hook in hooks:
            hook.remove()
    assert sorted(passes) == expected and len(passes) > 20


@pytest.mark.parametrize("family", FAMILIES)
def test_no_gradient_is_needed_and_none_is_touched(family):
    model, inputs = copy.deepcopy(network(family)), inputs_for(family)
    expected = model.generate_saliency(**inputs)
    with torch.inference_mode():
        assert same(model.generate_saliency(**inputs), expected)
    with torch.no_grad():
        assert same(model.generate_saliency(**inputs), expected)
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 3.0)
    answer = model.generate_saliency(**inputs)
    assert all((weight.grad == 3).all() for weight in model.parameters())
    assert not any(value.requires_grad for value in (answer.saliency, answer.logits, *answer.block_saliency))
    model.requires_grad_(False)
    assert same(model.generate_saliency(**inputs), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_mode_is_restored_and_answers_are_those_of_eval_mode(family):
    model, inputs = copy.deepcopy(network(family)), inputs_for(family)
    expected = model.generate_saliency(**inputs)
    model.train()
    model.heads[0].eval()
    modes = [module.training for module in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    assert same(model.generate_saliency(**inputs), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    with pytest.raises(ValueError, match="target"):
        model.generate_saliency(**inputs, target=99)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("family", FAMILIES)
def test_random_state_inputs_and_attributes_stay(family):
    model, inputs = copy.deepcopy(network(family)).train(), inputs_for(family)
    before = [dict(vars(module)) for module in model.modules()]
    config, given = model.config.to_dict(), {name: value.clone() for name, value in inputs.items()}
    state = torch.get_rng_state()
    model.generate_saliency(**inputs, contrast="softmax", target="all")
    assert torch.equal(torch.get_rng_state(), state)
    assert [dict(vars(module)) for module in model.modules()] == before
    assert model.config.to_dict() == config
    assert all(torch.equal(value, given[name]) for name, value in inputs.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_threads_on_one_model(family):
    model = network(family)
    batches = [inputs_for(family, seed=seed) for seed in range(8)]
    options = [{}, {"target": 1}, {"target": "all"}, {"contrast": "softmax"}] * 2
    expected = [model.generate_saliency(**batch, **option) for batch, option in zip(batches, options)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            found = list(pool.map(lambda pair: model.generate_saliency(**pair[0], **pair[1]), zip(batches, options)))
            assert all(same(one, two, 1e-6) for one, two in zip(found, expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_maps_come_in_float32(family):
    model, inputs = copy.deepcopy(network(family)).to(torch.bfloat16), inputs_for(family)
    answer = model.generate_saliency(**inputs)
    assert answer.saliency.dtype == answer.logits.dtype == torch.float32
    bound = 1e-5 * max(1, answer.logits.abs().max().item())
    assert (answer.saliency.flatten(1).sum(1) - answer.explained).abs().max() <= bound
    assert (answer.explained - answer.logits.amax(-1)).abs().max() <= bound
    full = network(family)(**inputs).logits
    assert (answer.logits - full).abs().max() < 0.15 * full.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_keeps_maps_exact(family):
    model, inputs = network(family), inputs_for(family)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = model.generate_saliency(**inputs)
    assert answer.saliency.dtype == answer.logits.dtype == torch.float32
    bound = 1e-5 * max(1, answer.logits.abs().max().item())
    assert (answer.saliency.flatten(1).sum(1) - answer.explained).abs().max() <= bound


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_among_the_inputs_are_ignored(family):
    model, inputs = copy.deepcopy(network(family)), inputs_for(family)
    expected = model.generate_saliency(**inputs)
    assert same(model.generate_saliency(**inputs, labels=torch.zeros(len(expected.target), dtype=torch.long)), expected)
    assert model.config.problem_type is None


@pytest.mark.parametrize("family", FAMILIES)
def test_equivalent_matrix_maps_descriptors_to_logits(family):
    model, inputs = network(family, torch.float64), inputs_for(family)
    if family == "resnet":
        inputs["pixel_values"] = inputs["pixel_values"].double()
    kept = {}
    model.base_model(**inputs, explain=lambda block, features: kept.__setitem__(block, features.p.clone()))
    logits = model(**inputs).block_logits
    for block in range(model.num_blocks):
        matrix = model.equivalent_matrix(block)
        assert matrix.shape == (4, kept[block].shape[1])
        assert torch.allclose(kept[block] @ matrix.T, logits[:, block], rtol=0, atol=1e-10)
        assert torch.equal(matrix, model.equivalent_matrix(block - model.num_blocks))


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_and_attentions(family):
    model, inputs = (
        network(family, **({"attn_implementation": "eager"} if family == "bert" else {})),
        inputs_for(family),
    )
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    if family == "bert":
        assert [tuple(state.shape) for state in output.hidden_states] == [(4, 13, 32)] * 4
        assert [tuple(weights.shape) for weights in output.attentions] == [(4, 4, 13, 13)] * 3
        last = model.bert(**inputs).last_hidden_state
    else:
        assert [state.shape[1] for state in output.hidden_states] == [64, 8, 12, 16, 24]
        last = model.resnet(**inputs).last_hidden_state
    assert torch.equal(output.hidden_states[-1], last)
    plain = model(**inputs)
    assert plain.hidden_states is None and plain.attentions is None


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(family):
    def gradients(checkpointing):
        model = copy.deepcopy(network(family)).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable()
        inputs = inputs_for(family)
        labels = torch.arange(len(next(iter(inputs.values())))) % 4
        model(**inputs, labels=labels).loss.backward()
        return {name: weight.grad for name, weight in model.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    assert all(torch.allclose(checkpointed[name], grad, atol=1e-5, rtol=1e-4) for name, grad in plain.items())


def test_eager_and_sdpa_agree():
    inputs = text_batch()
    sdpa, eager = (network("bert", attn_implementation=name) for name in ("sdpa", "eager"))
    assert same(sdpa.generate_saliency(**inputs), eager.generate_saliency(**inputs), 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_paper_setting(family):
    model, inputs = network(family), inputs_for(family)
    config = type(model.config).paper(num_labels=7)
    assert (config.gate_scale, config.head_decay, config.num_labels) == (1.0, 0.0, 7)
    answer = model.generate_saliency(**inputs, decay=0)
    assert (answer.explained - answer.block_logits[range(len(answer.target)), -1, answer.target]).abs().max() <= 1e-5
