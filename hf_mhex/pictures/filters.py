"""Filters of a block: each one's map alone on one image, and the class's probability as filters go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from hf_mhex.escaping import visible
from hf_mhex.evaluation.filters import FilterReport, maps_of
from hf_mhex.evaluation.ordering import unit_range
from hf_mhex.evaluation.pieces import block_features
from hf_mhex.pictures.maps import overlay
from hf_mhex.processors import restore_image
from hf_mhex.writing import whole

TILE, COLUMNS = 96, 16  # pixels of a filter's side; filters in a line


def write_maps(report: FilterReport, model, processor, batches: list[dict], path: Path) -> Path:
    """Write a PNG of every filter's map alone on the first row of the class, strongest filters first.

    Each is brought to [0, 1] by itself; above it stand the filter's number and its share of the block's part.
    """
    batch = next(batch for batch in batches if (batch["labels"] == report.label).any())
    row = int((batch["labels"] == report.label).nonzero()[0, 0])
    one = {name: value[row : row + 1] for name, value in batch.items()}
    maps = unit_range(maps_of(block_features(model, one, report.block))[0])
    image = restore_image(one["pixel_values"][0], processor)
    ground = image if image.shape[-1] in (1, 3) else image.mean(-1).round().astype(np.uint8)
    tiles = [
        overlay(ground, maps[found.channel], title=f"{found.channel}: {found.share:+.1%}", size=TILE)
        for found in report.filters
    ]
    width, height = tiles[0].size
    sheet = Image.new("RGB", (width * min(COLUMNS, len(tiles)), height * -(-len(tiles) // COLUMNS)), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (width * (number % COLUMNS), height * (number // COLUMNS)))
    with whole(path) as place:
        sheet.quantize(256).save(place)
    return path


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
    with whole(path) as place:
        figure.savefig(place, dpi=100)
    return path
