"""`check_model`: every family passes, and a model that is broken in one way is caught by the check for it."""

import copy

import pytest
import torch
from transformers import AutoTokenizer

import hf_mhex
from hf_mhex import testing
from hf_mhex.modeling import mhex, mhex_blocks, mhex_maps, mhex_texts
from minilm import MINILM
from networks import NAMES, batch_for, family_named, lively, small_config

FAST = ("bert", "resnet", "vit", "signal")
QUICK = {name: check for name, check in testing.CHECKS.items() if name != "export"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in NAMES])
def test_every_family_holds_it(name, monkeypatch):
    monkeypatch.setattr(testing, "CHECKS", QUICK)
    report = hf_mhex.check_model(lively(name, torch.float32), batch_for(name))
    assert report.ok and [line.name for line in report.lines] == list(QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_exported(name):
    assert hf_mhex.check_model(lively(name, torch.float32), batch_for(name)).lines[-1].name == "export"


def test_fresh_gates_are_tried_open_and_the_model_is_left_alone(monkeypatch):
    """With W1 = 0 all logits are 0, and nothing could fail."""
    monkeypatch.setattr(testing, "CHECKS", {"sum": testing.check_sum, "rows": testing.check_rows})
    model = family_named("bert").classifier(small_config("bert")).train()
    before = copy.deepcopy(model.state_dict())
    model.requires_grad_(False)
    for line in hf_mhex.check_model(model, batch_for("bert")).lines:
        assert line.ok and line.found > 0
    assert model.training and not any(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_texts_with_their_tokenizer(monkeypatch):
    monkeypatch.setattr(testing, "CHECKS", {name: QUICK[name] for name in ("padding", "saving")})
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    model = lively("bert", torch.float32)
    model.resize_token_embeddings(len(tokenizer))
    report = hf_mhex.check_model(model, ["a good camera", "the battery of it is poor"], tokenizer)
    assert report.ok and "(map, row" in str(report)


def sums_off(rows, features):
    return mhex_maps.block_map(rows, features) * 1.001


def leaking(gate):
    def forward(self, x, rows=False):
        return gate(self, x, rows) if rows else gate(self, x + 1e-4 * x.mean(0))

    return forward


def break_sum(patch):
    explain = mhex.MHEXClassifierMixin._explain
    patch.setattr(explain, "__defaults__", (sums_off, *explain.__defaults__[1:]))


def break_rows(patch):
    patch.setattr(mhex_blocks.AttentionGate, "forward", leaking(mhex_blocks.AttentionGate.forward))


def break_padding(patch):
    """Padding is pooled and mapped as words are."""
    patch.setattr(mhex_texts, "valid_positions", lambda mask, shape: None)


def break_saving(patch):
    patch.setattr(family_named("bert").classifier, "_keys_to_ignore_on_save", ["heads.1.weight"], raising=False)


def break_half_precision(patch):
    patch.setattr(mhex_maps, "wide", lambda dtype: dtype)
    patch.setattr(mhex_blocks, "wide", lambda dtype: dtype)


def break_training_mode(patch):
    patch.setattr(mhex, "eval_view", lambda model: model)


def break_gradients(patch):
    head = mhex_blocks.Head.forward
    patch.setattr(mhex_blocks.Head, "forward", lambda self, x, rows=False: head(self, x.detach(), rows))


def break_checkpointing(patch):
    """Gates whose scores are lost to the graph where a block is computed again."""
    gated = mhex_blocks.GatedBlock.gated

    def lost(self, *summands, trace, **options):
        found = gated(self, *summands, trace=trace, **options)
        if self.training and getattr(self, "gradient_checkpointing", False):
            trace.scores[self.block] = trace.scores[self.block].detach()
        return found

    patch.setattr(mhex_blocks.GatedBlock, "gated", lost)


BROKEN = {
    "sum": (break_sum, {"sum", "padding", "half precision"}),
    "rows": (break_rows, {"rows", "sum", "padding", "half precision"}),
    "padding": (break_padding, {"padding"}),
    "saving": (break_saving, {"saving"}),
    "half precision": (break_half_precision, {"half precision"}),
    "training mode": (break_training_mode, {"training mode"}),
    "gradients": (break_gradients, {"gradients"}),
    "checkpointing": (break_checkpointing, {"checkpointing"}),
}


@pytest.mark.parametrize("name", QUICK)
def test_a_broken_model_is_caught_by_the_check_for_it(name, monkeypatch):
    monkeypatch.setattr(testing, "CHECKS", QUICK)
    destroy, allowed = BROKEN[name]
    destroy(monkeypatch)
    model = lively("bert", torch.float32)
    with pytest.raises(AssertionError, match=f"FAILED {name}: ") as caught:
        hf_mhex.check_model(model, batch_for("bert"))
    failed = {line.split(":")[0].removeprefix("FAILED ") for line in str(caught.value).splitlines() if "FAILED" in line}
    assert name in failed and failed <= allowed


@pytest.mark.parametrize("inputs, error", [(["a text"], TypeError), ({}, ValueError)])
def test_inputs_that_cannot_be_checked(inputs, error):
    with pytest.raises(error, match="inputs must"):
        hf_mhex.check_model(lively("bert", torch.float32), inputs)
