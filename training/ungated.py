"""What do the heads do without the gates? MHEX with every gate held at 1: deep supervision alone, for comparison."""

import torch
from transformers import PreTrainedModel

from hf_mhex.modeling.mhex import AttentionGate


class OpenGate(AttentionGate):
    """An attention gate that lets everything through; the head behind it still reads a = W1 p."""

    def forward(self, *inputs, **named):
        *descriptor, gate = super().forward(*inputs, **named)
        return *descriptor, torch.ones_like(gate)


def open_gates(model: PreTrainedModel) -> None:
    """Hold every gate of an MHEX classifier at 1, for as long as it lives: a saved one is plain MHEX again."""
    for gate in model.base_model.gates:
        gate.__class__ = OpenGate
