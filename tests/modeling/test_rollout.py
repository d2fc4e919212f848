"""Do maps that are carried back through attention keep their sums, and are their shares those of a slow derivation?"""

import pytest
import torch

from networks import image_batch, lively_bert, lively_resnet, text_batch


def attention_and_inputs(model, inputs):
    """Each layer's own attention probabilities [B, H, T, T], which transformers reports, and what it read [B, T, C]."""
    model.set_attn_implementation("eager")
    answer = model(**inputs, output_attentions=True, output_hidden_states=True)
    model.set_attn_implementation("sdpa")
    return answer.attentions, answer.hidden_states


def slow_shares(layer, attention, x):
    """The shares of one layer and one text with loops over tokens and heads, from the vectors that are added up."""
    attend, output = layer.attention.self, layer.attention.output.dense.weight
    tokens, size = len(x), attend.attention_head_size
    value = attend.value(x)
    result = x.new_zeros(tokens, tokens)
    for i in range(tokens):
        parts = []
        for j in range(tokens):
            part = x[i].clone() if i == j else torch.zeros_like(x[i])
            for head in range(attend.num_attention_heads):
                own = slice(head * size, (head + 1) * size)
                part += attention[head, i, j] * (output[:, own] @ value[j, own])
            parts.append(part)
        total = sum(parts)
        for j, part in enumerate(parts):
            result[i, j] = part @ total / (total @ total)
    return result


@torch.no_grad()
def test_shares_are_those_of_a_slow_derivation():
    model, inputs = lively_bert(torch.float64), text_batch(batch=2, length=7)
    attentions, hidden = attention_and_inputs(model, inputs)
    plain = model.generate_saliency(**inputs, target=1)
    carried = model.generate_saliency(**inputs, target=1, rollout=True)
    for row in range(2):
        rolled = torch.eye(7, dtype=torch.float64)
        for block, layer in enumerate(model.bert.encoder.layer):
            rolled = slow_shares(layer, attentions[block][row], hidden[block][row]) @ rolled
            expected = plain.block_saliency[block][row] @ rolled
            torch.testing.assert_close(carried.block_saliency[block][row], expected, rtol=0, atol=1e-10)
            assert (expected - plain.block_saliency[block][row]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": "all"},
        {"contrast": "softmax"},
        {"target": [1, 0, 2, 3], "contrast": "mean", "blocks": [0, -1], "decay": 0.8},
        {"mode": "cam", "target": 1},
        {"sign": "positive", "sharpness": 0.3},
    ],
    ids=str,
)
def test_sums_stay_and_padding_gets_nothing(options, dtype):
    model, inputs = lively_bert(dtype), text_batch()
    bound = 1e-5 if dtype == torch.float32 else 1e-10
    plain = model.generate_saliency(**inputs, **options)
    carried = model.generate_saliency(**inputs, **options, rollout=True)
    scale = max(1, plain.logits.abs().max().item())
    for before, after in zip(
        (plain.saliency, *plain.block_saliency), (carried.saliency, *carried.block_saliency), strict=True
    ):
        assert (before.sum(-1) - after.sum(-1)).abs().max() <= bound * scale
        assert not after.masked_select(padding(inputs, after)).any()
    torch.testing.assert_close(carried.explained, plain.explained, rtol=bound, atol=bound * scale)
    torch.testing.assert_close(carried.logits, plain.logits)


def padding(inputs, maps):
    """True where a map [B, T] or [B, K, T] stands on padding."""
    empty = inputs["attention_mask"] == 0
    return (empty[:, None] if maps.ndim == 3 else empty).expand_as(maps)


def test_a_text_has_the_same_map_alone_and_in_a_padded_batch():
    model, inputs = lively_bert(torch.float64), text_batch()
    together = model.generate_saliency(**inputs, rollout=True).saliency
    for row, mask in enumerate(inputs["attention_mask"]):
        alone = {name: value[row : row + 1, mask.bool()] for name, value in inputs.items()}
        found = model.generate_saliency(**alone, rollout=True).saliency[0]
        torch.testing.assert_close(found, together[row, mask.bool()], rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_sums(dtype):
    model = lively_bert(torch.float32).to(dtype)
    answer = model.generate_saliency(**text_batch(), rollout=True)
    assert answer.saliency.dtype == torch.float32
    torch.testing.assert_close(answer.saliency.sum(-1), answer.explained, rtol=1e-5, atol=1e-5)


def test_autocast_keeps_the_sums():
    model = lively_bert(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = model.generate_saliency(**text_batch(), rollout=True)
    assert answer.saliency.dtype == torch.float32
    torch.testing.assert_close(answer.saliency.sum(-1), answer.explained, rtol=1e-5, atol=1e-5)


def test_a_row_without_a_token_gets_zeros():
    inputs = text_batch()
    inputs["attention_mask"][1] = 0
    answer = lively_bert(torch.float32).generate_saliency(**inputs, rollout=True)
    assert not answer.saliency[1].any() and answer.saliency.isfinite().all() and answer.saliency[0].any()


def test_quantised_attention_is_refused():
    model = lively_bert(torch.float32)
    dense = model.bert.encoder.layer[1].attention.output.dense
    dense.weight = torch.nn.Parameter((dense.weight * 100).to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="rollout=True reads the attention's output weights, which are quantised"):
        model.generate_saliency(**text_batch(), rollout=True)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_wrong_rollout_is_named(value):
    with pytest.raises(TypeError, match=f"rollout must be True or False, got {value!r}"):
        lively_bert().generate_saliency(**text_batch(), rollout=value)


def test_an_image_model_has_no_attention_to_go_back_through():
    with pytest.raises(ValueError, match="rollout=True goes back through a text model's attention"):
        lively_resnet().generate_saliency(**image_batch(), rollout=True)
