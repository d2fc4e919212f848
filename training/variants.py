"""Which variants of MHEX are compared that no configuration makes? Gates held at 1, and heads that start small."""

import torch
from torch import nn
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


def start_small(model: PreTrainedModel) -> None:
    """Draw the heads' weights anew as `nn.Linear` starts: up to 1 / sqrt(C), which a large a must make up for."""
    for head in model.heads:
        nn.init.kaiming_uniform_(head.weight, a=5**0.5)
