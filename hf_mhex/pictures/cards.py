"""The picture of a model's card: its own answers to a few inputs, with their saliency."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
from PIL import Image

from hf_mhex.explaining.explanation import explain_items, lead_contrast, read_input
from hf_mhex.families import family_of
from hf_mhex.loading import load


def saliency_picture(folder: str | PathLike, items: Sequence, device=None, **options) -> Image.Image:
    """The model's answers to a few images (side by side), or signals or texts (one below the other), with saliency.

    Args:
        folder: a saved MHEX model with its image processor or tokenizer.
        items: images, as `read_image` takes them, or texts. device: where the model answers; the processor if None.
        options: of `hf_mhex.explain`; labels are explained by their lead over the others (`lead_contrast`).
    """
    model, processor = load(folder)
    model.to(device or model.device)
    options = {"contrast": lead_contrast(model.config)} | options
    read = [read_input(model, processor, item) for item in items]
    pictures = [np.asarray(explain_items(model, processor, item, options)[0].picture) for item in read]
    if family_of(model).input.name != "image":
        return Image.fromarray(np.vstack(pictures))
    tall = max(map(len, pictures))
    padded = [np.pad(p, ((0, tall - len(p)), (0, 0), (0, 0)), constant_values=255) for p in pictures]
    return Image.fromarray(np.hstack(padded))
