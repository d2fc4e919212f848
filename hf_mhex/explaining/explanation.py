"""Explanation of one input: label, score, map and picture in one answer."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from PIL import Image
from rich.text import Text
from transformers import PreTrainedConfig

from hf_mhex.data import Row
from hf_mhex.escaping import escaped
from hf_mhex.explaining.batch import Prepared, collate, label_index, prepare, seen_picture, with_mask_token
from hf_mhex.explaining.signals import seen_signal
from hf_mhex.explaining.windows import explain_windows
from hf_mhex.explaining.words import words_of
from hf_mhex.families import family_of
from hf_mhex.modeling.mhex import EXACT_OPTIONS
from hf_mhex.modeling.mhex_maps import check_blocks, check_contrast, check_names
from hf_mhex.modeling.mhex_words import ExplainedText, own_places
from hf_mhex.modeling.pipeline_mhex import CONTRASTS, scores_of
from hf_mhex.pictures.colours import signed
from hf_mhex.pictures.maps import block_strip, overlay
from hf_mhex.pictures.signals import Signal, line_picture
from hf_mhex.pictures.words import WORDS_STYLE, article, words_html, words_picture, words_terminal
from hf_mhex.processors import check_processor


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was found. Pictures are painted when they are first asked for, and None with `upsample=False`.

    Args:
        record: `label`, `target` (its index), `score`, `logit`, `sum` of the map, and `explained`, what it should be;
            `contrast`, what it is compared with (None: the map explains the logit); `sentence`, the same in words; of a
            text also `words`, `special` (the special tokens' share) and `truncated`.
        saliency: [H, W], [L] over a signal's points or [T] over a text's tokens; None with `upsample=False`.
        parts: the words of a text with their scores; else the sums of its blocks' maps, raw and unweighted.
        seen: the pixels that the model saw, the signal on its axis, or the text with its words.
        blocks: by block's number its own map [h, w] or [l], or the text with its words.
        logits: [K].
    """

    record: dict
    saliency: np.ndarray | Any = field(default=None, repr=False)
    parts: list[Any] = field(default_factory=list, repr=False)
    seen: Any = field(default=None, repr=False)
    blocks: dict[int, Any] = field(default_factory=dict, repr=False)
    logits: np.ndarray | Any = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """Name of the explained label."""
        return self.record["label"]

    @property
    def target(self) -> int:
        """Index of the explained label."""
        return self.record["target"]

    @property
    def score(self) -> float:
        """Its score, in [0, 1] unless the model is one of regression."""
        return self.record["score"]

    @property
    def logit(self) -> float:
        """Its logit."""
        return self.record["logit"]

    @property
    def explained(self) -> float:
        """What the raw map adds up to."""
        return self.record["explained"]

    @property
    def title(self) -> str:
        """Label and score."""
        return f"{self.label} ({self.score:.3f})"

    @property
    def sentence(self) -> str:
        """What the map explains, in words: "+3.2 ahead of the other labels; red speaks for Dress, blue against it"."""
        return self.record["sentence"]

    @property
    def ranking(self) -> list[int]:
        """All labels' indices, the highest logit first."""
        return (-self.logits).argsort(kind="stable").tolist()

    @property
    def is_text(self) -> bool:
        """Whether a text was explained."""
        return isinstance(self.seen, ExplainedText)

    @cached_property
    def picture(self) -> Image.Image | None:
        """The map over an image, or a text's words coloured; the sentence below."""
        if self.seen is None:
            return None
        if self.is_text:
            return words_picture([(self.seen, self.title, self.sentence)])
        if isinstance(self.seen, Signal):
            return line_picture(self.seen, {"": self.saliency}, self.title, self.sentence)
        return overlay(self.seen, self.saliency, title=self.title, note=self.sentence)

    @cached_property
    def block_picture(self) -> Image.Image | None:
        """The same block by block, raw and unweighted: a block's sum is its own logit, or its own lead.

        None without `seen`, and for a text in windows, whose blocks are not joined.
        """
        if self.seen is None or not self.blocks:
            return None
        title = f"Block by block, for {self.label}"
        if self.is_text:
            return words_picture([(words, name) for words, name, _ in self.block_entries])
        labels = [f"block {block}" for block in self.blocks]
        if isinstance(self.seen, Signal):
            captions = [f"{label}, sum {signed(part)}" for label, part in zip(labels, self.parts)]
            return line_picture(self.seen, dict(zip(captions, self.blocks.values())), title)
        return block_strip(self.seen, list(self.blocks.values()), labels=labels, title=title, columns=7, size=160)

    @property
    def block_entries(self) -> list[tuple[ExplainedText, str, float]]:
        """A text's words by each block, with a heading and their sum, for `words_html`."""
        found = self.blocks.items()
        return [(words, f"block {block}, sum {signed(words.total)}", words.total) for block, words in found]

    @cached_property
    def coloured(self) -> Text | None:
        """A text's words coloured, for a terminal."""
        return words_terminal(self.seen) if isinstance(self.seen, ExplainedText) else None

    @cached_property
    def page(self) -> str | None:
        """A text's words coloured, as a page of HTML."""
        if not self.is_text:
            return None
        return words_html([(self.seen, self.title, self.explained, self.sentence)], title="Words and decision")

    def _repr_html_(self) -> str:
        """The picture of an image, or the coloured words, with the sentence, for notebooks."""
        if isinstance(self.seen, ExplainedText):
            return inline(article(self.seen, self.title, self.explained, self.sentence))
        if self.picture is None:
            return f"<p>{escaped(self.title)}: {escaped(self.sentence)}</p>"
        return picture_tag(self.picture, f"{self.title}: {self.sentence}")

    def _repr_png_(self) -> bytes | None:
        """The picture, where HTML is not shown."""
        return None if self.picture is None else png(self.picture)


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def picture_tag(picture: Image.Image, said: str) -> str:
    """An image element that holds the picture itself, and says it in words."""
    data = base64.b64encode(png(picture)).decode()
    return f'<img alt="{escaped(said)}" style="max-width: 100%" src="data:image/png;base64,{data}">'


