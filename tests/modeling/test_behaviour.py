"""What `generate_saliency` leaves alone, and what an answer does not depend on: batches, padding, modes, threads."""

import copy
import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from networks import NAMES, TEXTS, batch_for, checkpoint_activations, family_named, lively

FULL = ["bert", "resnet"]


@functools.cache
def network(name, dtype=torch.float32, **fields):
    return lively(name, dtype, **fields)


def same(answer, other, bound=0.0):
    """Whether two answers agree in every field to `bound`."""
    for field in ("saliency", "explained", "logits", "block_logits", "target"):
        one, two = getattr(answer, field), getattr(other, field)
        if one is not two and (one - two).abs().max() > bound:
            return False
    pairs = zip(answer.block_saliency, other.block_saliency)
    return all((one - two).abs().max() <= bound for one, two in pairs)


ROWS = [(name, {}) for name in NAMES] + [(name, option) for name in FULL
                                         for option in ({"target": "all"}, {"contrast": "softmax"})]  # fmt: skip


@pytest.mark.parametrize("name, options", ROWS, ids=str)
def test_a_row_does_not_depend_on_its_batch(name, options):
    model, inputs = network(name), batch_for(name, batch=4)
    together = model.generate_saliency(**inputs, **options)
    cams = model.paper_saliency(**inputs, target=1, normalize=None)
    for row in range(4):
        one_row = {key: value[row : row + 1] for key, value in inputs.items()}
        alone = model.generate_saliency(**one_row, **options)
        assert (alone.logits[0] - together.logits[row]).abs().max() <= 1e-5
        assert (alone.saliency[0] - together.saliency[row]).abs().max() <= 1e-5
        assert (alone.explained[0] - together.explained[row]).abs().max() <= 1e-5
        for one, many in zip(alone.block_saliency, together.block_saliency):
            assert (one[0] - many[row]).abs().max() <= 1e-5
        cam = model.paper_saliency(**one_row, target=1, normalize=None).saliency[0]
        assert (cam - cams.saliency[row]).abs().max() <= 1e-5 * max(1, cam.abs().max())  # not divided by N


def padded(inputs, name, left, right):
    """A text batch with more padding on both sides, and positions for the models that count places from the left."""
    pad = getattr(network(name).config, "pad_token_id", 0)
    grow = functools.partial(torch.nn.functional.pad, pad=(left, right))
    found = {"input_ids": grow(inputs["input_ids"], value=pad), "attention_mask": grow(inputs["attention_mask"])}
    if name in ("bert", "distilbert", "deberta_v2"):
        places = torch.arange(found["input_ids"].shape[1])
        found["position_ids"] = (places - left).clamp(min=0).expand_as(found["input_ids"])
    return found


PADDING = [(name, None) for name in TEXTS] + [("bert", "minmax"), ("bert", "percentile")]


@pytest.mark.parametrize("left, right", [(0, 27), (9, 0), (5, 3)])
@pytest.mark.parametrize("name, normalize", PADDING)
def test_padding_on_any_side_changes_nothing_and_gets_zero(name, normalize, left, right):
    model, inputs = network(name), batch_for(name)
    longer = padded(inputs, name, left, right)
    short = model.generate_saliency(**inputs, normalize=normalize)
    long = model.generate_saliency(**longer, normalize=normalize)
    assert (short.logits - long.logits).abs().max() <= 2e-5
    assert (short.saliency - long.saliency[:, left : left + 13]).abs().max() <= 2e-5
    outside = longer["attention_mask"] == 0
    assert (long.saliency[outside] == 0).all()
    assert all((found[outside] == 0).all() for found in long.block_saliency)
    if name == "roberta":  # its positions are counted from the padding token itself
        return
    junk = longer | {"input_ids": torch.where(outside, 77, longer["input_ids"])}
    assert (model.generate_saliency(**junk, normalize=normalize).saliency - long.saliency).abs().max() <= 1e-5


