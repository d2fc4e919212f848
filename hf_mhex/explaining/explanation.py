"""Why does a model say what it says of one image or one text? Label, score, map and picture in one answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike, fspath

from PIL import Image, UnidentifiedImageError
from rich.text import Text
from transformers import PreTrainedConfig

from hf_mhex.explaining.words import explain_words
from hf_mhex.modeling.pipeline_mhex import scores_of
from hf_mhex.pictures.maps import overlay, words_html, words_terminal
from hf_mhex.processors import restore_image


@dataclass(frozen=True)
class Explanation:
    """What was found: `record` (label, target, score, logit, sum of the map, explained; words of a text), and pictures.

    Of an image, `picture` is the overlay. Of a text, `coloured` is for the terminal and `page` for the browser.
    """

    record: dict
    picture: Image.Image | None = field(default=None, repr=False)
    coloured: Text | None = field(default=None, repr=False)
    page: str | None = field(default=None, repr=False)


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


def explain_image(model, processor, image: str | PathLike | Image.Image, **options) -> Explanation:
    """Explain an image.

    Args:
        model: an `MHEXResNetForImageClassification` in eval mode, with its image processor.
        image: a file's path or a PIL image.
        options: arguments of `generate_saliency` for one row.

    Raises ValueError for a file that is no image, OSError for one that is not there.
    """
    if not isinstance(image, Image.Image):
        try:
            image = Image.open(image)
            image.load()
        except UnidentifiedImageError as error:
            raise ValueError(f"image={fspath(image)!r} is no image file that can be read.") from error
    if model.config.num_channels == 1:
        image = image.convert("L")
    inputs = processor(image, return_tensors="pt").to(model.device)
    answer = model.generate_saliency(**inputs, **options)
    record = record_of(answer, model.config)
    title = f"{record['label']} ({record['score']:.3f})\nlogit {record['logit']:+.3f}"
    pixels = restore_image(inputs["pixel_values"][0], processor)
    return Explanation(record, picture=overlay(pixels, answer.saliency[0].cpu(), title=title))


def explain_text(model, tokenizer, text: str, **options) -> Explanation:
    """Explain a text. What exceeds the model's length is cut off (`record["truncated"]`).

    Args:
        model: an `MHEXBertForSequenceClassification` in eval mode, with its fast tokenizer.
        text: a text that is not empty.
        options: arguments of `generate_saliency` for one row.

    Raises ValueError for an empty text.
    """
    if not text.strip():
        raise ValueError("text must not be empty.")
    longest = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    encoding = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").to(model.device)
    answer = model.generate_saliency(**encoding, **options)
    explained = explain_words(text, encoding, answer.saliency)[0]
    record = record_of(answer, model.config)
    record["truncated"] = bool(encoding.encodings[0].overflowing)
    record["special"] = explained.special
    record["words"] = [vars(word) for word in explained.words]
    heading = f"{record['label']} ({record['score']:.3f})"
    page = words_html([(explained, heading, record["explained"])], title="Words and decision")
    return Explanation(record, coloured=words_terminal(explained), page=page)


def record_of(answer, config: PreTrainedConfig) -> dict:
    """The numbers of a one-row answer."""
    target = int(answer.target[0])
    return {
        "label": config.id2label[target],
        "target": target,
        "score": float(scores_of(answer.logits[0], config)[target]),
        "logit": float(answer.logits[0, target]),
        "sum": float(answer.saliency[0].double().sum()),
        "explained": float(answer.explained[0]),
    }
