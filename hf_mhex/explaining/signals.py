"""Signals made ready for a model, and as they were before that."""

from __future__ import annotations

import numpy as np
import torch

from hf_mhex.pictures.signals import Signal, axis_of


def to_input_values(value, model, processor) -> torch.Tensor:
    """A signal [L] or [C, L] as `input_values` [C, L]; ValueError or TypeError for one that the model cannot read."""
    if value is None:
        raise ValueError("the row holds no signal.")
    values = value.detach().cpu() if isinstance(value, torch.Tensor) else np.asarray(value)
    found = processor(values, return_tensors="pt")["input_values"][0]
    axis = model.config.axis
    if axis is not None and found.shape[-1] != len(axis):
        raise ValueError(f"a signal must have the {len(axis)} points of the model's axis, got {found.shape[-1]}.")
    return found


def seen_signal(values: torch.Tensor, model, processor) -> Signal:
    """The signal that the model saw: input_values [C, L] without the standardisation."""
    return Signal(processor.restore(values.detach().cpu()).numpy(), *axis_of(model.config, values.shape[-1]))
