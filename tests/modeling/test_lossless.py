"""Conversion without loss: a converted model computes the very features of its source, in eval and in train mode."""

import inspect

import pytest
import timm
import torch
import torchvision
from torch import nn
from transformers import AutoModel, AutoTokenizer, BertModel

import hf_mhex
from hf_mhex.modeling.modeling_mhex_signal import waves
from minilm import MINILM
from networks import CONVERTED, TEXTS, batch_for, family_named, small_config
from plain_networks import NETWORKS, features, inputs_for, pair, plain_part, save_text, scatter


@pytest.mark.parametrize("name", [*TEXTS, *NETWORKS])
@torch.no_grad()
def test_features_are_the_source_s(tmp_path, name):
    plain, model = pair(name, tmp_path)
    assert not model.training
    inputs = inputs_for(name)
    expected = features(plain, inputs)
    assert expected.isfinite().all() and expected.std() > 0.1
    if name in TEXTS:
        assert expected[0].std(dim=0).mean() > 0.15  # tokens differ
    assert torch.equal(features(model, inputs), expected)
    assert model(**inputs).logits.shape == (4, 4)
    found = model(**inputs, output_hidden_states=True).hidden_states
    if name in TEXTS:
        states = plain(**inputs, output_hidden_states=True).hidden_states
        assert all(torch.equal(*both) for both in zip(found, states, strict=True))
    elif isinstance(plain, timm.models.ResNet):
        states = plain.forward_intermediates(inputs["pixel_values"], intermediates_only=True)
        assert all(torch.equal(*both) for both in zip(found[1:], states[1:], strict=True))


@pytest.mark.parametrize("name", [*TEXTS, *NETWORKS])
@torch.no_grad()
def test_train_mode_is_the_source_s(tmp_path, name):
    plain, model = pair(name, tmp_path)
    inputs = inputs_for(name)
    still, before = features(plain, inputs), {key: value.clone() for key, value in plain.state_dict().items()}
    expected = features(plain.train(), inputs)
    quiet = ("group norm", "response normalisation", "no class token")  # nothing in them hears the mode
    assert ((expected - still).abs().max() > 1e-3) == (name not in quiet)
    assert torch.equal(features(model.train(), inputs), expected)
    ours, theirs = plain_part(model).state_dict(), plain.state_dict()
    for key in theirs.keys() & ours.keys():
        assert torch.equal(ours[key], theirs[key]), key
        assert torch.equal(theirs[key], before[key]) == ("running" not in key and "num_batches" not in key), key


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, *(pytest.param(d, marks=pytest.mark.slow) for d in (torch.float64, torch.float16))],
    ids=str,
)
@pytest.mark.parametrize("name", CONVERTED)
@torch.no_grad()
def test_features_of_every_dtype_are_the_source_s(tmp_path, name, dtype):
    plain, model = (network.to(dtype) for network in pair(name, tmp_path))
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs_for(name).items()}
    for train in (False, True):
        expected = features(plain.train(train), inputs)
        assert expected.dtype == dtype and expected.isfinite().all() and expected.std() > 0.1
        assert torch.equal(features(model.train(train), inputs), expected)


def plain_signal_features(body, values):
    """The signal network without its gates, from the modules of `body`."""
    x = body.stem(values)
    x = x * (1 + body.places(waves(x, body.config.position_waves)))
    for block in body.blocks:
        f = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
        x = (f + (x if block.downsample is None else block.downsample(x))).relu()
    return x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_a_fresh_signal_network_is_the_plain_one(dtype):
    body = scatter(family_named("signal").body(small_config("signal")))
    assert all((gate.weight != 0).any() for gate in body.gates)  # scattered too
    for gate in body.gates:
        gate.reset_parameters()
    body.to(dtype)
    values = batch_for("signal", dtype, batch=4)["input_values"]
    for train in (False, True):
        expected = plain_signal_features(body.train(train), values)
        assert expected.dtype == dtype and expected.std() > 0.1
        assert torch.equal(body(values).last_hidden_state, expected)


