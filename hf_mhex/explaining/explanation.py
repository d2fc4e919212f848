"""Explanation of one image or one text: label, score, map and picture in one answer."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedConfig

from hf_mhex.data import Row
from hf_mhex.explaining.batch import Answer, collate, prepare, seen_picture
from hf_mhex.explaining.windows import explain_windows
from hf_mhex.explaining.signals import seen_signal
from hf_mhex.explaining.words import words_of
from hf_mhex.modeling.mhex import EXACT_OPTIONS
from hf_mhex.modeling.mhex_maps import check_names
from hf_mhex.modeling.mhex_words import ExplainedText, Word, own_places
from hf_mhex.modeling.pipeline_mhex import scores_of
from hf_mhex.pictures.maps import overlay
from hf_mhex.pictures.signals import Signal, line_picture
from hf_mhex.pictures.words import words_html, words_picture, words_terminal


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was found. Pictures are painted when they are first asked for, and None with `upsample=False`.

    Args:
        record: `label`, `target` (its index), `score`, `logit`, `sum` of the map, and `explained`, what it should be;
            of a text also `words`, `special` (the special tokens' share) and `truncated`.
        saliency: [H, W], or [T] over a text's tokens; None with `upsample=False`.
        parts: the words of a text with their scores; of an image the sums of its blocks' maps, raw and unweighted.
    """

    record: dict
    saliency: np.ndarray | None = field(default=None, repr=False)
    parts: list[Word] | list[float] = field(default_factory=list, repr=False)
    seen: np.ndarray | ExplainedText | None = field(default=None, repr=False)

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

    @cached_property
    def picture(self) -> Image.Image | None:
        """The map over an image, or a text's words coloured."""
        if self.seen is None:
            return None
        if isinstance(self.seen, ExplainedText):
            return words_picture([(self.seen, f"{self.title}, logit {self.logit:+.2f}")])
        if isinstance(self.seen, Signal):
            return line_picture(self.seen, {"": self.saliency}, self.title)
        return overlay(self.seen, self.saliency, title=f"{self.title}\nlogit {self.logit:+.3f}")

    @cached_property
    def coloured(self) -> Text | None:
        """A text's words coloured, for a terminal."""
        return words_terminal(self.seen) if isinstance(self.seen, ExplainedText) else None

    @cached_property
    def page(self) -> str | None:
        """A text's words coloured, as a page of HTML."""
        if not isinstance(self.seen, ExplainedText):
            return None
        return words_html([(self.seen, self.title, self.explained)], title="Words and decision")

    def _repr_html_(self) -> str:
        """The overlay, or the coloured words, for notebooks."""
        title = html.escape(self.title)
        if self.seen is None:
            return f"<p>{title}, logit {self.logit:+.3f}</p>"
        if self.coloured is not None:
            console = Console(record=True, file=io.StringIO())
            console.print(self.coloured, soft_wrap=True)
            words = console.export_html(inline_styles=True, code_format="{code}")
            return f'<p>{title}</p><p style="white-space: pre-wrap">{words}</p>'
        buffer = io.BytesIO()
        self.picture.save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        return f'<img alt="{title}" src="data:image/png;base64,{data}">'


def explain(model, processor, value, **options) -> Explanation | list[Explanation]:
    """Explain one image or one text. A text's end that exceeds the model's length is cut off (`record["truncated"]`).

    Args:
        model: an MHEX classifier, with its image processor or fast tokenizer.
        value: an image as `read_image` takes it; or a text, or a pair of texts: a tuple, or a dict of `text` and
            `text_pair`.
        options: `stride` reads a text of any length in windows that share so many tokens (`explain_windows`); the rest
            are those of `generate_saliency`; `target` may also be a label's name. With target="all" the answer is a
            list, one explanation a label.

    Raises TypeError for an unknown option, ValueError or TypeError for a value that is no image or text, OSError for a
    file that is not there.
    """
    check_names(options, (*EXACT_OPTIONS, "stride"), "explain")
    stride = options.pop("stride", None)
    target = options.get("target")
    if isinstance(target, str) and target != "all":
        options["target"] = label_index(model.config, target, "target")
    if stride is not None:
        answers = []
        for record, saliency, seen, _ in explain_windows(model, processor, value, stride, options):
            answers.append(Explanation(record, saliency, own_places(value, seen.words), seen))
        return answers if target == "all" else answers[0]
    [item] = prepare([Row(0, "", value)], model, processor)
    if isinstance(item, Answer):
        raise item.error
    inputs = {name: values.to(model.device) for name, values in collate([item], processor).items()}
    found = model.generate_saliency(**inputs, **options)
    scores = scores_of(found.logits[0], model.config)
    if target != "all":
        return _explanation(model, processor, item, found, scores, 0)
    return [_explanation(model, processor, item, found, scores, (0, label)) for label in range(model.config.num_labels)]


def _explanation(model, processor, item, found, scores, place: int | tuple[int, int]) -> Explanation:
    """The explanation that stands at a place (row, or row and label) of a model's answer."""
    target = int(found.target[place])
    saliency = None if found.saliency is None else found.saliency[place].float().cpu().numpy()
    record = {
        "label": model.config.id2label[target],
        "target": target,
        "score": float(scores[target]),
        "logit": float(found.logits[0, target]),
        "sum": None if saliency is None else float(saliency.sum(dtype=np.float64)),
        "explained": float(found.explained[place]),
    }
    if item.encoding is None:
        parts = [float(maps[place].double().sum()) for maps in found.block_saliency]
        shown = seen_picture if item.inputs.ndim == 3 else lambda one, _: seen_signal(one.inputs, model, processor)
        return Explanation(record, saliency, parts, None if saliency is None else shown(item, processor))
    record["truncated"] = bool(item.encoding.overflowing)
    if saliency is None:
        return Explanation(record)
    seen = words_of(*item.texts, item.encoding, saliency.tolist())
    parts = own_places(item.texts[0], seen.words)
    record |= {"special": seen.special, "words": [vars(word) for word in parts]}
    return Explanation(record, saliency, parts, seen)


def label_index(config: PreTrainedConfig, label: str, name: str = "label") -> int:
    """The index of a label given by its name or its number; ValueError with the labels there are."""
    names = [config.id2label[index] for index in range(config.num_labels)]
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    raise ValueError(f"{name} must be a label ({', '.join(names)}) or a number below {len(names)}, got {label!r}.")


def fitting_contrast(config: PreTrainedConfig) -> str | None:
    """What a picture shows best: a label's lead over the others ("softmax") where the loss leaves a logit's zero open.

    Cross-entropy does; its maps are nearly all of one sign. Where labels are learnt one by one (`binary_share`, several
    labels, regression) the zero means something, and the map as it is (None) says more.
    """
    single = config.problem_type in (None, "single_label_classification") and config.num_labels > 1
    return "softmax" if single and config.binary_share == 0 else None
