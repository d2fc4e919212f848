"""K x K fields of a block's pieces, side by side: rows are true labels, columns the labels that a piece speaks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hf_mhex.escaping import visible
from hf_mhex.evaluation.heads import PieceReport, SingleHeads
from hf_mhex.pictures.colours import paint
from hf_mhex.writing import whole

SIDE, COLUMNS, NAMED = 2.1, 4, 24  # inches of a panel; panels in a line; labels up to which their names are written


def write_fields(report: SingleHeads, names: dict[int, str], folder: Path) -> list[Path]:
    """One PNG `heads-BLOCK.png` for each block: a panel for each piece, red for, blue against, its groups framed.

    Labels stand in the order of the piece's groups, those that it does not speak for last. Returns the paths.
    """
    paths = []
    for block in sorted({found.piece.block for found in report.pieces}):
        found = [piece for piece in report.pieces if piece.piece.block == block]
        paths.append(folder / f"heads-{block}.png")
        with whole(paths[-1]) as place:
            field_sheet(found, names, f"Block {block}: fields over their largest value").savefig(place, dpi=100)
    return paths


def field_sheet(reports: Sequence[PieceReport], names: dict[int, str], title: str) -> Figure:
    """A figure with a panel for each piece."""
    lines = -(-len(reports) // COLUMNS)
    figure = Figure(figsize=(SIDE * COLUMNS * 1.35, (SIDE * 1.35) * lines + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    for number, report in enumerate(reports):
        axes = figure.add_subplot(lines, COLUMNS, number + 1)
        order = [label for group in report.groups for label in group]
        order += [label for label in range(len(report.scaled)) if label not in order]
        values = report.scaled[order][:, order].numpy()
        axes.imshow(paint(np.ones((*values.shape, 3)), values.clip(-1, 1), 1.0), interpolation="nearest")
        first = 0
        for group in report.groups:
            corner, side = (first - 0.5, first - 0.5), len(group)
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="black", linewidth=1.2))
            first += len(group)
        axes.set_title(f"{report.piece}: noise {report.noise}", fontsize=8)
        shown = [visible(names[label]) for label in order] if len(order) <= NAMED else []
        axes.set_xticks(range(len(shown)), shown, rotation=90, fontsize=5, parse_math=False)
        axes.set_yticks(range(len(shown)), shown, fontsize=5, parse_math=False)
    return figure
