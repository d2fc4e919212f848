"""Maps painted over pictures: red speaks for the explained label, blue against it.

Every picture states its scale in numbers. The hue is a value's sign and the opacity its size, so that nothing is
painted where a map says nothing. Figures are drawn without pyplot: no global state, safe from several threads.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from hf_mhex.escaping import visible
from hf_mhex.pictures.colours import paint, signed

if TYPE_CHECKING:  # loaded by what draws: a text in the terminal needs none of it
    from matplotlib.figure import Figure

FLAT = 1e-6  # a map that varies by less than this share of its size is flat

# The layout of figures, in pixels (and pixels per inch, a power of two, so that sizes come out whole).
DPI, MARGIN, LINE, BAR, CHARACTER = 128, 12, 18, 10, 8


def overlay(
    image,
    saliency,
    *,
    title: str | None = None,
    note: str | None = None,
    alpha: float = 0.75,
    size: int = 448,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Paint a map over its image, with the colour scale below it.

    The image turns light grey, so that every hue is the map's. The scale is the map's own range: a map of both signs
    is red above 0, blue below and clear at 0, equal sizes equally strong; one without negative values runs from clear
    at its least to red at its greatest value, one without positive values from blue to clear; a flat map paints
    nothing. Image and map fill the same rectangle whatever their resolutions, so give the image as the network saw it
    (after cropping). The map is not smoothed; only where it has more cells than the picture pixels are they averaged.

    Args:
        image: PIL image (deeper than 8 bits: shown over its own range), or array or tensor [H, W], [H, W, 1] or
            [H, W, 3] of uint8, or of floats in [0, 1].
        saliency: finite map [h, w], array or tensor.
        title: text above the picture.
        note: text below the scale.
        alpha: opacity of the strongest value, in (0, 1].
        size: longer side of the painted image, in pixels.
        limits: least and greatest value of the scale, which several overlays may share; the map's own if None.

    Raises ValueError naming the argument.
    """
    values = _map(saliency, "saliency")
    if limits is not None and not limits[0] <= values.min() <= values.max() <= limits[1]:
        raise ValueError(f"limits must hold the map, {values.min()} to {values.max()}, got {limits}.")
    return _figure(_picture(image), [(title or "", values, note or "")], None, alpha, size, 1, limits)


def side_by_side(
    image,
    saliencies: Sequence,
    *,
    labels: Sequence[str],
    notes: Sequence[str],
    title: str | None = None,
    alpha: float = 0.75,
    size: int = 256,
    columns: int = 4,
) -> Image.Image:
    """Set the maps of several labels beside the image, each with its label above and its note below.

    All maps share one scale, so that the stronger colour is the larger value.

    Args:
        image: as in `overlay`; shown in its own colours first.
        saliencies: one map [h, w] for each label.
        labels, notes: text above and below each map.
        title, alpha, size, columns: as in `block_strip`.

    Raises ValueError naming the argument.
    """
    maps = [_map(values, f"saliencies[{place}]") for place, values in enumerate(saliencies)]
    if not maps or not len(maps) == len(labels) == len(notes):
        counts = f"{len(maps)}, {len(labels)} and {len(notes)}"
        raise ValueError(f"saliencies, labels and notes must be as many, at least 1; got {counts}.")
    limits = min(values.min() for values in maps), max(values.max() for values in maps)
    cells = [("image", None, ""), *zip(labels, maps, notes)]
    return _figure(_picture(image), cells, title, alpha, size, columns, limits)


def block_strip(
    image,
    block_saliency: Sequence,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    alpha: float = 0.75,
    size: int = 192,
    columns: int = 5,
) -> Image.Image:
    """Set the map of every block beside the image, each with its label and its sum.

    Of raw contribution maps that sum is the block's logit (minus the reference), and the sums compare the blocks. The
    colours do not: each map has its own scale, since a block with more positions spreads its logit over more of them,
    and early blocks would fade out on a common scale. Cells are drawn as they are, so a coarse map looks coarse.

    Args:
        image: as in `overlay`; shown in its own colours first.
        block_saliency: one map [h, w] for each block, of one row of the batch.
        labels: caption of each map, "block 0", "block 1", ... if None.
        title: text above the strip.
        alpha, size: as in `overlay`, for each picture.
        columns: pictures in a line, the image included.

    Raises ValueError naming the argument.
    """
    maps = [_map(values, f"block_saliency[{block}]") for block, values in enumerate(block_saliency)]
    labels = [f"block {block}" for block in range(len(maps))] if labels is None else list(labels)
    if not maps or len(labels) != len(maps):
        raise ValueError(f"block_saliency and labels must be as many, at least 1; got {len(maps)} and {len(labels)}.")
    captions = [f"{label}\nsum {signed(values.sum())}" for label, values in zip(labels, maps)]
    cells = [("image", None, ""), *((caption, values, "") for caption, values in zip(captions, maps))]
    return _figure(_picture(image), cells, title, alpha, size, columns)


