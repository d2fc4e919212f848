"""Pipelines that answer with label, score and the saliency of the class, for images and for texts.

    pipeline("image-saliency", model=repository, revision=commit, trust_remote_code=True)("picture.png")
    pipeline("text-saliency", model=repository, revision=commit, trust_remote_code=True)("great phone", top_k=2)

Every item gets a list of dicts, the best label first. They take the arguments of `generate_saliency`; the map (or the
words and the special tokens) of an answer adds up to `explained`.
"""

import types
import warnings

import torch
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.image_transforms import to_pil_image
from transformers.image_utils import load_image
from transformers.pipelines.base import ChunkPipeline

from .mhex_maps import check_blocks, check_names, combine_maps, decay_factors, normalize_map
from .mhex_words import words_from_tokens

SALIENCY_OPTIONS = ("target", "contrast", "blocks", "decay", "normalize", "upsample", "rollout")
FOR, AGAINST = (0.80, 0.09, 0.11), (0.07, 0.33, 0.78)  # red and blue, RGB


def scores_of(logits: torch.Tensor, config) -> torch.Tensor:
    """Logits [..., K] as the stock pipelines score them: softmax, sigmoid for several labels, regression as it is."""
    if config.problem_type == "regression":
        return logits
    several = config.problem_type == "multi_label_classification" or config.num_labels == 1
    return logits.sigmoid() if several else logits.softmax(-1)


def paint_map(pixels: torch.Tensor, saliency: torch.Tensor, alpha: float = 0.75):
    """A PIL image of pixels [C, H, W] in light grey under a map [H, W]: red speaks for the label, blue against it.

    A map of both signs is clear at 0, one of a single sign at its value nearest to 0; a flat map paints nothing.
    """
    low, high = saliency.min(), saliency.max()
    size = torch.maximum(-low, high)
    if low < 0 < high:
        strength = saliency / size
    elif high - low > 1e-6 * size:
        strength = (saliency - (low if low >= 0 else high)) / (high - low)
    else:
        strength = torch.zeros_like(saliency)
    shares = pixels.new_tensor([0.299, 0.587, 0.114] if len(pixels) == 3 else [1 / len(pixels)] * len(pixels))
    grey = torch.einsum("c,chw->hw", shares, pixels)
    colour = torch.where((strength < 0)[..., None], grey.new_tensor(AGAINST), grey.new_tensor(FOR))
    opacity = alpha * strength.abs()[..., None]
    painted = (1 - opacity) * (0.25 + 0.75 * grey)[..., None] + opacity * colour
    return to_pil_image((255 * painted.clamp(0, 1)).round().byte().numpy(), do_rescale=False)


class SaliencyPipeline(Pipeline):
    """Base of the pipelines: takes items of any kind of collection, reads the arguments, makes the answers."""

    _load_processor = False
    _load_feature_extractor = False
    _load_video_processor = False
    main_input = ""
    item_options = ()  # arguments of `preprocess`

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "generate_saliency") or self.model.main_input_name != self.main_input:
            raise ValueError(f"model must be an MHEX classifier of {self.main_input}, got {type(self.model).__name__}.")

    def __call__(self, inputs, **kwargs):
        """Answer one item; a list or tuple at once; a dataset, a column of one or another iterable as a stream."""
        if isinstance(inputs, (list, tuple)):
            return super().__call__(list(inputs), **kwargs) if len(inputs) else []
        single = isinstance(inputs, (str, bytes, dict, torch.Tensor)) or hasattr(inputs, "__array_interface__")
        if not single and not isinstance(inputs, (types.GeneratorType, Dataset)) and hasattr(inputs, "__iter__"):
            inputs = (item for item in inputs)
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **given):
        check_names(given, ("top_k", *self.item_options, *SALIENCY_OPTIONS), type(self).__name__)
        before = {name: given.pop(name) for name in self.item_options if name in given}
        options = given
        top_k = options.get("top_k")
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise ValueError(f"top_k must be None (all labels) or an int of at least 1, got {top_k!r}.")
        if options.get("target") not in (None, "all"):
            if top_k not in (None, 1):
                raise ValueError(f"top_k={top_k} and target={options['target']!r} exclude each other; give one.")
            options["target"] = self._label_index(options["target"])
        after = {name: options[name] for name in ("target", "top_k", "normalize") if name in options}
        return before, options, after

    def _label_index(self, target) -> int:
        indices = {name: index for index, name in self.model.config.id2label.items()}
        index = indices.get(target, target) if isinstance(target, str) else target
        if type(index) is not int or not 0 <= index < len(indices):
            cure = f"None, 'all', a label ({', '.join(indices)}) or its index, up to {len(indices) - 1}"
            raise ValueError(f"target must be {cure}; got {target!r}.")
        return index

    def _answer(self, label: int, logits: torch.Tensor, explained: torch.Tensor) -> dict:
        return {
            "label": self.model.config.id2label[label],
            "score": scores_of(logits, self.model.config)[label].item(),
            "target": label,
            "logit": logits[label].item(),
            "explained": explained.item(),
        }


