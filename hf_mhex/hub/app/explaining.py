"""What the page shows of one input: scores, the map over it, the best labels side by side, and the blocks' own maps."""

from __future__ import annotations

import html

import torch

from hf_mhex.data.images import read_image
from hf_mhex.escaping import escaped, escaped_markdown
from hf_mhex.explaining.display import Display
from hf_mhex.explaining.explanation import explain_items, picture_tag, read_input
from hf_mhex.modeling.pipeline_mhex import scores_of
from hf_mhex.pictures.maps import overlay
from hf_mhex.pictures.words import words_html

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
BESIDE = 3  # labels side by side


def explain_input(model, processor, value, target: str, contrast: str, blocks: list[int], rollout=False) -> Display:
    """The explanation of the label to explain, then those of the best others, as the page's choices want them.

    Raises ValueError, to be shown, where no block is chosen, and what `hf_mhex.explain` raises for the value.
    """
    if not blocks:
        raise ValueError("Choose at least one block.")
    names = {name: index for index, name in model.config.id2label.items()}
    options = {
        "target": None if target == PREDICTED else names[target],
        "blocks": None if len(blocks) == model.num_blocks else sorted(blocks),
        "contrast": None if contrast == NO_CONTRAST else contrast,
        "rollout": rollout,
    }
    item = read_input(model, processor, value)
    [first] = explain_items(model, processor, item, options)
    others = [label for label in first.ranking if label != first.target][: BESIDE - 1]
    return Display([first, *(explain_items(model, processor, item, options | {"target": o})[0] for o in others)])


def scores(model, display: Display) -> dict[str, float]:
    """Every label's score."""
    found = scores_of(torch.from_numpy(display.first.logits), model.config)
    return {model.config.id2label[index]: score for index, score in enumerate(found.tolist())}


def sum_line(display: Display) -> str:
    """The explained label, and the map's sum beside what it explains, in words."""
    first = display.first
    label, total, contrast = (first.record[name] for name in ("label", "sum", "contrast"))
    what = "the explained logit" if contrast is None else f"the logit's lead over {OVER[contrast]}"
    return f"Explained: **{escaped_markdown(label)}**. The map sums to {total:+.4f}; {what} is {first.explained:+.4f}."


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
    """Scores, sum line, overlay, labels side by side and strip of blocks for an image file; ValueError, to be shown,
    where it is none.
    """
    if not path:
        raise ValueError("Pick, paste or upload an image first.")
    image = open_image(path, model.config.num_channels)
    display = explain_input(model, processor, image, target, contrast, blocks, rollout)
    first = display.first
    painted = overlay(first.seen, first.saliency)
    return scores(model, display), sum_line(display), painted, labels_beside(display), first.block_picture


def labels_beside(display: Display) -> str:
    """The labels' maps over the image as figures of HTML, on one scale; narrow pages set them one below the other."""
    maps = [found.saliency for found in display.explanations]
    limits = min(float(values.min()) for values in maps), max(float(values.max()) for values in maps)
    figures = []
    for found in display.explanations:
        painted = overlay(found.seen, found.saliency, limits=limits, size=320)
        said = f"<b>{escaped(found.title)}</b><br>{escaped(found.sentence)}"
        alternative = picture_tag(painted, f"map for {found.title}")
        figures.append(f"<figure>{alternative}<figcaption>{said}</figcaption></figure>")
    return f'<div class="mhex-labels">{"".join(figures)}</div>'


def explain_sentence(model, tokenizer, text: str, target: str, contrast: str, blocks: list[int], rollout: bool = False):
    """Scores, sum line, and as frames of escaped HTML the coloured words, the best labels', and those of each block."""
    if not text or not text.strip():
        raise ValueError("Type a text first.")
    display = explain_input(model, tokenizer, text, target, contrast, blocks, rollout)
    first = display.first
    entries = [(found.seen, found.title, found.explained, found.sentence) for found in display.explanations]
    pages = [[(first.seen, first.label, first.explained)], entries, first.block_entries]
    framed = [frame(words_html(page, title=None), 13 * len(page) + 1) for page in pages]
    return scores(model, display), sum_line(display), *framed


def frame(page: str, height: int) -> str:
    """A page of its own inside the app, where it can neither run scripts nor change the styles around it."""
    style = f"width: 100%; height: {height}rem; border: 0"
    return f'<iframe sandbox srcdoc="{html.escape(page)}" style="{style}" title="coloured words"></iframe>'
