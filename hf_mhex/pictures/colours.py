"""What all pictures share: colours of signed values, and how numbers are written."""

from __future__ import annotations

import numpy as np

from hf_mhex.modeling.pipeline_mhex import AGAINST, FOR


def paint(ground: np.ndarray, strength: np.ndarray, alpha: float) -> np.ndarray:
    """A ground [..., 3] in [0, 1] under strengths [...] in [-1, 1]: red above 0, blue below, opaque to |s| * alpha."""
    opacity = alpha * np.abs(strength)[..., None]
    return (1 - opacity) * ground + opacity * np.where(strength[..., None] < 0, AGAINST, FOR)


def to_bytes(colour) -> tuple[int, ...]:
    """The parts of a colour in [0, 1] as whole numbers up to 255."""
    return tuple(round(255 * float(part)) for part in colour)


def signed(value: float) -> str:
    """A number with its sign, to three digits; 0 has none."""
    value = float(value)
    return f"{value:+.3g}" if value else "0"
