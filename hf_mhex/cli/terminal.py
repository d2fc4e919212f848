"""What the command prints: lines and tables in which a label is shown as it is, and never obeyed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer

from hf_mhex.escaping import visible


def echo(line: str, err: bool = False) -> None:
    """Print a line to stdout, or to stderr."""
    typer.echo(visible(line), err=err)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print rows of cells under their columns' names; what finds no room goes on in the next line, and is never cut."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    cells = [tuple(map(visible, row)) for row in rows]
    table = Table(box=SIMPLE_HEAD, title=title and visible(title))
    for number, name in enumerate(columns):
        longest = max((len(row[number]) for row in cells), default=0)
        table.add_column(
            visible(name),
            overflow="fold",
            no_wrap=number == 0 and longest <= 30,
            min_width=max(map(len, name.split() or [""])),
        )
    for row in cells:
        table.add_row(*row)
    Console(markup=False, emoji=False).print(table)
