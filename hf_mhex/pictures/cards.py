"""Which picture does a model's card show? Predictions of the model itself on a few rows, with their saliency."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from hf_mhex.explaining.explanation import explain_image, fitting_contrast
from hf_mhex.loading import load
from hf_mhex.modeling.pipeline_mhex import AGAINST, FOR, TextSaliencyPipeline

WIDTH, MARGIN, SIZE = 860, 16, 18  # pixels of the picture of words, and its letters
OPACITY = 0.55  # of the strongest word


def saliency_picture(folder: str | PathLike, items: Sequence, **options) -> Image.Image:
    """The model's answers to a few images (side by side) or texts (one below the other), with their saliency.

    Args:
        folder: a saved MHEX model with its image processor or tokenizer.
        items: PIL images or texts.
        options: of `generate_saliency`; the contrast is `fitting_contrast`'s unless it is named here.
    """
    model, processor = load(folder)
    options = {"contrast": fitting_contrast(model.config)} | options
    if model.main_input_name == "pixel_values":
        overlays = [np.asarray(explain_image(model, processor, item, **options).picture) for item in items]
        tall = max(len(overlay) for overlay in overlays)
        padded = [np.pad(o, ((0, tall - len(o)), (0, 0), (0, 0)), constant_values=255) for o in overlays]
        return Image.fromarray(np.hstack(padded))
    pipe = TextSaliencyPipeline(model, tokenizer=processor, device="cpu")
    return words_picture(items, [answers[0] for answers in pipe(list(items), **options)])


def words_picture(texts: Sequence[str], answers: Sequence[dict]) -> Image.Image:
    """Texts with their words coloured, each below its label; `answers` are those of the text-saliency pipeline.

    Each text has its own scale, as large as its strongest word and centred at 0, which stands in its heading.
    """
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), SIZE)
    canvas = Image.new("RGB", (WIDTH, 400 * len(texts)), "white")
    draw = ImageDraw.Draw(canvas)
    y = MARGIN
    for text, answer in zip(texts, answers):
        largest = max((abs(word["score"]) for word in answer["words"]), default=0.0)
        heading = (
            f"{answer['label']} ({answer['score']:.2f}), logit {answer['logit']:+.2f}, strongest word {largest:.2g}"
        )
        draw.text((MARGIN, y), heading, fill="#666666", font=font)
        x, y = MARGIN, y + 2 * SIZE
        position = 0
        for word in answer["words"]:
            x += draw.textlength(text[position : word["start"]].replace("\n", " "), font=font)
            position, wide = word["end"], draw.textlength(word["text"], font=font)
            if x + wide > WIDTH - MARGIN and x > MARGIN:
                x, y = MARGIN, y + 2 * SIZE
            draw.rectangle((x, y - 3, x + wide, y + SIZE + 5), fill=_ground(word["score"], largest))
            draw.text((x, y), word["text"], fill="#1a1a1a", font=font)
            x += wide
        y += 3 * SIZE
    return canvas.crop((0, 0, WIDTH, min(y, canvas.height)))


def _ground(score: float, largest: float) -> tuple[int, int, int]:
    """The colour behind a word: white at 0, red for the label and blue against it."""
    strength = OPACITY * abs(score) / largest if largest else 0.0
    return tuple(round(255 * (1 - strength + strength * part)) for part in (FOR if score > 0 else AGAINST))