class ImageSaliencyPipeline(SaliencyPipeline):
    """Answers for images (PIL, path, URL, or array and tensor as the image processor takes them):

    a list of dicts of `label`, `score`, `target` (its index), `logit`, `explained`, `saliency` (array [H, W] over the
    pixels that the network sees, after resizing and cropping), `overlay` (PIL image of these pixels under the map) and
    `block_saliency` (an array [h, w] for each block). Arguments, at construction or at a call:

    Args:
        top_k: how many labels to answer with, 1 by default, None for all.
        target: a label or its index instead of the best ones; "all".
        timeout: seconds to wait for an image from the web.
        others: of `generate_saliency`; with `upsample=False` the answers have no `saliency` and no `overlay`.
    """

    _load_tokenizer = False
    _load_image_processor = True
    main_input = "pixel_values"
    item_options = ("timeout",)

    def preprocess(self, image, timeout=None):
        if isinstance(image, dict):
            raise TypeError("image must be one image, got a dict; pass the dataset's column of images.")
        if not isinstance(image, torch.Tensor) and type(image).__name__ != "ndarray":
            image = load_image(image, timeout=timeout)
            if self.model.config.num_channels == 1:
                image = image.convert("L")
        return self.image_processor(images=image, return_tensors="pt").to(self.dtype)

    def _forward(self, inputs, target=None, top_k=1, normalize=None, upsample=True, decay=None, **options):
        every = target == "all" or (target is None and top_k != 1)
        found = self.model.generate_saliency(
            **inputs, **options, target="all" if every else target, decay=decay, upsample=False
        )
        kept = {"target": found.target, "explained": found.explained}
        kept |= {f"block.{number}": values for number, values in enumerate(found.block_saliency)}
        if every:
            count = found.logits.shape[-1]
            best = found.logits.argsort(dim=-1, descending=True, stable=True)[:, : count if target else top_k]
            rows = torch.arange(len(best), device=best.device)[:, None]
            kept = {name: values[rows, best] for name, values in kept.items()}
        else:
            kept = {name: values[:, None] for name, values in kept.items()}
        if upsample:
            maps = [values for name, values in kept.items() if name.startswith("block.")]
            depths = check_blocks(options.get("blocks"), self.model.num_blocks)
            factors = decay_factors(depths, self.model.config.head_decay if decay is None else decay)
            kept["saliency"] = combine_maps(maps, factors, tuple(inputs["pixel_values"].shape[-2:]))
            if normalize:
                kept["saliency"] = normalize_map(kept["saliency"], normalize)
        return {"logits": found.logits, **kept, "pixel_values": inputs["pixel_values"]}

    def postprocess(self, found, target=None, top_k=1, normalize=None):
        found = {name: values[0] for name, values in found.items()}
        answers = []
        for place, label in enumerate(found["target"].tolist()):
            answer = self._answer(label, found["logits"], found["explained"][place])
            if "saliency" in found:
                answer["saliency"] = found["saliency"][place].numpy()
                answer["overlay"] = paint_map(self._pixels(found["pixel_values"]), found["saliency"][place])
            blocks = [name for name in found if name.startswith("block.")]
            answer["block_saliency"] = [found[name][place].numpy() for name in blocks]
            answers.append(answer)
        return answers

    def _pixels(self, values: torch.Tensor) -> torch.Tensor:
        """Pixel values [C, H, W] without the image processor's normalisation, in [0, 1]."""
        values = values.float()
        if self.image_processor.do_normalize:
            mean, std = (
                values.new_tensor(s) for s in (self.image_processor.image_mean, self.image_processor.image_std)
            )
            values = values * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
        return values.clamp(0, 1)