def _array(values) -> np.ndarray:
    """An array of whatever holds numbers; a tensor in half precision, which numpy may not know, becomes float64."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _map(values, name: str) -> np.ndarray:
    """A finite map [h, w] in float64, or ValueError."""
    values = _array(values).astype(np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name} must be one map [h, w], got shape {list(values.shape)}; pick one row and one label.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}; look for NaN in the inputs.")
    return values


def _picture(image) -> np.ndarray:
    """The image as floats [H, W, 3] in [0, 1], or ValueError."""
    if isinstance(image, Image.Image) and image.mode[0] in "IF":  # deeper than 8 bits, often medical
        deep = np.asarray(image, dtype=np.float64)
        pixels = (deep - deep.min()) / (np.ptp(deep) or 1.0)
    elif isinstance(image, Image.Image):
        pixels = np.asarray(image.convert("RGB"))
    else:
        pixels = _array(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        cure = "channels come last and are 1 or 3; permute a tensor [C, H, W] by (1, 2, 0)"
        raise ValueError(f"image must be [H, W], [H, W, 1] or [H, W, 3], got {list(pixels.shape)}; {cure}.")
    if pixels.dtype == np.uint8:
        pixels = pixels / 255
    if not (np.issubdtype(pixels.dtype, np.floating) and pixels.min() >= -1e-3 and pixels.max() <= 1 + 1e-3):
        found = f"{pixels.dtype} from {pixels.min()} to {pixels.max()}"
        raise ValueError(f"image must be uint8, or floats in [0, 1], got {found}; undo the network's normalisation.")
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.float64)


def _strength(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values of a map with range [low, high] as strengths in [-1, 1]: the sign is the hue, the size the opacity."""
    largest = max(-low, high)
    if high - low <= FLAT * largest:
        return np.zeros_like(values)
    if low < 0 < high:
        return values / largest
    return (values - (low if low >= 0 else high)) / (high - low)


def _resize(pixels: np.ndarray, panel: tuple[int, int], filter: Image.Resampling) -> np.ndarray:
    """Bring floats [h, w] or [h, w, 3] to the (width, height) of `panel`."""
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(np.atleast_3d(pixels), -1, 0)]
    return np.stack([np.asarray(channel.resize(panel, filter)) for channel in channels], axis=-1)


def _figure(
    pixels, cells, title, alpha: float, size: int, columns: int, limits: tuple[float, float] | None = None
) -> Image.Image:
    """Cells of (caption, map, note) in lines of `columns` below a title; one without a map shows the image itself.

    Each map has its own range for its scale, or all have the `limits`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must lie in (0, 1], got {alpha}.")
    if not 32 <= size <= 4096:
        raise ValueError(f"size must be 32 to 4096 pixels, got {size}.")
    panel = tuple(max(1, round(side * size / max(pixels.shape[:2]))) for side in pixels.shape[1::-1])
    pixels = _resize(pixels, panel, Image.Resampling.BICUBIC).clip(0, 1)
    grey = 0.25 + 0.75 * (pixels @ np.full((3, 3), [[0.299], [0.587], [0.114]]))  # lighter: colour shows on black too
    columns, wide = min(columns, len(cells)), max(panel[0], 160)
    width = MARGIN + columns * (wide + MARGIN)
    heading, captions = _lines(title, width - 2 * MARGIN), [_lines(caption, wide) for caption, _, _ in cells]
    notes = [_lines(note, wide) for *_, note in cells]
    above, top = LINE * max(map(len, captions)), MARGIN + (LINE * len(heading) + MARGIN // 2 if heading else 0)
    below = LINE * max(map(len, notes))
    tall = above + panel[1] + 2 * BAR + LINE + MARGIN + below
    height = top + -(-len(cells) // columns) * tall
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    _write(figure, MARGIN, MARGIN, heading)
    for index, (caption, (_, values, _), note) in enumerate(zip(captions, cells, notes)):
        left, upper = MARGIN + index % columns * (wide + MARGIN), top + index // columns * tall + above
        _write(figure, left, upper - LINE * len(caption), caption)
        if values is None:
            _place(figure, left, upper, pixels)
            continue
        low, high = limits or (values.min(), values.max())
        strength = _resize(_strength(values, low, high), panel, Image.Resampling.BOX)[..., 0]
        _place(figure, left, upper, paint(grey, strength, alpha))
        _draw_scale(figure, left, upper + panel[1] + BAR, wide, low, high, alpha)
        _write(figure, left, upper + panel[1] + 2 * BAR + LINE + 6, note)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw_scale(figure: Figure, left: int, upper: int, wide: int, low: float, high: float, alpha: float):
    """A bar that runs over the map's own range, framed, with both ends and 0 in numbers."""
    strength = _strength(np.linspace(low, high, wide), low, high)
    bar = np.repeat(paint(np.ones((wide, 3)), strength, alpha)[None], BAR, axis=0)
    bar[[0, -1]] = bar[:, [0, -1]] = 0.6
    _place(figure, left, upper, bar)
    numbers = upper + BAR + 3
    if not strength.any():
        _write(figure, left, numbers, [f"{signed(low)} everywhere"])
        return
    _write(figure, left, numbers, [signed(low)])
    _write(figure, left + wide, numbers, [signed(high)], align="right")
    zero = wide * low / (low - high)
    taken = [(len(signed(value)) + 1) * CHARACTER for value in (low, high)]
    if taken[0] < zero < wide - taken[1]:
        _write(figure, left + zero, numbers, ["0"], align="center")


def _place(figure: Figure, left: int, upper: int, pixels: np.ndarray):
    """Set pixels [h, w, 3] one to one, the upper left corner at (left, upper) of the figure."""
    below = round(figure.bbox.height) - upper - len(pixels)
    figure.figimage(np.rint(pixels * 255).astype(np.uint8), left, below, origin="upper")


def _write(figure: Figure, x: float, y: float, lines: list[str], align: str = "left"):
    width, height = figure.bbox.size
    for row, line in enumerate(lines):
        place = (x / width, 1 - (y + row * LINE) / height)
        figure.text(*place, line, ha=align, va="top", fontsize=7.2, color="black", parse_math=False)


def _lines(text: str | None, width: int) -> list[str]:
    """Lines that fit a width in pixels, with control characters made visible."""
    parts = [visible(part) for part in (text or "").split("\n")]
    return [line for part in parts for line in textwrap.wrap(part, width // CHARACTER)]
