"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hf_mhex.baselines import library


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text under their columns, as tabulate writes them, without padding; RuntimeError without it."""
    write = library("tabulate").tabulate
    return write(list(rows), columns, tablefmt="github", stralign=None, disable_numparse=True)
