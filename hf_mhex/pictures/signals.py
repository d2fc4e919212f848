"""Pictures of signals: a line coloured by what each point contributes, and bars of zones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from hf_mhex.escaping import visible

COLOURS = "RdBu_r"  # red for the label, blue against it


@dataclass(frozen=True, eq=False)
class Signal:
    """A signal as the model saw it, without the standardisation.

    Args:
        values: [C, L]. axis: the points' places [L]. label: of the axis, "wavenumber (1/cm)".
    """

    values: np.ndarray
    axis: np.ndarray
    label: str = "point"


def axis_of(config, length: int) -> tuple[np.ndarray, str]:
    """The places of a model's points [L] and what its axis is called; numbers from 0 where the config has none."""
    axis = np.arange(length, dtype=float) if config.axis is None else np.asarray(config.axis, dtype=float)
    name = config.axis_name or "point"
    return axis, f"{name} ({config.axis_unit})" if config.axis_unit else name


def line_picture(
    signal: Signal, maps: dict[str, np.ndarray], title: str = "", note: str = "", zones=None
) -> Image.Image:
    """The signal's channels as lines coloured by maps [L], one panel a map, each with the scale beside it.

    Args:
        maps: by the panel's name; a shorter map (a block's) is drawn over the points that it stands for.
        zones: `hf_mhex.explaining.zones.Zones` whose borders are drawn, or None.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6 * len(maps) + 0.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for panel, (name, saliency) in zip(figure.subplots(len(maps), squeeze=False)[:, 0], maps.items()):
        places = (np.arange(len(signal.axis)) * len(saliency) // len(signal.axis)).clip(max=len(saliency) - 1)
        shown = np.asarray(saliency, dtype=float)[places]
        size = np.abs(shown).max() or 1.0
        norm = TwoSlopeNorm(0.0, -size, size)
        for channel in signal.values:
            panel.plot(signal.axis, channel, color="0.8", linewidth=3.2, zorder=1)
            points = np.column_stack([signal.axis, channel])
            pieces = np.stack([points[:-1], points[1:]], axis=1)
            line = LineCollection(list(pieces), cmap=COLOURS, norm=norm, linewidth=2.2, zorder=2)
            line.set_array((shown[:-1] + shown[1:]) / 2)
            panel.add_collection(line)
        for zone in zones or ():
            panel.axvspan(zone.start, zone.stop, facecolor="none", edgecolor="0.6", linewidth=0.6, zorder=0)
            panel.annotate(
                visible(zone.name), ((zone.start + zone.stop) / 2, 1), xycoords=("data", "axes fraction"),
                ha="center", va="bottom", fontsize=6, annotation_clip=True, parse_math=False,
            )  # fmt: skip
        panel.set_xlim(signal.axis[0], signal.axis[-1])
        panel.set_title(visible(name), fontsize=9, pad=14 if zones else 6, parse_math=False)
        flat = not shown.any()
        said = "contribution a point" + ", 0 everywhere" * flat
        figure.colorbar(line, ax=panel, pad=0.01, label=said, ticks=[0] if flat else None)
    panel.set_xlabel(visible(f"{signal.label}\n{note}" if note else signal.label), parse_math=False)
    figure.suptitle(visible(title), fontsize=11, parse_math=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
