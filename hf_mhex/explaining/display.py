"""Display of an answer: its best labels side by side, then block by block, for notebooks, files and the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Group
from rich.text import Text

from hf_mhex.escaping import escaped, visible
from hf_mhex.explaining.explanation import (
    Explanation,
    by_index,
    explain_items,
    explain_long,
    inline,
    label_index,
    lead_contrast,
    picture_tag,
    png,
    read_one,
)
from hf_mhex.modeling.mhex import EXACT_OPTIONS
from hf_mhex.modeling.mhex_maps import check_names
from hf_mhex.pictures.maps import side_by_side
from hf_mhex.pictures.signals import Signal, line_picture
from hf_mhex.pictures.words import article, html_page, scale_terminal, words_picture
from hf_mhex.writing import whole, write_whole

LEGEND = "Red speaks for the label, blue against it; the deeper, the more. Every scale states its numbers."


@dataclass(frozen=True, eq=False)
class Display:
    """What `show` found: it shows itself in notebooks, and saves itself as a picture (.png) or a page (.html).

    Args:
        explanations: of the labels shown, the first of them block by block too.
    """

    explanations: list[Explanation]

    @property
    def first(self) -> Explanation:
        """The first label's explanation."""
        return self.explanations[0]

    @cached_property
    def picture(self) -> Image.Image:
        """The labels side by side (those of texts and signals one below the other), and the first one's blocks."""
        pictures = [self.labels_picture, self.first.block_picture]
        return stacked([picture for picture in pictures if picture is not None])

    @cached_property
    def labels_picture(self) -> Image.Image:
        """The labels alone. Maps of an image share one scale."""
        if self.first.is_text:
            return words_picture([(found.seen, found.title, found.sentence) for found in self.explanations])
        if isinstance(self.first.seen, Signal):
            panels = {f"{found.title}: {found.sentence}": found.saliency for found in self.explanations}
            return line_picture(self.first.seen, panels)
        maps = [found.saliency for found in self.explanations]
        titles, notes = zip(*((found.title, found.sentence) for found in self.explanations))
        return side_by_side(self.first.seen, maps, labels=titles, notes=notes)

    @cached_property
    def page(self) -> str:
        """A page of its own: no script, nothing loaded, everything escaped."""
        return html_page("Why this label?", f"<h1>Why this label?</h1>\n<p>{LEGEND}</p>\n{self._body}")

    @cached_property
    def coloured(self) -> Group | None:
        """A text's words coloured for a terminal, with their scale, label by label."""
        if not self.first.is_text:
            return None
        lines: list[tuple] = [
            (Text(visible(found.title)), found.coloured, scale_terminal(found.seen), Text(visible(found.sentence)))
            for found in self.explanations
        ]
        return Group(*(line for entry in lines for line in entry))

    def save(self, path: str | PathLike) -> Path:
        """Write the picture (.png, .jpg, .webp) or the page (.html); ValueError for another ending."""
        path = Path(path)
        if path.suffix.lower() in (".html", ".htm"):
            write_whole(path, self.page)
        elif path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
            with whole(path) as place:
                self.picture.save(place)
        else:
            raise ValueError(f"path must end in .png, .jpg, .webp or .html, got {str(path)!r}.")
        return path

    @property
    def _body(self) -> str:
        if self.first.is_text:
            labels = [article(found.seen, found.title, found.explained, found.sentence) for found in self.explanations]
            blocks = [article(*entry) for entry in self.first.block_entries]
            heading = [f"<h2>Block by block, for {escaped(self.first.label)}</h2>"] if blocks else []
            return "\n".join([*labels, *heading, *blocks])
        said = "".join(f"<li>{escaped(found.title)}: {escaped(found.sentence)}</li>" for found in self.explanations)
        return (
            f"{picture_tag(self.picture, 'maps of the labels, and of the first one block by block')}\n<ul>{said}</ul>"
        )

    def _repr_html_(self) -> str:
        """The words, or the picture, for notebooks."""
        return inline(self._body) if self.first.is_text else self._body

    def _repr_png_(self) -> bytes:
        """The picture, where HTML is not shown."""
        return png(self.picture)


def show(model, value, processor=None, *, labels: int | str | Sequence[str | int] = 3, **options) -> Display:
    """Show why a model answers as it does: its best labels side by side, and the best one block by block.

    `hf_mhex.show("outputs/demo/mhex-resnet-fashion-mnist", "coat.png")` as the last line of a notebook's cell.

    Args:
        model: an MHEX classifier, or the folder or Hub id of one.
        value: an image or a text, as `explain` takes it.
        processor: its image processor or tokenizer; if left out, the one that was saved with the model.
        labels: how many of the best labels, or which ones, by name or index.
        options: of `explain` but `target`, and `revision` where `model` is a name. With `stride` a text is not shown
            block by block. Labels are shown by their lead over the mean of the others (`lead_contrast`);
            `contrast=None` shows the logits.

    Raises what `load` and `explain` raise, ValueError for labels that are not there.
    """
    from hf_mhex.loading import load, load_processor

    revision = options.pop("revision", None)
    known = [name for name in EXACT_OPTIONS if name not in ("target", "upsample")]
    check_names(options, (*known, "stride", "revision", "labels"), "show")
    if isinstance(model, (str, PathLike)):
        model, own = load(model, revision)
        processor = own if processor is None else processor
    elif processor is None:
        processor = load_processor(model)
    options = by_index(model, {"contrast": lead_contrast(model.config)} | options)
    stride = options.pop("stride", None)
    if stride is None:
        item = read_one(model, processor, value)

    def found(**chosen) -> Explanation:
        if stride is None:
            return explain_items(model, processor, item, options | chosen)[0]
        return explain_long(model, processor, value, stride, options | chosen)[0]

    if isinstance(labels, Integral):
        if labels < 1:
            raise ValueError(f"labels must be at least 1, or a list of labels, got {labels}.")
        best = found()
        others = [label for label in best.ranking[1:] if label != options["contrast"]]
        return Display([best, *(found(target=label) for label in others[: int(labels) - 1])])
    names = [labels] if isinstance(labels, str) else list(labels) if isinstance(labels, Iterable) else [labels]
    if not all(isinstance(name, (str, Integral)) for name in names):
        raise TypeError(f"labels must be a number of labels, or a list of names or indices, got {labels!r}.")
    chosen = [label_index(model.config, name, "labels") if isinstance(name, str) else int(name) for name in names]
    if not chosen:
        raise ValueError("labels must name at least one label.")
    return Display([found(target=target) for target in chosen])


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other, white beside the narrower ones."""
    wide = max(picture.width for picture in pictures)
    padded = [np.pad(np.asarray(p), ((0, 0), (0, wide - p.width), (0, 0)), constant_values=255) for p in pictures]
    return Image.fromarray(np.vstack(padded))
