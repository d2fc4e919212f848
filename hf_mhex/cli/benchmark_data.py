"""What `mhex benchmark explanations` compares on: trained networks, and a recipe's validation and test rows."""

from __future__ import annotations

from pathlib import Path

import torch

from hf_mhex.baselines.networks import Strip
from hf_mhex.benchmarks.explanations.loading import image_part, shuffled, signal_part, text_part
from hf_mhex.benchmarks.explanations.parts import Images
from hf_mhex.benchmarks.explanations.pictures import chosen_methods, page_of_maps, page_of_signal, page_of_words
from hf_mhex.evaluation.problems import check_single_labels
from hf_mhex.explaining.signals import seen_signal
from hf_mhex.families import family_of
from hf_mhex.loading import load
from hf_mhex.processors import max_length, restore_image

MOST = 2000  # rows of a part that are read; mosaics choose the surest of them


def load_networks(model: Path, plain: Path | None, device: torch.device, signals: bool = False):
    """{"mhex": ..., "plain": ...} in eval mode, and the processor.

    The plain twin is what a recipe with model.kind=plain saves. Networks of signals come as `Strip`s. Raises ValueError
    for a twin with other labels, for a model of anything but single labels, and without `signals` for one of signals.
    """
    mhex, processor = load(model)
    if family_of(mhex).kind == "signal" and not signals:
        raise ValueError(f"model {str(model)!r} is for signals; these measures are of images and texts.")
    check_single_labels(mhex)
    networks = {"mhex": mhex}
    if plain is not None:
        from hf_mhex.training.plain import load_plain

        networks["plain"] = load_plain(plain)
        if networks["plain"].config.num_labels != mhex.config.num_labels:
            raise ValueError(f"--plain {str(plain)!r} has other labels than {str(model)!r}; train both by one recipe.")
    for network in networks.values():
        network.to(device)
        if family_of(mhex).kind == "image":
            network.to(memory_format=torch.channels_last)  # faster on a processor
    if family_of(mhex).kind == "signal":
        networks = {name: Strip(network) for name, network in networks.items()}
    return networks, processor


def load_parts(recipe: str, overrides: list[str], model, processor, seed: int):
    """The recipe's validation and test rows, in an order drawn from the seed."""
    from hf_mhex.data.rows import read_data
    from hf_mhex.training.recipe import load_recipe

    found, kind = load_recipe(recipe, overrides), family_of(model).kind
    channels = getattr(model.config, "num_channels", 3)
    data = read_data(found.data, kind, found.model.problem_type, channels)
    parts: list = []
    for rows in (data.validation, data.test):
        chosen = shuffled(len(rows), seed)[:MOST]
        inputs, labels = [rows[row][kind] for row in chosen], [int(rows.labels[row]) for row in chosen]
        if kind == "image":
            parts.append(image_part(inputs, labels, processor, channels))
        elif kind == "signal":
            parts.append(signal_part(inputs, labels, processor))
        else:
            parts.append(text_part(inputs, labels, processor, max_length(model, processor)))
    return parts


def picture_page(networks: dict, rows: list[dict], test, processor, output: Path) -> list[Path]:
    """Maps side by side, one file a network: PNG for images and signals, HTML for texts."""
    paths, images = [], isinstance(test, Images)
    for name, network in networks.items():
        methods = chosen_methods(rows, "images" if images else "texts", name)
        if isinstance(network, Strip):
            seen = seen_signal(test.pixels[0, :, 0], network, processor)
            paths.append(page_of_signal(network, test, methods, seen, output / f"maps-{name}.png"))
        elif images:
            path = output / f"maps-{name}.png"
            paths.append(page_of_maps(network, test, methods, lambda x: restore_image(x, processor), path))
        else:
            few = test.take(range(min(4, len(test))))
            texts = [processor.decode(ids, skip_special_tokens=True) for ids in few.ids]
            paths.append(page_of_words(network, processor, texts, methods, few, output / f"maps-{name}.html"))
    return paths
