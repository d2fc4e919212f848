"""Rows of data: opened, checked, split, and embedded samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """Row number `number` of the source, its `id`, the image or text itself and, where asked for, its target.

    The target is the name or the number of a label of the model, as the source has it; None where it is missing.
    """

    number: int
    id: str
    value: Any
    target: Any = None
