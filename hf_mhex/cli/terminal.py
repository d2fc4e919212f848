"""What the command prints: lines and tables in which a label is shown as it is, and never obeyed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer

from hf_mhex.escaping import visible

LONGEST_NAME = 30  # of a row, that is on one line
LONGEST_WORD = 12


def echo(line: str, err: bool = False) -> None:
    """Print a line to stdout, or to stderr."""
    typer.echo(visible(line), err=err)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print rows of cells under their columns' names; what finds no room goes on in the next line, and is never cut.

    Words of up to `LONGEST_WORD` letters, and so numbers, stay whole, where need be in lines wider than the terminal.
    """
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    cells = [tuple(map(visible, row)) for row in rows]
    console = Console(markup=False, emoji=False)
    room = console.width - 2 * len(columns)
    widths, least = [], []
    for number, name in enumerate(map(visible, columns)):
        column = [row[number] for row in cells]
        longest = max(map(cell_len, [name, *column]))
        words = [length for cell in column for length in map(cell_len, cell.split()) if length <= LONGEST_WORD]
        least.append(max([*map(cell_len, name.split()), *words], default=0))
        if number == 0 and longest <= LONGEST_NAME:
            least[0] = longest
        widths.append(max(least[-1], min(longest, room)))
    while sum(widths) > room and widths != least:
        widest = max(range(len(widths)), key=lambda number: (widths[number] > least[number]) * widths[number])
        widths[widest] -= 1
    console.width = max(console.width, sum(widths) + 2 * len(columns))
    table = Table(box=SIMPLE_HEAD, title=title and visible(title), padding=(0, 1, 0, 0), show_edge=False)
    for name, width in zip(columns, widths):
        table.add_column(visible(name), overflow="fold", width=width)
    for row in cells:
        table.add_row(*row)
    console.print("", table, "", sep="\n")
