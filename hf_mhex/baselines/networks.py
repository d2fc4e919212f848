"""How do foreign libraries look at an MHEX network? Plain modules from one tensor to logits, and its layers."""

from __future__ import annotations

import copy

import torch
from torch import nn


def logits_of(answer) -> torch.Tensor:
    """The logits [B, K] in a model's answer: its `.logits`, or the answer itself."""
    return getattr(answer, "logits", answer)


class PixelsToLogits(nn.Module):
    """pixel_values [B, C, H, W] to logits [B, K], for libraries that call a module with one tensor."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return logits_of(self.model(pixel_values))


class EmbeddingsToLogits(nn.Module):
    """inputs_embeds [B, T, C] and attention_mask [B, T] to logits [B, K]; `embed` gives the word embeddings."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Word embeddings [B, T, C], before positions are added."""
        return self.model.get_input_embeddings()(input_ids)

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return logits_of(self.model(inputs_embeds=inputs_embeds, attention_mask=attention_mask))


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose activations do not work in place, so that hooks see what a layer gave."""
    changed = copy.deepcopy(model).eval()
    for module in changed.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
    return changed.requires_grad_(True)


def trunk_of(model: nn.Module) -> nn.Module:
    """timm's network inside an MHEX-ResNet, a plain twin or a timm network; ValueError where there is none."""
    for module in model.modules():
        if all(hasattr(module, f"layer{number}") for number in range(1, 5)):
            return module
    raise ValueError(f"model must hold a timm ResNet (layer1 to layer4), this {type(model).__name__} does not.")


class Tap(nn.Module):
    """A gate that shows what it reads: `shown` passes z (or ReLU(z)) [B, C, ...] on and can be hooked."""

    def __init__(self, gate: nn.Module):
        super().__init__()
        self.gate, self.shown = gate, nn.Identity()
        self.rectified = gate.rectified

    def read(self, *summands: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As the gate's."""
        return self.gate.read(*summands)

    def forward(self, summands: tuple[torch.Tensor, ...], valid: torch.Tensor | None = None, first_sum=None):
        return self.gate((self.shown(sum(summands)),), valid)


def stage_output(model: nn.Module, stage: int) -> nn.Module:
    """The module of a private copy whose output is that of a stage (1 to 4), [B, C, h, w].

    Its last block's last activation, except for the last stage of MHEX: nothing reads that activation, since the last
    head reads z (or ReLU(z)) before it, so that is shown there.
    """
    block = getattr(trunk_of(model), f"layer{stage}")[-1]
    if stage == 4 and hasattr(block, "gate"):
        block.gate = Tap(block.gate)
        return block.gate.shown
    return last_activation(block)


def last_activation(block: nn.Module) -> nn.Module:
    """The activation after a timm block's addition."""
    return block.act3 if hasattr(block, "act3") else block.act2
