"""Progressive ablation of a block's filters: probability of the class as filters go, in each order."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hf_mhex.evaluation.filters import FilterReport
from hf_mhex.pictures.colours import visible


def write_ablation(report: FilterReport, name: str, path: Path) -> Path:
    """Write the curves of a report as a PNG; `name` is the class's."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (order, points) in enumerate(report.curves.items()):
        counts, sure, _ = zip(*points)
        style = "-" if order.startswith("strongest") else "--"
        axes.plot(counts, sure, style, color=f"C{number // 2}", marker=".", label=order)
    axes.set_xlabel(f"filters of block {report.block} removed")
    axes.set_ylabel(f"mean probability of {visible(name)}", parse_math=False)
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)
    return path