@pytest.mark.parametrize("name", TEXTS)
@torch.no_grad()
def test_plain_attention_drops_out_as_the_source_does(tmp_path, name):
    save_text(name, tmp_path)
    plain = AutoModel.from_pretrained(tmp_path, attn_implementation="eager").train()
    model = hf_mhex.convert(tmp_path, 4, attn_implementation="eager").train()
    assert torch.equal(features(model, inputs_for(name)), features(plain, inputs_for(name)))


@pytest.mark.parametrize("name", [*CONVERTED, "bottlenecks"])
def test_gradients_are_the_source_s(tmp_path, name):
    plain, model = pair(name, tmp_path)
    inputs = inputs_for(name)
    weights = torch.randn(features(plain, inputs).shape)
    for each in (plain, model):
        (features(each.train(), inputs) * weights).sum().backward()
    ours = dict(plain_part(model).named_parameters())
    expected = {key: weight.grad for key, weight in plain.named_parameters() if weight.grad is not None}
    assert len(expected) >= 20
    bound = 1e-5 * max(grad.abs().max().item() for grad in expected.values())
    for key, grad in expected.items():
        torch.testing.assert_close(ours[key].grad, grad, rtol=1e-4, atol=bound, msg=key)


@pytest.mark.parametrize("name", CONVERTED)
@torch.no_grad()
def test_a_gate_that_is_not_one_is_seen(tmp_path, name):
    plain, model = pair(name, tmp_path)
    nn.init.normal_(model.base_model.gates[1].weight)
    assert (features(model, inputs_for(name)) - features(plain, inputs_for(name))).abs().max() > 1e-2


@pytest.mark.parametrize("name", TEXTS)
@torch.no_grad()
def test_every_input_reaches_the_source_s_layers(tmp_path, name):
    plain, model = pair(name, tmp_path)
    inputs = inputs_for(name)
    mask = inputs["attention_mask"]
    given = [{"input_ids": inputs["input_ids"]}, {"inputs_embeds": torch.randn(4, 13, 32), "attention_mask": mask}]
    more = {
        "token_type_ids": torch.arange(13)[None] % 2 * mask,
        "position_ids": torch.arange(13)[None].repeat(4, 1) + 5,
    }
    if plain.config.to_dict().get("type_vocab_size", 0) < 2:
        del more["token_type_ids"]
    if "position_ids" in inspect.signature(plain.forward).parameters:
        given.append(inputs | more)
    for one in given:
        assert torch.equal(features(model, one), features(plain, one))


@pytest.mark.parametrize(
    "fields",
    [
        {"vocab_size": 333, "type_vocab_size": 1, "max_position_embeddings": 70, "pad_token_id": 1},
        {"hidden_act": "relu", "layer_norm_eps": 1e-5, "num_hidden_layers": 1},
        {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 20},
    ],
)
@torch.no_grad()
def test_fields_of_the_source_are_kept(tmp_path, fields):
    save_text("bert", tmp_path, **fields)
    model = hf_mhex.convert(tmp_path, num_labels=4)
    plain = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(features(model, inputs_for("bert")), features(plain, inputs_for("bert")))
    assert all(getattr(model.config, name) == value for name, value in fields.items())


def test_torchvision_weights_give_torchvision_features(tmp_path):
    theirs = scatter(torchvision.models.resnet18()).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    model = hf_mhex.convert(tmp_path / "resnet18.pth", 4, architecture="resnet18")
    with torch.no_grad():
        expected = nn.Sequential(*list(theirs.children())[:-2])(input=inputs_for("resnet")["pixel_values"])
        found = features(model, inputs_for("resnet"))
    assert expected.std() > 0.1 and (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_the_real_minilm_is_kept_exactly():
    plain, tokenizer = BertModel.from_pretrained(MINILM), AutoTokenizer.from_pretrained(MINILM)
    model = hf_mhex.convert(MINILM, num_labels=2)
    inputs = tokenizer(["The battery is bad, the screen is fine.", "good"], padding=True, return_tensors="pt")
    for train in (False, True):
        assert torch.equal(features(model.train(train), inputs), features(plain.train(train), inputs))