@pytest.mark.parametrize("name", TEXTS)
def test_any_mask_of_leading_or_trailing_zeros_is_exact(name):
    """Left-padded rows as a tokenizer makes them, and a row of padding on both sides."""
    model, inputs = network(name), batch_for(name, side="left")
    inputs["attention_mask"][0, -2:] = 0
    for options in ({}, {"target": "all", "contrast": "mean"}):
        answer = model.generate_saliency(**inputs, **options)
        assert (answer.saliency.sum(-1) - answer.explained).abs().max() <= 1e-5 * max(1, answer.logits.abs().max())
        outside = inputs["attention_mask"] == 0
        maps = answer.saliency if answer.saliency.ndim == 2 else answer.saliency.transpose(1, 2)
        assert (maps[outside] == 0).all() and maps[~outside].any()


@pytest.mark.parametrize("kind", ["bool", "float", "one row"])
@pytest.mark.parametrize("name", TEXTS)
def test_extended_masks_are_2d_masks(name, kind):
    model, inputs = network(name), batch_for(name)
    if kind == "one row":
        inputs["attention_mask"] = inputs["attention_mask"][1:2].expand(4, -1)
    expected = model.generate_saliency(**inputs)
    valid = inputs["attention_mask"].bool()[:, None, None]
    extended = valid[:1] if kind == "one row" else valid
    if kind == "float":
        extended = torch.zeros(valid.shape).masked_fill(~valid, torch.finfo(torch.float32).min)
    assert same(model.generate_saliency(input_ids=inputs["input_ids"], attention_mask=extended), expected, 1e-5)


@pytest.mark.parametrize("name", TEXTS)
def test_rows_of_padding_alone_give_zeros(name):
    model, inputs = network(name), batch_for(name)
    inputs["attention_mask"][2] = 0
    for options in ({}, {"target": "all", "contrast": "softmax"}, {"normalize": "percentile"}):
        answer = model.generate_saliency(**inputs, **options)
        assert (answer.saliency[2] == 0).all() and (answer.explained[2] == 0).all() and (answer.logits[2] == 0).all()
        assert all(torch.isfinite(value).all() for value in (answer.saliency, answer.logits, answer.block_logits))
    assert (model.paper_saliency(**inputs).saliency[2] == 0).all()


@pytest.mark.parametrize("name", TEXTS)
def test_embeddings_as_inputs(name):
    model, inputs = network(name), batch_for(name)
    if name == "roberta":  # without tokens it counts positions as if there were no padding; the kept tokens' agree
        inputs["attention_mask"][:] = 1
        inputs["input_ids"] = inputs["input_ids"].clamp(min=5)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    answer = model.generate_saliency(inputs_embeds=embeds, attention_mask=inputs["attention_mask"])
    assert same(answer, model.generate_saliency(**inputs), 1e-5)


def test_token_types_and_positions_are_heard():
    model, inputs = network("bert"), batch_for("bert")
    plain = model(**inputs).logits
    assert not torch.allclose(model(**inputs, token_type_ids=torch.ones_like(inputs["input_ids"])).logits, plain)
    assert not torch.allclose(model(**inputs, position_ids=torch.arange(13).flip(0)[None]).logits, plain)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("explain", ["generate_saliency", "paper_saliency"])
def test_one_pass_through_the_backbone(name, explain):
    model, inputs = network(name), batch_for(name)
    gates = {id(part) for gate in model.base_model.gates for part in gate.modules()}
    passes = []
    watched = [module for module in model.base_model.modules() if id(module) not in gates]
    hooks = [module.register_forward_hook(lambda module, _a, _o: passes.append(id(module))) for module in watched]
    try:
        model(**inputs)
        expected = sorted(passes)
        passes.clear()
        getattr(model, explain)(**inputs, contrast="softmax")
    finally:
        for hook in hooks:
            hook.remove()
    assert sorted(passes) == expected and len(passes) > 20


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_is_needed_and_none_is_touched(name):
    model, inputs = copy.deepcopy(network(name)), batch_for(name)
    expected = model.generate_saliency(**inputs)
    with torch.inference_mode():
        assert same(model.generate_saliency(**inputs), expected)
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 3.0)
    answer = model.generate_saliency(**inputs)
    assert all((weight.grad == 3).all() for weight in model.parameters())
    assert not any(value.requires_grad for value in (answer.saliency, answer.logits, *answer.block_saliency))
    model.requires_grad_(False)
    assert same(model.generate_saliency(**inputs), expected)


