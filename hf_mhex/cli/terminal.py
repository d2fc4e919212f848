"""What the command prints: lines and tables in which a label is shown as it is, and never obeyed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer

from hf_mhex.escaping import visible


def echo(line: str, err: bool = False) -> None:
    """Print a line to stdout, or to stderr."""
    typer.echo(visible(line), err=err)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print rows of cells under their columns' names."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*map(visible, columns), title=title and visible(title))
    for row in rows:
        table.add_row(*map(visible, row))
    Console(markup=False, emoji=False).print(table)
