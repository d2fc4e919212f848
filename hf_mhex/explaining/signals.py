"""Signals made ready for a model, and as they were before that."""

from __future__ import annotations

import numpy as np
import torch

from hf_mhex.pictures.signals import Signal, axis_of


def to_input_values(value, model, processor) -> torch.Tensor:
    """A signal [L] or [C, L] as `input_values` [C, L]; ValueError or TypeError for one that the model cannot read."""
    if value is None:
        raise ValueError("the row holds no signal.")
    if isinstance(value, str):
        raise TypeError(
            "a signal must be an array of numbers, got a str; mhex explain reads them from .csv, .parquet and .npz."
        )
    values = value.detach().cpu() if isinstance(value, torch.Tensor) else np.asarray(value)
    several = processor(values, return_tensors="pt")["input_values"]
    if len(several) != 1:
        raise ValueError(f"a signal must be [L] or [C, L], got {len(several)} of them, {list(values.shape)}; give one.")
    found = several[0]
    axis = model.config.axis
    if axis is not None and found.shape[-1] != len(axis):
        raise ValueError(f"a signal must have the {len(axis)} points of the model's axis, got {found.shape[-1]}.")
    return found


def stack_signals(column, axis, config) -> np.ndarray:
    """The signals of a table's column as an array [N, L] or [N, C, L], for a model of signals.

    Args:
        column: N signals. axis: the places of their points, where the data know them. config: the model's.

    Raises ValueError, naming the row, for signals of several lengths, with NaN, or at other places than the model's.
    """
    signals = [np.asarray(signal, dtype=np.float64) for signal in column]
    shapes = sorted({signal.shape for signal in signals})
    if len(shapes) != 1:
        raise ValueError(f"data must hold signals of one length, got {shapes[:5]}; cut or resample them.")
    bad = [number for number, signal in enumerate(signals) if not np.isfinite(signal).all()]
    if bad:
        raise ValueError(
            f"data have {len(bad)} of {len(signals)} signals with NaN or infinity, the first is row {bad[0]}; fill or "
            "leave them out."
        )
    own, length = config.axis, shapes[0][-1]
    if own is not None and len(own) != length:
        raise ValueError(f"data have signals of {length} points, but the model's axis has {len(own)}; resample them.")
    if own is not None and axis is not None and not np.allclose(own, axis):
        raise ValueError(
            f"the data's axis runs from {axis[0]:g} to {axis[-1]:g}, the model's from {own[0]:g} to {own[-1]:g}; "
            "resample the signals to the model's places."
        )
    return np.stack(signals)


def seen_signal(values: torch.Tensor, model, processor) -> Signal:
    """The signal that the model saw: input_values [C, L] without the standardisation."""
    return Signal(processor.restore(values.detach().cpu()).numpy(), *axis_of(model.config, values.shape[-1]))
