"""Parts of an input to take away: what the map says that the answer loses by it, and what the model really answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from hf_mhex.escaping import escaped
from hf_mhex.evaluation.part_removal import (
    CELLS,
    REMOVALS,
    WithoutParts,
    part_numbers,
    part_sums,
    row_parts,
    tokenizer_options,
    without_parts,
)
from hf_mhex.explaining.batch import Prepared, collate, with_mask_token
from hf_mhex.explaining.explanation import Explanation, picture_tag
from hf_mhex.families import family_of
from hf_mhex.modeling.mhex_words import ExplainedText, token_places
from hf_mhex.modeling.pipeline_mhex import scores_of
from hf_mhex.pictures.colours import signed
from hf_mhex.pictures.words import background

LEADS = {"mean": "the lead", "runner_up": "the lead over the runner-up", "softmax": "the lead by score"}
NAMES = {"image": "squares", "text": "words", "signal": "intervals"}
CHOOSE_ALL = "<p>With all blocks chosen, parts can be taken away here, to see what the model really answers.</p>"


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of an explained input.

    Args:
        kind: of the input. inputs: the model's, of one row. numbers: the part of each position, see `row_parts`.
        scores: what the map gives to each part. options: those that were explained, `target` and more.
        mask_id: what stands for a word that is taken away; None hides it from all others.
        label: the explained label.
    """

    kind: str
    inputs: dict
    numbers: torch.LongTensor
    scores: list[float]
    options: dict
    mask_id: int | None
    label: str


def parts_of(model, processor, item: Prepared, found: Explanation, options: dict) -> Parts:
    """The squares of an image, the intervals of a signal or the words of a text, with their shares of the map."""
    kind = family_of(model).kind
    inputs = {name: values.to(model.device) for name, values in collate([item], processor).items()}
    if kind == "text":
        numbers = word_numbers(item, found.seen)
        scores = [word.score for word in found.seen.words]
    else:
        numbers = row_parts(model, inputs, kind)
        scores = part_sums(torch.from_numpy(found.saliency), numbers, int(numbers.max()) + 1).tolist()
    mask_id = tokenizer_options(processor).get("mask_id")
    options = {name: options[name] for name in ("contrast", "rollout", "refine")} | {"target": found.target}
    return Parts(kind, inputs, numbers, scores, with_mask_token(processor, options), mask_id, found.label)


def word_numbers(item: Prepared, seen: ExplainedText) -> torch.LongTensor:
    """The number of the word that each token [T] stands in, -1 for special tokens."""
    text, pair = item.texts
    offsets, owners = token_places(text, pair, item.encoding)
    found = []
    for (start, end), owner in zip(offsets, owners):
        words = enumerate(seen.words)
        inside = (number for number, word in words if word.start <= max(start, end - 1) < word.end)
        found.append(-1 if owner is None else next(inside, -1))
    return torch.tensor(found)


def take_away(model, parts: Parts, gone: Iterable[int]) -> WithoutParts:
    """What the map says of the parts by number, taken away together, and what the model answers.

    Raises ValueError for no part and for one that is not there.
    """
    gone = sorted(set(gone))
    if not gone or not 0 <= gone[0] <= gone[-1] < len(parts.scores):
        raise ValueError(f"parts must be numbers from 0 to {len(parts.scores) - 1}, at least one, got {gone}.")
    chosen = torch.zeros(1, len(parts.scores), dtype=torch.bool)
    chosen[0, gone] = True
    return without_parts(model, parts.inputs, parts.numbers, chosen, parts.mask_id, **parts.options)


def parts_line(model, parts: Parts, gone: Sequence[int]) -> str:
    """What was foretold and what happened, in words, as HTML that screen readers say."""
    if not gone:
        return '<p role="status">Nothing is taken away.</p>'
    found, count = take_away(model, parts, gone), len(set(gone))
    names, contrast = model.config.id2label, parts.options["contrast"]
    before, after = scores_of(found.logits, model.config), scores_of(found.without[0], model.config)
    target = parts.options["target"]
    best = int(after.argmax())
    how = "replaced by the mask token" if parts.mask_id is not None else REMOVALS[parts.kind]
    what = "the logit" if contrast is None else LEADS[contrast]
    rows = [
        ("the map foretells", float(found.said[0])),
        ("the model answers", float(found.real[0])),
        ("an even map would foretell", float(found.even[0])),
    ]
    changes = "".join(f'<tr><th scope="row">{said}</th><td>{fall:+.4f}</td></tr>' for said, fall in rows)
    turned = "" if best == int(before.argmax()) else f"; the model now says <b>{escaped(names[best])}</b>"
    return (
        f'<div role="status"><p>Without {count} of {len(parts.scores)} {NAMES[parts.kind]} ({how}), {what} of '
        f"<b>{escaped(parts.label)}</b>, {found.explained:+.4f}, falls by:</p><table>{changes}</table>"
        f"<p>Its score goes from {before[target]:.3f} to {after[target]:.3f}{turned}.</p></div>"
    )


def parts_html(parts: Parts, seen) -> str:
    """Parts as buttons that are pressed to take them away, coloured by their shares: over the image, or in the text.

    Args:
        seen: of the explanation.
    """
    largest = max(map(abs, parts.scores), default=0.0) or 1.0
    buttons = []
    for number, (name, score) in enumerate(zip(names_of(parts, seen), parts.scores)):
        said = escaped(f"{name}: {signed(score)}")
        shown = "" if parts.kind == "image" else escaped(name)
        buttons.append(
            f'<button type="button" data-part="{number}" aria-pressed="false" aria-label="{said}" title="{said}" '
            f'style="background-color: {background(score / largest)}">{shown}</button>'
        )
    group = f'role="group" aria-label="{NAMES[parts.kind]} to take away"'
    if parts.kind == "image":
        pixels = seen[..., 0] if seen.shape[-1] == 1 else seen
        rows, columns = (lengths(side) for side in parts.numbers.shape)
        picture = picture_tag(Image.fromarray(pixels), "the image as the model saw it")
        style = f"grid-template: {rows} / {columns}; aspect-ratio: {pixels.shape[1]} / {pixels.shape[0]}"
        return f'<div class="mhex-parts mhex-grid" {group} style="{style}">{picture}{"".join(buttons)}</div>'
    if parts.kind == "text":
        inside, number = [], 0
        for characters, word in seen.segments():
            inside.append(escaped(characters) if word is None else buttons[number])
            number += word is not None
        return f'<p class="mhex-parts" dir="auto" {group}>{"".join(inside)}</p>'
    return f'<p class="mhex-parts" {group}>{" ".join(buttons)}</p>'


def names_of(parts: Parts, seen) -> list[str]:
    """What the parts are called: words, intervals of the axis, rows and columns."""
    if parts.kind == "text":
        return [word.text for word in seen.words]
    if parts.kind == "signal":
        ends = [(parts.numbers == number).nonzero().flatten()[[0, -1]] for number in range(len(parts.scores))]
        return [f"{seen.axis[first]:g} to {seen.axis[last]:g}" for first, last in ends]
    columns = int(parts.numbers[0].max()) + 1
    return [f"row {n // columns + 1}, column {n % columns + 1}" for n in range(len(parts.scores))]


def lengths(side: int) -> str:
    """The cells' lengths along a side, as the columns of a grid in CSS."""
    _, counts = part_numbers((side,), CELLS).unique(return_counts=True)
    return " ".join(f"minmax(0, {count}fr)" for count in counts.tolist())
