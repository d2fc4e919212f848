"""What the page shows of one input: scores, the map over it, the best labels side by side, and the blocks' own maps."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hf_mhex.data.images import read_image
from hf_mhex.data.signals import read_signal
from hf_mhex.escaping import escaped, escaped_markdown
from hf_mhex.evaluation.part_removal import PASSES
from hf_mhex.explaining.display import Display
from hf_mhex.explaining.explanation import Explanation, explain_items, picture_tag, read_input
from hf_mhex.families import family_of
from hf_mhex.hub.app.parts import CHOOSE_ALL, Parts, parts_html, parts_of
from hf_mhex.modeling.pipeline_mhex import scores_of
from hf_mhex.pictures.maps import overlay
from hf_mhex.pictures.signals import Signal
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
NONE_GIVEN = {
    "image": "Pick, paste or upload an image first.",
    "text": "Type a text first.",
    "signal": "Pick or upload a signal first.",
}


@dataclass(frozen=True, eq=False)
class Answer:
    """What is shown of one input: the label's explanation and those of the best others, and the parts to take away.

    `parts` is None where some blocks are left out, since the model's answer is that of all.
    """

    display: Display
    parts: Parts | None

    @property
    def first(self) -> Explanation:
        """The explanation of the label that was asked for."""
        return self.display.first

    @property
    def parts_html(self) -> str:
        """The parts to be pressed, or why there are none."""
        return parts_html(self.parts, self.first.seen) if self.parts else CHOOSE_ALL


def ways_back(model, processor) -> dict[str, str]:
    """What brings the maps of a model back to its input, by the option of `generate_saliency`, in the page's words."""
    found = {}
    if model.base_model.can_roll_out:
        found["rollout"] = "Carry maps back to the input, through the attention (rollout)"
    if family_of(model).kind != "text" or processor.mask_token_id is not None:
        found["refine"] = f"Share maps out by the gradient, in {PASSES} passes (refine)"
    return found


def explain_input(model, processor, value, target: str, contrast: str, blocks: list[int], *ways: bool) -> Answer:
    """The explanation of the label to explain, then those of the best others, as the page's choices want them.

    Args:
        ways: which of the model's `ways_back` are taken.

    Raises ValueError, to be shown, where no block is chosen, and what `hf_mhex.explain` raises for the value.
    """
    if not blocks:
        raise ValueError("Choose at least one block.")
    names = {name: index for index, name in model.config.id2label.items()}
    options = {
        "target": None if target == PREDICTED else names[target],
        "blocks": None if len(blocks) == model.num_blocks else sorted(blocks),
        "contrast": None if contrast == NO_CONTRAST else contrast,
    }
    taken = dict(zip(ways_back(model, processor), ways))
    options |= {"rollout": taken.get("rollout", False), "refine": PASSES * taken.get("refine", False)}
    item = read_input(model, processor, value)
    [first] = explain_items(model, processor, item, options)
    others = [label for label in first.ranking if label != first.target][: BESIDE - 1]
    found = [first, *(explain_items(model, processor, item, options | {"target": other})[0] for other in others)]
    parts = parts_of(model, processor, item, first, options) if options["blocks"] is None else None
    return Answer(Display(found), parts)


def scores(model, first: Explanation) -> dict[str, float]:
    """Every label's score."""
    found = scores_of(torch.from_numpy(first.logits), model.config)
    return {model.config.id2label[index]: score for index, score in enumerate(found.tolist())}


def sum_line(first: Explanation) -> str:
    """The explained label, and the map's sum beside what it explains, in words."""
    label, total, contrast = (first.record[name] for name in ("label", "sum", "contrast"))
    what = "the explained logit" if contrast is None else f"the logit's lead over {OVER[contrast]}"
    return f"Explained: **{escaped_markdown(label)}**. The map sums to {total:+.4f}; {what} is {first.explained:+.4f}."


def read_file(model, path: str | None):
    """An image file or a signal's as the model takes it; ValueError, to be shown and without the path, where it cannot.

    A signal's file with an axis must have the model's.
    """
    kind = family_of(model).kind
    if not path:
        raise ValueError(NONE_GIVEN[kind])
    try:
        if kind == "image":
            return read_image(path, model.config.num_channels)
        values, axis = read_signal(Path(path))
    except (ValueError, OSError) as error:
        said = str(error)
        raise ValueError(said.replace(path, "This file") if path in said else "This file is not there.") from error
    own = model.config.axis
    if axis is not None and own is not None and not (len(axis) == len(own) and np.allclose(axis, own)):
        raise ValueError(
            f"The file's {len(axis)} points stand at {axis[0]:g} to {axis[-1]:g}, the model's {len(own)} at "
            f"{own[0]:g} to {own[-1]:g}; bring the signal to the model's axis."
        )
    return values


def explain_file(model, processor, path: str | None, *chosen):
    """The answer to a file of an image or a signal, and what is shown of it: scores, sum line, the map over it, parts,
    labels side by side and the blocks' own maps. Raises ValueError, to be shown, for a file that cannot be read.

    Args:
        chosen: as in `explain_input`.
    """
    answer = explain_input(model, processor, read_file(model, path), *chosen)
    first = answer.first
    is_image = family_of(model).kind == "image"
    painted = overlay(first.seen, first.saliency) if is_image else first.picture
    shown = [scores(model, first), sum_line(first), painted, answer.parts_html]
    return answer, [*shown, labels_beside(answer.display), first.block_picture]


def labels_beside(display: Display) -> str:
    """The labels' maps as HTML: over a signal one below the other, over an image as figures on one scale, which narrow
    pages set one below the other.
    """
    said = [f"<b>{escaped(found.title)}</b><br>{escaped(found.sentence)}" for found in display.explanations]
    if isinstance(display.first.seen, Signal):
        picture = picture_tag(display.labels_picture, "maps of the labels")
        return f"{picture}<ul>{''.join(f'<li>{line}</li>' for line in said)}</ul>"
    maps = [found.saliency for found in display.explanations]
    limits = min(float(values.min()) for values in maps), max(float(values.max()) for values in maps)
    figures = []
    for found, line in zip(display.explanations, said):
        painted = overlay(found.seen, found.saliency, limits=limits, size=320)
        figures.append(
            f"<figure>{picture_tag(painted, f'map for {found.title}')}<figcaption>{line}</figcaption></figure>"
        )
    return f'<div class="mhex-labels">{"".join(figures)}</div>'


def explain_sentence(model, tokenizer, text: str, *chosen):
    """The answer to a text, and what is shown of it: scores, sum line, and as escaped HTML the coloured words, the
    parts, the best labels' words and those of each block. Raises ValueError, to be shown, where there is no text.
    """
    if not text or not text.strip():
        raise ValueError(NONE_GIVEN["text"])
    answer = explain_input(model, tokenizer, text, *chosen)
    first = answer.first
    entries = [(found.seen, found.title, found.explained, found.sentence) for found in answer.display.explanations]
    pages: list[list[tuple]] = [[(first.seen, first.label, first.explained)], entries, first.block_entries]
    words, *others = (frame(words_html(page, title=None), 13 * len(page) + 1) for page in pages)
    return answer, [scores(model, first), sum_line(first), words, answer.parts_html, *others]


def frame(page: str, height: int) -> str:
    """A page of its own inside the app, where it can neither run scripts nor change the styles around it."""
    style = f"width: 100%; height: {height}rem; border: 0"
    return f'<iframe sandbox srcdoc="{html.escape(page)}" style="{style}" title="coloured words"></iframe>'
