"""Rows of data: opened, checked, split, and embedded samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """Row number `number` of the source, its `id`, the image or text itself and, where asked for, its target."""

    number: int
    id: str
    value: Any
    target: int | None = None