def inline(articles: str) -> str:
    """Articles of `words_html` with their styles, which touch nothing around them, for a notebook."""
    return f'<div class="mhex-words"><style>.mhex-words {{ {WORDS_STYLE} }}</style>{articles}</div>'


def explain(model, processor, value, **options) -> Explanation | list[Explanation]:
    """Explain one image, signal or text.

    The map adds up to the label's logit, or with `contrast="mean"` to its lead over the mean of the other labels'
    logits, which `show` and the command line explain. A text's end that exceeds the model's length is cut off
    with a warning (`record["truncated"]`); `stride` reads all of it.

    Args:
        model: an MHEX classifier, with its image processor, feature extractor or fast tokenizer.
        value: an image as `read_image` takes it; a signal, an array [L] or [C, L]; or a text, or a pair of texts: a
            tuple, or a dict of `text` and `text_pair`.
        options: `stride` reads a text of any length in windows that share so many tokens (`explain_windows`); the rest
            are those of `generate_saliency`; `target`, and a `contrast` with one label, may also be a label's name.
            With target="all" the answer is a list, one explanation a label.

    Raises TypeError for an unknown option and a processor of another kind, ValueError or TypeError for a value that is
    no image or text, OSError for a file that is not there.
    """
    check_names(options, (*EXACT_OPTIONS, "stride"), "explain")
    stride = options.pop("stride", None)
    if stride is not None:
        found = explain_long(model, processor, value, stride, options)
    else:
        found = explain_items(model, processor, read_one(model, processor, value), options)
    return found if options.get("target") == "all" else found[0]


def read_input(model, processor, value) -> Prepared:
    """An input as `explain` takes it, ready for the model; raises what `explain` raises for it."""
    check_processor(model, processor)
    [item] = prepare([Row(0, "", value)], model, processor)
    if isinstance(item, Prepared):
        return item
    raise item.error or ValueError("the input cannot be read.")


def read_one(model, processor, value) -> Prepared:
    """`read_input` for who asks by hand: a list of texts is refused, and of a text that is cut off warned.

    Rows of data hold pairs as lists, but by hand a list is as likely meant as several texts.
    """
    if isinstance(value, list) and family_of(model).kind == "text":
        cure = "a pair is a tuple, or a dict of 'text' and 'text_pair'; for several texts call it once for each"
        raise ValueError(f"a list of {len(value)} is neither one text nor a pair: {cure}, or explain_dataset.")
    item = read_input(model, processor, value)
    if item.encoding is None or not item.encoding.overflowing:
        return item
    text, cure = ("pair", "") if item.texts[1] is not None else ("text", "; explain(..., stride=32) reads all of it")
    count = len(item.inputs["input_ids"])
    warnings.warn(f"the model reads {count} tokens, the rest of the {text} is cut off{cure}.", stacklevel=3)
    return item


def explain_items(model, processor, item: Prepared, options: dict) -> list[Explanation]:
    """The answer of `explain` to an input that was read."""
    options = with_mask_token(processor, by_index(model, options))
    inputs = {name: values.to(model.device) for name, values in collate([item], processor).items()}
    found = model.generate_saliency(**inputs, **options)
    places = [(0, label) for label in range(model.config.num_labels)] if options.get("target") == "all" else [0]
    return [_explanation(model, processor, item, found, place, options) for place in places]


def by_index(model, options: dict) -> dict:
    """The options with labels by their index."""
    options = {"contrast": None} | options
    for name, kept in (("target", ("all",)), ("contrast", CONTRASTS)):
        if isinstance(options.get(name), str) and options[name] not in kept:
            options[name] = label_index(model.config, options[name], name)
    if isinstance(options["contrast"], Integral) and not isinstance(options["contrast"], bool):
        options["contrast"] = int(options["contrast"])
    names, target = model.config.id2label, options.get("target")
    if type(target) is int and target in names:
        check_contrast(names.get(options["contrast"]), names[target])
    return options


