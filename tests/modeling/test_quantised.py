"""Explanations of models whose Linear layers are quantised: gates and heads are left alone, so maps stay exact."""

import copy

import pytest
import torch
from torch import nn

from hf_mhex.modeling.mhex_blocks import WideLinear
from networks import NAMES, batch_for, lively, lively_bert, text_batch


class Int8Linear(nn.Module):
    """A linear map whose weight is 8-bit integers with a scale per row, as quantising libraries put in place."""

    def __init__(self, plain: nn.Linear):
        super().__init__()
        scale = plain.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (plain.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = plain.bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight * self.scale, self.bias)


def swap_linear(module):
    """Replace what is an `nn.Linear`, subclasses included, and count."""
    swapped = 0
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
            swapped += 1
        else:
            swapped += swap_linear(child)
    return swapped


def stays_exact(model, inputs):
    for contrast in (None, "softmax"):
        answer = model.generate_saliency(**inputs, contrast=contrast)
        size = max(1, answer.logits.abs().max().item())
        assert (answer.saliency.flatten(1).sum(1) - answer.explained).abs().max() <= 1e-5 * size
    plain = model.generate_saliency(**inputs)
    assert (plain.explained - plain.logits.amax(-1)).abs().max() <= 1e-5 * size
    return plain


def test_swapped_modules():
    model, inputs = lively_bert(torch.float32), text_batch()
    before = model.generate_saliency(**inputs)
    matrices = [model.equivalent_matrix(block) for block in range(model.num_blocks)]
    assert swap_linear(model) == 6 * model.num_blocks
    after = stays_exact(model, inputs)
    assert all(torch.equal(model.equivalent_matrix(block), matrix) for block, matrix in enumerate(matrices))
    assert 0 < (after.logits - before.logits).abs().max() < 0.1 * before.logits.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_no_gate_and_no_head_is_taken_for_a_linear_layer(name):
    model = lively(name, torch.float32)
    assert sum(isinstance(module, WideLinear) for module in model.modules()) == 2 * model.num_blocks
    assert not any(isinstance(module, nn.Linear) for module in [*model.base_model.gates, *model.heads])
    swap_linear(model)
    stays_exact(model, batch_for(name))


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
def test_torch_dynamic_quantisation():
    if set(torch.backends.quantized.supported_engines) <= {"none"}:
        pytest.skip("this build of torch has no engine for 8-bit integers")
    model, inputs = copy.deepcopy(lively_bert(torch.float32)), text_batch()
    before = model.generate_saliency(**inputs)
    model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert "DynamicQuantizedLinear" in repr(model.bert.encoder.layer[0].output.dense)
    after = stays_exact(model, inputs)
    assert (after.logits - before.logits).abs().max() < 0.1 * before.logits.abs().max()
    with pytest.raises(ValueError, match="a gradient, which Linear of torch.ao.quantization does not give"):
        model.generate_saliency(**inputs, refine=True, mask_token_id=3)