class TextSaliencyPipeline(SaliencyPipeline, ChunkPipeline):
    """Answers for texts:

    a list of dicts of `label`, `score`, `target` (its index), `logit`, `explained`, `words` (in reading order, dicts of
    `text`, `start`, `end` in characters, and `score`), `special` (the share of [CLS] and [SEP]), `truncated`, and
    `windows` (how many the text took). Word scores and `special` add up to `explained` where the map is exact.
    Arguments, at construction or at a call:

    Args:
        top_k: how many labels to answer with, 1 by default, None for all.
        target: a label or its index instead of the best ones; "all".
        long_text: "truncate" (with a warning) or "windows". The logits of a text in windows are the windows' mean,
            weighed by their tokens, and so are its maps, which are therefore as exact as those of one window.
        overlap: tokens that a window shares with the one before.
        max_length: tokens of a window with [CLS] and [SEP]; None for as many as model and tokenizer take.
        others: of `generate_saliency`; `normalize` scales the token map before it is added up to words.
    """

    _load_tokenizer = True
    _load_image_processor = False
    main_input = "input_ids"
    item_options = ("long_text", "overlap", "max_length")

    def _sanitize_parameters(self, **given):
        if given.get("upsample") is False:
            raise ValueError("upsample must be True for texts: words are made from the combined map.")
        before, options, after = super()._sanitize_parameters(**given)
        if before.get("long_text", "windows") not in ("truncate", "windows"):
            raise ValueError(f"long_text must be 'truncate' or 'windows', got {before['long_text']!r}.")
        return before, options, after

    def preprocess(self, text, long_text="truncate", overlap=32, max_length=None):
        if not isinstance(text, str):
            raise TypeError(f"text must be one string, got {type(text).__name__}; pass a dataset's column of texts.")
        longest = min(self.tokenizer.model_max_length, self.model.max_tokens)
        content = (longest if max_length is None else max_length) - self.tokenizer.num_special_tokens_to_add()
        if not 1 <= content <= longest - self.tokenizer.num_special_tokens_to_add():
            raise ValueError(f"max_length must leave room for a token and be at most {longest}, got {max_length}.")
        if type(overlap) is not int or not 0 <= overlap < content:
            raise ValueError(f"overlap must lie in [0, {content - 1}], below a window's tokens; got {overlap!r}.")
        encoded = self.tokenizer(
            text,
            truncation=True,
            max_length=content + self.tokenizer.num_special_tokens_to_add(),
            stride=overlap,
            return_overflowing_tokens=True,
            return_attention_mask=True,
        )
        windows = encoded.encodings
        if not windows or self.tokenizer.truncation_side != "right":
            raise ValueError("tokenizer must be a fast one (use_fast=True) that truncates on the right side.")
        cut = long_text == "truncate" and len(windows) > 1
        if cut:
            warnings.warn(
                f"a text of {len(text)} characters exceeds {content} tokens: the rest is cut off and gets no saliency; "
                "long_text='windows' reads all of it.",
                stacklevel=2,
            )
            windows = windows[:1]
        names = [name for name in (*self.tokenizer.model_input_names, "attention_mask") if name in encoded]
        for number, window in enumerate(windows):
            inputs = {name: torch.tensor([encoded[name][number]]) for name in names}
            place = {"encoding": window, "start": number * (content - overlap), "is_last": window is windows[-1]}
            yield inputs | place | {"text": text, "cut": cut}

    def _forward(self, inputs, target=None, top_k=1, normalize=None, **options):
        carried = {name: inputs.pop(name) for name in ("encoding", "start", "is_last", "text", "cut")}
        found = self.model.generate_saliency(**inputs, **options, target="all" if target is None else target)
        single = found.explained.ndim == 1
        explained, maps = (values[:, None] if single else values for values in (found.explained, found.saliency))
        valid = inputs["attention_mask"].bool()
        return {"logits": found.logits, "explained": explained, "saliency": maps, "valid": valid, **carried}

    def postprocess(self, windows, target=None, top_k=1, normalize=None):
        tokens = [max(1, window["encoding"].special_tokens_mask.count(0)) for window in windows]
        weights = torch.tensor(tokens) / sum(tokens)
        logits, explained = (
            sum(weight * window[name][0] for weight, window in zip(weights, windows))
            for name in ("logits", "explained")
        )
        ranked = logits.argsort(descending=True, stable=True).tolist()
        answers = []
        for label in [target] if type(target) is int else ranked[: None if target == "all" else top_k]:
            row = label if len(explained) > 1 else 0
            answer = self._answer(label, logits, explained[row])
            answer["words"], answer["special"] = word_scores(windows, weights.tolist(), row, normalize)
            answers.append(answer | {"truncated": windows[0]["cut"], "windows": len(windows)})
        return answers


def word_scores(windows: list[dict], weights: list[float], row: int, normalize: str | None) -> tuple[list[dict], float]:
    """Words, as dicts, and the special tokens' share of a text: the weighed sum of its windows' token maps.

    A token stands at (0, place) before the text, at (1, place) in it, or at (2, place) behind it; windows add up there.
    """
    scores, tokens = {}, {}
    for window, weight in zip(windows, weights):
        encoding, mask = window["encoding"], window["encoding"].special_tokens_mask
        own = [place for place, special in enumerate(mask) if not special]
        first, last = (own[0], own[-1]) if own else (len(mask), len(mask))
        values = weight * window["saliency"][0, row][window["valid"][0]].double()
        for place, value in enumerate(values.tolist()):
            if first <= place <= last:
                key = (1, window["start"] + place - first)
                tokens[key] = (encoding.offsets[place], encoding.word_ids[place])
            else:
                key = (0, place) if place < first else (2, place - last)
            scores[key] = scores.get(key, 0.0) + value
    keys = sorted(scores)
    values = torch.tensor([scores[key] for key in keys], dtype=torch.float64)
    if normalize:
        values = normalize_map(values[None, None], normalize)[0, 0]
    offsets, word_ids = zip(*(tokens.get(key, ((0, 0), None)) for key in keys))
    found = words_from_tokens(windows[0]["text"], offsets, word_ids, values.tolist())
    return [vars(word) for word in found.words], found.special
