"""What does `mhex benchmark explanations` compare on? Trained networks, and a recipe's validation and test rows."""

from __future__ import annotations

from pathlib import Path

import torch

from hf_mhex.benchmarks.explanations.loading import image_part, shuffled, text_part
from hf_mhex.benchmarks.explanations.parts import Images
from hf_mhex.benchmarks.explanations.pictures import chosen_methods, page_of_maps, page_of_words
from hf_mhex.loading import load
from hf_mhex.processors import restore_image

MOST = 2000  # rows of a part that are read; mosaics choose the surest of them


def load_networks(model: Path, plain: Path | None):
    """{"mhex": ..., "plain": ...} in eval mode, and the processor.

    The plain twin is what a recipe with model.kind=plain saves. Raises ValueError for one with other labels.
    """
    mhex, processor = load(model)
    networks = {"mhex": mhex}
    if plain is not None:
        from hf_mhex.training.plain import PlainBert, PlainResNet

        kind = PlainResNet if mhex.main_input_name == "pixel_values" else PlainBert
        networks["plain"] = kind.from_pretrained(plain).eval()
        if networks["plain"].config.num_labels != mhex.config.num_labels:
            raise ValueError(f"--plain {str(plain)!r} has other labels than {str(model)!r}; train both by one recipe.")
    if mhex.main_input_name == "pixel_values":
        for network in networks.values():  # a third faster on a processor
            network.to(memory_format=torch.channels_last)
    return networks, processor


def load_parts(recipe: str, overrides: list[str], model, processor, seed: int):
    """The recipe's validation and test rows, in an order drawn from the seed."""
    from hf_mhex.data.rows import read_data
    from hf_mhex.training.recipe import load_recipe

    found = load_recipe(recipe, overrides)
    data = read_data(found.data, found.model.family, found.model.problem_type)
    parts = []
    for rows in (data.validation, data.test):
        chosen = shuffled(len(rows), seed)[:MOST]
        labels = [int(rows.labels[row]) for row in chosen]
        if found.model.family == "resnet":
            pictures = [rows[row]["image"] for row in chosen]
            parts.append(image_part(pictures, labels, processor, model.config.num_channels))
        else:
            most = min(processor.model_max_length, model.config.max_position_embeddings)
            parts.append(text_part([rows[row]["text"] for row in chosen], labels, processor, most))
    return parts


def picture_page(networks: dict, rows: list[dict], test, processor, output: Path) -> list[Path]:
    """Maps side by side, one file a network: PNG for images, HTML for texts."""
    paths = []
    for name, network in networks.items():
        family = "images" if isinstance(test, Images) else "texts"
        methods = chosen_methods(rows, family, name)
        if family == "images":
            path = output / f"maps-{name}.png"
            paths.append(page_of_maps(network, test, methods, lambda x: restore_image(x, processor), path))
        else:
            few = test.take(range(min(4, len(test))))
            texts = [processor.decode(ids, skip_special_tokens=True) for ids in few.ids]
            paths.append(page_of_words(network, processor, texts, methods, few, output / f"maps-{name}.html"))
    return paths
