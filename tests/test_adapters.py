"""LoRA on MHEX models: what learns, what is saved, and exact maps with adapters active, merged and disabled."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

import hf_mhex
from networks import NAMES, batch_for, lively, lively_bert, text_batch

TARGETS = {"resnet": ["conv2"], "convnext": ["fc1"], "signal": ["conv2"]}  # families without attention name their own


def assert_exact(model, inputs):
    answer = model.generate_saliency(**inputs)
    bound = 1e-5 * max(1, answer.logits.abs().max().item())
    assert (answer.saliency.flatten(1).sum(1) - answer.logits.amax(1)).abs().max() <= bound
    return answer


@pytest.mark.parametrize("name", NAMES)
def test_gates_and_heads_learn_and_travel_with_the_adapters(name, tmp_path):
    inputs, plain = batch_for(name), lively(name, torch.float32)
    targets = {"target_modules": TARGETS[name]} if name in TARGETS else {}
    adapted = get_peft_model(lively(name, torch.float32), hf_mhex.lora_config(plain, r=2, **targets))
    learning = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    for block in range(plain.num_blocks):
        assert any(f"heads.{block}." in name for name in learning)
    assert sum(".gate." in name for name in learning) == plain.num_blocks
    optimizer = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=0.01)
    labels = torch.arange(len(next(iter(inputs.values())))) % 4
    for _ in range(3):
        adapted.train()(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.eval()
    active = assert_exact(adapted, inputs)
    with adapted.disable_adapter():
        disabled = assert_exact(adapted, inputs)
    assert (disabled.logits - plain.generate_saliency(**inputs).logits).abs().max() <= 1e-5
    assert (active.logits - disabled.logits).abs().max() > 1e-3
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(lively(name, torch.float32), tmp_path).eval()
    assert (assert_exact(loaded, inputs).saliency - active.saliency).abs().max() <= 1e-5
    merged = loaded.merge_and_unload()
    assert (assert_exact(merged, inputs).logits - active.logits).abs().max() <= 1e-6 * active.logits.abs().max()
    assert set(merged.state_dict()) == set(plain.state_dict())


def test_rollout_through_adapted_attention_stays_exact():
    model, inputs = lively_bert(torch.float32), text_batch()
    options = {"target_modules": ["query", "dense"], "init_lora_weights": False}
    adapted = get_peft_model(model, hf_mhex.lora_config(model, r=2, **options)).eval()
    answer = adapted.generate_saliency(**inputs, rollout=True)
    assert (answer.saliency.sum(1) - answer.explained).abs().max() <= 1e-5 * answer.logits.abs().max()


def test_a_lora_that_freezes_the_heads_is_warned_of():
    adapted = get_peft_model(lively_bert(torch.float32), LoraConfig(target_modules=["query"])).train()
    with pytest.warns(UserWarning, match="hf_mhex.lora_config"):
        adapted(**text_batch(), labels=torch.tensor([0, 1, 2, 3]))