@pytest.mark.parametrize("name", NAMES)
def test_training_mode_gives_the_maps_of_eval_mode_and_leaves_no_trace(name):
    model, inputs = copy.deepcopy(network(name)), batch_for(name)
    expected = model.generate_saliency(**inputs)
    paper = model.paper_saliency(**inputs)
    model.train()
    model.heads[0].eval()
    modules = [dict(vars(module)) for module in model.modules()]
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    config, given = model.config.to_dict(), {key: value.clone() for key, value in inputs.items()}
    state = torch.get_rng_state()
    assert same(model.generate_saliency(**inputs), expected)
    assert same(model.paper_saliency(**inputs), paper)
    with pytest.raises(ValueError, match="target"):
        model.generate_saliency(**inputs, target=99)
    assert torch.equal(torch.get_rng_state(), state)
    assert [dict(vars(module)) for module in model.modules()] == modules
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
    assert model.config.to_dict() == config
    assert all(torch.equal(value, given[key]) for key, value in inputs.items())


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", NAMES)
def test_eight_threads_on_one_model(name, train):
    """As a web server's pool does with a model that `trainer.train()` left in train mode."""
    model = copy.deepcopy(network(name))
    batches = [batch_for(name, seed=seed) for seed in range(8)]
    options = [{}, {"target": 1}, {"target": "all"}, {"contrast": "softmax"}] * 2
    expected = [model.generate_saliency(**batch, **option) for batch, option in zip(batches, options)]
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    model.train(train)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3 if name in FULL else 1):
            found = list(pool.map(lambda pair: model.generate_saliency(**pair[0], **pair[1]), zip(batches, options)))
            assert all(same(one, two, 1e-6) for one, two in zip(found, expected))
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
    assert all(module.training == train for module in model.modules())