def explain_long(model, processor, text, stride: int, options: dict) -> list[Explanation]:
    """The answer of `explain` to a text in windows."""
    check_processor(model, processor)
    options, answers = by_index(model, options), []
    options["blocks"] = check_blocks(options.get("blocks"), model.num_blocks)
    names, contrast, chosen = model.config.id2label, options["contrast"], _some_blocks(model, options["blocks"])
    for record, saliency, seen, logits in explain_windows(model, processor, text, stride, options):
        record["contrast"] = _contrast_of(record, contrast, names, options)
        record["sentence"] = sentence_of(record, logits, names, chosen, options.get("decay"))
        answers.append(Explanation(record, saliency, own_places(text, seen.words), seen, logits=logits))
    return answers


def _explanation(model, processor, item, found, place: int | tuple[int, int], options: dict) -> Explanation:
    """The explanation that stands at a place (row, or row and label) of a model's answer."""
    target, names = int(found.target[place]), model.config.id2label
    saliency = None if found.saliency is None else found.saliency[place].float().cpu().numpy()
    contrast = options["contrast"]
    record = {
        "label": names[target],
        "target": target,
        "score": float(scores_of(found.logits[0], model.config)[target]),
        "logit": float(found.logits[0, target]),
        "sum": None if saliency is None else _total(saliency),
        "explained": float(found.explained[place]),
    }
    record["contrast"] = _contrast_of(record, contrast, names, options)
    logits = found.logits[0].float().cpu().numpy()
    blocks = check_blocks(options.get("blocks"), model.num_blocks)
    record["sentence"] = sentence_of(record, logits, names, _some_blocks(model, blocks), options.get("decay"))
    maps = [values[place].float().cpu().numpy() for values in found.block_saliency]
    by_block = dict(zip(blocks, maps))
    if item.encoding is None:
        shown = seen_picture if item.inputs.ndim == 3 else lambda one, _: seen_signal(one.inputs, model, processor)
        seen = None if saliency is None else shown(item, processor)
        return Explanation(record, saliency, [_total(values) for values in maps], seen, by_block, logits)
    record["truncated"] = bool(item.encoding.overflowing)
    if saliency is None:
        return Explanation(record, logits=logits)
    text, pair = item.texts
    explained = words_of(text, pair, item.encoding, saliency.tolist())
    parts = own_places(text, explained.words)
    record |= {"special": explained.special, "words": [vars(word) for word in parts]}
    words = {block: words_of(text, pair, item.encoding, values.tolist()) for block, values in by_block.items()}
    return Explanation(record, saliency, parts, explained, words, logits)


def _contrast_of(record: dict, contrast, names: dict[int, str], options: dict):
    """What a label is compared with, a label by its name; ValueError where that is the one label asked for itself."""
    if not isinstance(contrast, int):
        return contrast
    if options.get("target") != "all":
        check_contrast(names[contrast], record["label"])
    return names[contrast]


def _some_blocks(model, blocks: list[int]) -> list[int] | None:
    """The blocks, None where they are all of them."""
    return None if len(blocks) == model.num_blocks else blocks


def _total(values: np.ndarray) -> float:
    return float(values.sum(dtype=np.float64))


def sentence_of(record: dict, logits: np.ndarray, names: dict[int, str], blocks: list[int] | None, decay) -> str:
    """What a map adds up to and what its colours mean: "+3.2 ahead of Coat; red speaks for Dress, blue against it"."""
    label, value, contrast = record["label"], record["explained"], record["contrast"]
    others = [index for index in range(len(logits)) if index != record["target"]]
    if contrast is None:
        lead = f"logit {signed(value)}"
    else:
        if len(others) == 1:
            other = names[others[0]]
        elif contrast == "runner_up":
            other = names[max(others, key=logits.__getitem__)]
        else:
            other = {"mean": "the other labels on average", "softmax": "the other labels, weighed by their scores"}.get(
                contrast, contrast
            )
        lead = f"{signed(value)} ahead of {other}" if value >= 0 else f"{-value:.3g} behind {other}"
    if blocks is not None:
        lead += f" by block{'s' * (len(blocks) > 1)} {', '.join(map(str, blocks))} alone"
    if decay is not None:
        lead += f", a block weighing {decay:g} of the next deeper one"
    return f"{lead}; red speaks for {label}, blue against it"


def lead_contrast(config: PreTrainedConfig) -> str | None:
    """What displays explain: a label's lead over the mean of the others ("mean") where labels compete.

    A predicted label may have a negative logit, whose map is mostly blue; its lead is positive. Where labels are judged
    one by one (several labels, regression) a logit's zero means something, and displays explain the logit (None).
    """
    competing = config.problem_type in (None, "single_label_classification") and config.num_labels > 1
    return "mean" if competing else None
