"""What does the page show of one image or one text? Prediction, overlay or coloured words, and the blocks' own maps."""

from __future__ import annotations

import html

from PIL import Image, UnidentifiedImageError

from hf_mhex.explaining.words import explain_words
from hf_mhex.modeling.pipeline_mhex import scores_of
from hf_mhex.pictures.maps import block_strip, overlay, words_html
from hf_mhex.processors import restore_image

PREDICTED, NO_CONTRAST = "the predicted one", "nothing"
CONTRASTS = [  # what the page says, and what it means
    ("nothing", NO_CONTRAST),
    ("the runner-up", "runner_up"),
    ("the others alike", "mean"),
    ("the others by score", "softmax"),
]


def options_of(model, target: str, contrast: str, blocks: list[int]) -> dict:
    """Arguments of `generate_saliency` for what is chosen on the page; ValueError where no block is."""
    if not blocks:
        raise ValueError("Choose at least one block.")
    names = {name: index for index, name in model.config.id2label.items()}
    return {
        "target": None if target == PREDICTED else names[target],
        "blocks": None if len(blocks) == model.num_blocks else sorted(blocks),
        "contrast": None if contrast == NO_CONTRAST else contrast,
    }


def scores(model, logits) -> dict[str, float]:
    """Every label's score."""
    return {model.config.id2label[index]: score for index, score in enumerate(scores_of(logits, model.config).tolist())}


def sum_line(model, answer, contrast: str) -> str:
    """The explained label, and the map's sum beside what it explains."""
    label = html.escape(model.config.id2label[int(answer.target[0])])
    total, explained = float(answer.saliency[0].double().sum()), float(answer.explained[0])
    what = "the explained logit" if contrast == NO_CONTRAST else "the logit's lead"
    return f"Explained: **{label}**. The map sums to {total:+.4f}; {what} is {explained:+.4f}."


def readable(path: str) -> str:
    """The path of an image file as it came; ValueError, to be shown, where it is none."""
    open_image(path)
    return path


def open_image(path: str) -> Image.Image:
    """An image file in memory; ValueError, to be shown, where it is none."""
    try:
        image = Image.open(path)
        image.load()
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError("This file is no image that can be read.") from error
    return image


def explain_picture(model, processor, path: str | None, target: str, contrast: str, blocks: list[int]):
    """Scores, sum line, overlay and strip of blocks for an image file; ValueError, to be shown, where it is none."""
    if not path:
        raise ValueError("Pick or upload an image first.")
    image = open_image(path)
    inputs = processor(image.convert("L" if model.config.num_channels == 1 else "RGB"), return_tensors="pt")
    answer = model.generate_saliency(**inputs, **options_of(model, target, contrast, blocks))
    pixels = restore_image(inputs["pixel_values"][0], processor)
    maps = [found[0] for found in answer.block_saliency]
    names = [f"block {block}" for block in sorted(blocks)]
    strip = block_strip(pixels, maps, labels=names, columns=7, size=160)
    return (
        scores(model, answer.logits[0]),
        sum_line(model, answer, contrast),
        overlay(pixels, answer.saliency[0]),
        strip,
    )


def explain_sentence(model, tokenizer, text: str, target: str, contrast: str, blocks: list[int], rollout: bool = False):
    """Scores, sum line, the coloured words and those of each block, both as frames of escaped HTML."""
    if not text or not text.strip():
        raise ValueError("Type a text first.")
    longest = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    encoding = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
    answer = model.generate_saliency(**encoding, **options_of(model, target, contrast, blocks), rollout=rollout)
    label = model.config.id2label[int(answer.target[0])]
    [words] = explain_words(text, encoding, answer.saliency)
    entries = []
    for block, found in zip(sorted(blocks), answer.block_saliency):
        [by_block] = explain_words(text, encoding, found)
        entries.append((by_block, f"block {block}", by_block.total))
    whole = frame(words_html([(words, label, float(answer.explained[0]))], title=None), 14)
    blocks_apart = frame(words_html(entries, title=None), 12 * len(entries))
    return scores(model, answer.logits[0]), sum_line(model, answer, contrast), whole, blocks_apart


def frame(page: str, height: int) -> str:
    """A page of its own inside the app, where it can neither run scripts nor change the styles around it."""
    style = f"width: 100%; height: {height}rem; border: 0"
    return f'<iframe sandbox srcdoc="{html.escape(page)}" style="{style}" title="coloured words"></iframe>'
