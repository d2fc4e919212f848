"""Pictures of the results: a plot of each main measure, and maps of all methods side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from hf_mhex.benchmarks.explanations.images import in_batches
from hf_mhex.benchmarks.explanations.methods import CONTROLS, MHEX, blurred_mhex, methods_for
from hf_mhex.benchmarks.explanations.parts import Images, Texts, logits_of_part, maps_of
from hf_mhex.benchmarks.explanations.report import DIRECTIONS, UP
from hf_mhex.explaining.words import explain_words
from hf_mhex.pictures.maps import overlay
from hf_mhex.pictures.signals import Signal, line_picture
from hf_mhex.pictures.words import words_html
from hf_mhex.writing import whole, write_whole

MAIN = (
    "grid pointing 2x2",
    "grid pointing 3x3",
    "insertion - deletion",
    "insertion - deletion 7x7",
    "ROAD combined",
    "ROAD combined 7x7",
    "comprehensiveness (mask)",
    "sufficiency (mask)",
    "sensitivity-n",
    "random logit",
)
CHANCE = {"grid pointing 2x2": 1 / 4, "grid pointing 3x3": 1 / 9}


def plot_measures(summary: dict, output: Path) -> list[Path]:
    """One PNG a network: the main measures with intervals, the best on top, controls in grey, MHEX in red."""
    paths = []
    for network, methods in summary.items():
        names = [name for name in MAIN if any(name in entry["measures"] for entry in methods.values())]
        figure = Figure(figsize=(4.2 * len(names), 0.26 * len(methods) + 1.2), dpi=96, layout="constrained")
        FigureCanvasAgg(figure)
        for place, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), place + 1)
            found = {method: entry["measures"][name] for method, entry in methods.items() if name in entry["measures"]}
            means = {method: entry["mean"] for method, entry in found.items()}
            order = sorted(means, key=means.__getitem__, reverse=DIRECTIONS[name] != UP)
            for height, method in enumerate(order):
                value = found[method]
                colour = "tab:red" if method.startswith(MHEX) else "tab:gray" if method in CONTROLS else "tab:blue"
                axes.plot([value["low"], value["high"]], [height, height], color=colour)
                axes.plot([value["mean"]], [height], "o", color=colour, markersize=4)
            if name in CHANCE:
                axes.axvline(CHANCE[name], color="black", linewidth=0.8, linestyle=":")
            axes.set_yticks(range(len(order)), order, fontsize=7)
            axes.set_title(f"{name} ({DIRECTIONS[name]} is better)", fontsize=9)
            axes.tick_params(axis="x", labelsize=7)
        paths.append(output / f"measures-{network}.png")
        with whole(paths[-1]) as room:
            figure.savefig(room)
    return paths


def chosen_methods(rows: list[dict], inputs: str, network: str) -> list[tuple]:
    """The measured methods of a network with their settings, as (method, settings)."""
    settings = {row["method"]: row["settings"] for row in rows if row["network"] == network and row["part"] == "test"}
    found = [(method, settings[method.name]) for method in methods_for(inputs, network) if method.name in settings]
    return found + ([(blurred_mhex(settings[MHEX]), {})] if network == "mhex" and MHEX in settings else [])


def page_of_maps(model, part: Images, methods: list[tuple], picture, path: Path, rows: int = 5) -> Path:
    """A PNG: a line for each method, a column for each image under the method's map, on the map's own scale.

    Args:
        picture: uint8 [H, W, 3] of pixel_values [C, H, W].
    """
    few = part.take(torch.arange(min(rows, len(part))))
    target = logits_of_part(model, few).argmax(-1)
    names = [model.config.id2label[label] for label in target.tolist()]
    lines = []
    for method, settings in methods:
        maps = in_batches(partial(method.call, **settings))(model, few.pixels, target)
        shown = zip(few.pixels, maps, names)
        tiles = [overlay(picture(x), m, title=f"{method.name}\n{name}", size=112) for x, m, name in shown]
        lines.append(paste(tiles, down=False))
    with whole(path) as place:
        paste(lines, down=True).quantize(256).save(place)
    return path


def page_of_signal(model, part: Images, methods: list[tuple], seen: Signal, path: Path) -> Path:
    """A PNG: the first signal of a part of strips, once for each method, coloured by its map.

    Args:
        seen: the signal without its standardisation.
    """
    first = part.take([0])
    target = logits_of_part(model, first).argmax(-1)
    maps = {
        method.name: in_batches(partial(method.call, **settings))(model, first.pixels, target)[0, 0].numpy()
        for method, settings in methods
    }
    with whole(path) as place:
        line_picture(seen, maps, model.config.id2label[int(target)]).quantize(256).save(place)
    return path


def paste(pictures: list[Image.Image], down: bool) -> Image.Image:
    """Pictures below or beside one another on white."""
    across = [np.asarray(picture.convert("RGB")) for picture in pictures]
    axis = 1 - int(down)
    longest = max(picture.shape[axis ^ 1] for picture in across)
    padded = []
    for picture in across:
        room = [(0, 0), (0, 0), (0, 0)]
        missing = longest - picture.shape[axis ^ 1]
        room[axis ^ 1] = (0, missing) if down else (missing, 0)  # titles may differ in lines: pictures stand level
        padded.append(np.pad(picture, room, constant_values=255))
    return Image.fromarray(np.concatenate(padded, axis=axis))


def page_of_words(model, tokenizer, texts: list[str], methods: list[tuple], part: Texts, path: Path) -> Path:
    """An HTML page: each text once for each method, words coloured by its map brought to its own scale."""
    target = logits_of_part(model, part).argmax(-1)
    names, entries = model.config.id2label, []
    inputs = part.inputs(range(len(part)))
    maps = {method.name: maps_of(partial(method.call, **s), model, inputs, target) for method, s in methods}
    for row, text in enumerate(texts):
        encoding = tokenizer([text], truncation=True, return_tensors="pt")
        length = len(part.ids[row])
        for name, found in maps.items():
            explained = explain_words([text], encoding, found[row : row + 1, :length])[0]
            heading = f"{name}: {names[int(target[row])]}"
            entries.append((explained, heading, explained.total))
    write_whole(path, words_html(entries, title="Maps side by side"))
    return path
