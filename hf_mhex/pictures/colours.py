"""What all pictures share: colours of signed values, and how numbers and control characters are written."""

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


def visible(part: str) -> str:
    """Control characters, which a terminal would obey, as Unicode's pictures of them; line ends and tabs stay."""
    pictures = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
    return part.replace("\r\n", "\n").translate(pictures | dict.fromkeys(range(0x80, 0xA0), 0xFFFD))