@pytest.mark.parametrize("way", ["bfloat16", "float16", "autocast"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_and_autocast_keep_maps_exact(name, way):
    model, inputs = copy.deepcopy(network(name)), batch_for(name)
    if way == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answer = model.generate_saliency(**inputs)
    else:
        answer = model.to(getattr(torch, way)).generate_saliency(**inputs)
    assert answer.saliency.dtype == answer.logits.dtype == torch.float32
    bound = 1e-5 * max(1, answer.logits.abs().max().item())
    assert (answer.saliency.flatten(1).sum(1) - answer.explained).abs().max() <= bound
    assert (answer.explained - answer.logits.amax(-1)).abs().max() <= bound
    full = network(name)(**inputs).logits
    assert (answer.logits - full).abs().max() < 0.2 * full.abs().max()


@pytest.mark.parametrize("name", FULL)
def test_labels_among_the_inputs_are_ignored(name):
    model, inputs = copy.deepcopy(network(name)), batch_for(name)
    expected = model.generate_saliency(**inputs)
    assert same(model.generate_saliency(**inputs, labels=torch.zeros(len(expected.target), dtype=torch.long)), expected)
    assert model.config.problem_type is None


@pytest.mark.parametrize("name", NAMES)
def test_equivalent_matrix_maps_descriptors_to_logits(name):
    model, inputs = network(name, torch.float64), batch_for(name, torch.float64)
    kept = {}
    model(**inputs, explain=lambda block, features: kept.__setitem__(block, features.p.clone()))
    logits = model(**inputs).block_logits
    for block in range(model.num_blocks):
        matrix = model.equivalent_matrix(block)
        assert matrix.shape == (4, kept[block].shape[1])
        assert torch.allclose(kept[block] @ matrix.T, logits[:, block], rtol=0, atol=1e-10)
        assert torch.equal(matrix, model.equivalent_matrix(block - model.num_blocks))
    with pytest.raises(ValueError, match="blocks must lie in"):
        model.equivalent_matrix(model.num_blocks)


def eager(name):
    """A network whose attention is computed plainly, so that its weights can be shown."""
    model = copy.deepcopy(network(name))
    if name != "deberta_v2":  # has no other
        model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("name", TEXTS)
def test_hidden_states_and_attentions_of_texts(name):
    model, inputs = eager(name), batch_for(name)
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [(4, 13, 32)] * 4
    assert [tuple(weights.shape) for weights in output.attentions] == [(4, 4, 13, 13)] * 3
    assert torch.equal(output.hidden_states[-1], model.base_model(**inputs).last_hidden_state)
    plain = model(**inputs)
    assert plain.hidden_states is None and plain.attentions is None


@pytest.mark.parametrize(
    "name, channels",
    [("resnet", [64, 8, 12, 16, 24]), ("convnext", [8, 8, 12, 16, 24]), ("vit", [24] * 4), ("swin", [12, 12, 24])],
)
def test_hidden_states_of_images(name, channels):
    model, inputs = network(name), batch_for(name)
    output = model(**inputs, output_hidden_states=True)
    axis = model.base_model.blocks[0].channel_axis
    assert [state.shape[axis] for state in output.hidden_states] == channels
    last = model.base_model.finish(output.hidden_states[-1])
    assert torch.equal(last, model.base_model(**inputs).last_hidden_state)
    assert model(**inputs).hidden_states is None and output.attentions is None


@pytest.mark.parametrize("name", NAMES)
def test_every_block_answers_with_its_feature_tensor(name):
    """So that others' tools, which hook modules, read it."""
    model, inputs = network(name), batch_for(name)
    found = []
    hooks = [block.register_forward_hook(lambda _m, _a, out: found.append(out)) for block in model.base_model.blocks]
    model(**inputs)
    for hook in hooks:
        hook.remove()
    assert len(found) == model.num_blocks and all(isinstance(out, torch.Tensor) for out in found)
    for out, block, head in zip(found, model.base_model.blocks, model.heads):
        assert out.shape[block.channel_axis] == head.in_features


LOSSES = {
    "single": {},
    "instance share": {"binary_share": 0.5, "instance_share": 0.5},
    "several": {"problem_type": "multi_label_classification", "instance_share": 0.5},
    "regression": {"problem_type": "regression"},
}
CHECKPOINTED = [(name, kind) for name in NAMES for kind in LOSSES if name in FULL or kind == "instance share"]


@pytest.mark.parametrize("name, kind", CHECKPOINTED)
def test_gradient_checkpointing_gives_the_same_gradients(name, kind):
    def gradients(checkpointing):
        model = lively(name, **LOSSES[kind]).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            checkpoint_activations(model)
            assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        inputs = batch_for(name, torch.float64)
        labels = torch.arange(len(next(iter(inputs.values())))) % 4
        if kind in ("several", "regression"):
            labels = torch.nn.functional.one_hot(labels, 4).double()
        model(**inputs, labels=labels).loss.backward()
        return {key: weight.grad for key, weight in model.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    assert all(torch.allclose(checkpointed[key], grad, atol=1e-9, rtol=1e-7) for key, grad in plain.items())
    assert all(grad.norm() > 0 for key, grad in plain.items() if "gate" in key or key.startswith("heads."))


@pytest.mark.parametrize("name", NAMES)
def test_reentrant_checkpointing_is_refused(name):
    with pytest.raises(ValueError, match="use_reentrant=True would lose the gradients of gates and heads"):
        checkpoint_activations(copy.deepcopy(network(name)), use_reentrant=True)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert"])
def test_eager_and_sdpa_agree(name):
    inputs = batch_for(name)
    assert network(name).config._attn_implementation == "sdpa"
    assert same(network(name).generate_saliency(**inputs), eager(name).generate_saliency(**inputs), 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_paper_setting(name):
    model, inputs = network(name), batch_for(name)
    config = family_named(name).config.paper(num_labels=7)
    assert (config.gate_scale, config.head_decay, config.num_labels) == (1.0, 0.0, 7)
    answer = model.generate_saliency(**inputs, decay=0)
    assert (answer.explained - answer.block_logits[range(len(answer.target)), -1, answer.target]).abs().max() <= 1e-5
