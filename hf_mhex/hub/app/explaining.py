"""What the page shows of one image or one text: prediction, overlay or coloured words, and the blocks' own maps."""

from __future__ import annotations

import html

from hf_mhex.data.images import read_image, to_pixel_values
from hf_mhex.escaping import escaped
from hf_mhex.explaining.words import explain_words
from hf_mhex.modeling.pipeline_mhex import scores_of
from hf_mhex.pictures.maps import block_strip, overlay
from hf_mhex.pictures.words import words_html
from hf_mhex.processors import max_length, restore_image

PREDICTED, NO_CONTRAST = "the predicted one", "nothing"
CONTRASTS = [  # what the page says, and what it means
    ("nothing", NO_CONTRAST),
    ("the runner-up", "runner_up"),
    ("the others alike", "mean"),
    ("the others by score", "softmax"),
]
OVER = {
    "runner_up": "the runner-up",
    "mean": "the mean of the others",
    "softmax": "the others, weighed by their scores,",
}


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
    """The explained label, and the map's sum beside what it explains, in words."""
    label = escaped(model.config.id2label[int(answer.target[0])])
    total, explained = float(answer.saliency[0].double().sum()), float(answer.explained[0])
    what = "the explained logit" if contrast == NO_CONTRAST else f"the logit's lead over {OVER[contrast]}"
    return f"Explained: **{label}**. The map sums to {total:+.4f}; {what} is {explained:+.4f}."


def readable(path: str) -> str:
    """The path of an image file as it came; ValueError, to be shown, where it is none."""
    open_image(path)
    return path


def open_image(path: str, num_channels: int | None = None):
    """An image file as `read_image` gives it; ValueError, to be shown and without the path, where it is none."""
    try:
        return read_image(path, num_channels)
    except (ValueError, OSError) as error:
        said = str(error)
        raise ValueError(said.replace(path, "This file") if path in said else "This file is not there.") from error


def explain_picture(
    model, processor, path: str | None, target: str, contrast: str, blocks: list[int], rollout: bool = False
):
    """Scores, sum line, overlay and strip of blocks for an image file; ValueError, to be shown, where it is none."""
    if not path:
        raise ValueError("Pick or upload an image first.")
    pixel_values = to_pixel_values(open_image(path, model.config.num_channels), processor)
    options = options_of(model, target, contrast, blocks)
    answer = model.generate_saliency(pixel_values=pixel_values[None], **options, rollout=rollout)
    pixels = restore_image(pixel_values, processor)
    if pixels.shape[-1] not in (1, 3):
        pixels = pixels.mean(-1).round().astype(pixels.dtype)
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
    encoding = tokenizer(text, truncation=True, max_length=max_length(model, tokenizer), return_tensors="pt")
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
