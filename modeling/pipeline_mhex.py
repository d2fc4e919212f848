"""Pipelines that answer with label, score and the saliency of the class, for images, texts and signals.

    pipeline("image-saliency", model=repository, revision=commit, trust_remote_code=True)("picture.png")
    pipeline("text-saliency", model=repository, revision=commit, trust_remote_code=True)("great phone", top_k=2)
    pipeline("signal-saliency", model=repository, revision=commit, trust_remote_code=True)(spectrum)

Every item gets a list of dicts, the best label first. They take the arguments of `generate_saliency`; the map (or the
words and the special tokens) of an answer adds up to `explained`.
"""

import math
import struct
import warnings

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import Pipeline
from transformers.image_transforms import to_pil_image
from transformers.image_utils import load_image, to_numpy_array
from transformers.pipelines.base import ChunkPipeline

from .mhex_maps import check_blocks, check_names, combine_maps, decay_factors, normalize_map
from .mhex_words import ExplainedText, own_places, read_texts, token_places, words_of_pair

SALIENCY_OPTIONS = (
    "target",
    "contrast",
    "blocks",
    "decay",
    "normalize",
    "upsample",
    "rollout",
    "refine",
    "mask_token_id",
)
CONTRASTS = ("mean", "runner_up", "softmax")
FOR, AGAINST = (0.80, 0.09, 0.11), (0.07, 0.33, 0.78)  # red and blue, RGB
ORIENTATION = 0x0112  # in EXIF
UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF orientation: PIL's number of the transposition
SHALLOW_FILES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp")  # never hold more than 8 bits a band


def scores_of(logits: torch.Tensor, config) -> torch.Tensor:
    """Logits [..., K] as the stock pipelines score them: softmax, sigmoid for several labels, regression as it is."""
    if config.problem_type == "regression":
        return logits
    several = config.problem_type == "multi_label_classification" or config.num_labels == 1
    return logits.sigmoid() if several else logits.softmax(-1)


def read_picture(value, num_channels: int | None = None, name: str = "the image"):
    """A picture upright, 8 bits a band, in as many bands as a model reads: PIL "L" or "RGB", or an array [H, W, bands].

    Deeper pixels are scaled, never clipped; transparency is laid on white. See `hf_mhex.data.images.read_image`.

    Args:
        value: PIL image, or array or tensor [H, W], [H, W, bands] or [bands, H, W].
        num_channels: 1 or 3 gives a PIL image, another number an array; None keeps gray gray and makes others "RGB".
        name: of the image, for errors.

    Raises ValueError for pixels that cannot be and for other numbers of bands.
    """
    if hasattr(value, "getbands"):
        try:
            turn = UPRIGHT.get(value.getexif().get(ORIENTATION))
        except (SyntaxError, struct.error, ValueError):  # EXIF that is broken; the pixels need not be
            turn = None
        if turn is not None:
            value = value.transpose(turn)
            for entry in ("exif", "xmp", "XML:com.adobe.xmp"):
                value.info.pop(entry, None)
        if value.mode[0] in "IF":
            pixels = to_bytes(to_numpy_array(value), (1, 255) if value.mode == "F" else (65535,), name)
            value = to_pil_image(pixels[..., None], do_rescale=False, input_data_format="channels_last")
    else:
        value = _from_array(value, num_channels, name)
    bands = len(value.getbands()) if hasattr(value, "getbands") else value.shape[-1]
    if not hasattr(value, "getbands") and num_channels in (None, bands):
        return value
    if num_channels not in (None, 1, 3) and bands == num_channels:
        return to_numpy_array(value)
    if not hasattr(value, "getbands") or num_channels not in (None, 1, 3):
        raise ValueError(f"{name} has {bands} bands, but the model reads {num_channels}.")
    gray = value.mode in ("1", "L", "LA", "La")
    if value.has_transparency_data:
        seen = value.convert("RGBA")
        value = seen.copy()
        value.paste("white", (0, 0, *seen.size))
        value.alpha_composite(seen)
    wanted = {1: "L", 3: "RGB", None: "L" if gray else "RGB"}[num_channels]
    return value if value.mode == wanted else value.convert(wanted)


def _from_array(value, num_channels: int | None, name: str):
    """A PIL image of 1, 3 or 4 bands, an array of bytes for other numbers of them."""
    pixels = to_numpy_array(value.detach().cpu().float() if getattr(value, "dtype", None) == torch.bfloat16 else value)
    if pixels.ndim == 3 and pixels.shape[2] != num_channels:
        first, _, last = pixels.shape
        if first <= 5 < last or (first == num_channels and last not in (1, 3, 4)):
            pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    kind = pixels.dtype.kind
    if pixels.ndim != 3 or not pixels.size or kind not in "buif":
        raise ValueError(f"{name} must be numbers [H, W] or [H, W, bands], got {pixels.dtype} {list(pixels.shape)}.")
    tops = {"b": (1,), "f": (1, 255)}.get(kind, (65535,) if pixels.dtype == "uint16" else (255, 65535))
    pixels = to_bytes(pixels, tops, name)
    shown = pixels.shape[2] in (1, 3, 4)
    return to_pil_image(pixels, do_rescale=False, input_data_format="channels_last") if shown else pixels


def to_bytes(pixels, tops: tuple[int, ...], name: str):
    """An array as bytes, scaled from [0, top] for the first top that holds it all, else from its own range."""
    if pixels.dtype == "uint8":
        return pixels
    pixels = pixels.astype("float64")
    low, high = pixels.min(), pixels.max()
    if not math.isfinite(low + high):
        raise ValueError(f"{name} holds values that are not finite.")
    top = next((top for top in tops if low >= 0 and high <= top), None)
    low, width = (low, high - low) if top is None else (0.0, float(top))
    return ((pixels - low) * (255 / (width or 1.0))).round().astype("uint8")


def load_picture(source: str, num_channels: int, timeout: float | None = None):
    """The image of a path, URL or data URI as transformers loads it: upright, three bands of 8 bits.

    That is all that code of the Hub may open. What it would spoil is refused by ValueError: other numbers of bands, and
    gray pictures that were cut off to white, or to 0 and 1, because their file has more bits; and broken EXIF.
    """
    cure = "open it first, image = PIL.Image.open(path), and pass the image"
    name = repr(source if len(source) < 200 else source[:60] + "...")
    try:
        image = load_image(source, timeout=timeout)
    except (SyntaxError, struct.error) as error:
        raise ValueError(f"{name} has EXIF that cannot be read ({error}); {cure}.") from error
    if num_channels not in (1, 3):
        raise ValueError(f"{name} is read as 3 bands, but the model reads {num_channels}; {cure}.")
    if not source.lower().endswith(SHALLOW_FILES):
        pixels = to_numpy_array(image)
        lit = pixels[pixels > 0]
        if (pixels == pixels[..., :1]).all() and lit.size and (lit.max() == 1 or (lit == 255).mean() > 0.5):
            raise ValueError(f"{name} may hold more than 8 bits, of which only these are read; {cure}.")
    return image


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


def paint_signal(signal: torch.Tensor, saliency: torch.Tensor, width: int = 640, height: int = 200):
    """A PIL image of a signal [L] as a line, red where its map [L] speaks for the label and blue where against it."""
    size = saliency.abs().max()
    shades = saliency / size if size > 0 else torch.zeros_like(saliency)
    columns = (torch.arange(width) * (len(signal) - 1) / (width - 1)).round().long()
    low, high = signal.min(), signal.max()
    rows = (height - 9) * (1 - (signal[columns] - low) / (high - low).clamp(min=1e-12)) + 4
    tops, bottoms = torch.minimum(rows[:-1], rows[1:]), torch.maximum(rows[:-1], rows[1:])
    tops, bottoms = (torch.cat([edge[:1], edge]) for edge in (tops, bottoms))
    places = torch.arange(height)[:, None]
    on_line = (places >= (tops - 1)[None]) & (places <= (bottoms + 1)[None])
    strength = shades[columns]
    colour = torch.where((strength < 0)[:, None], signal.new_tensor(AGAINST), signal.new_tensor(FOR))
    faint = strength.abs()[:, None]
    ground = (1 - 0.35 * faint) + 0.35 * faint * colour
    line = 0.55 * (1 - faint) + faint * colour
    painted = torch.where(on_line[..., None], line[None], ground[None].expand(height, -1, -1))
    return to_pil_image((255 * painted.clamp(0, 1)).round().byte().numpy(), do_rescale=False)


class Stream(IterableDataset):
    """Items that are read as they are asked for, as older releases of transformers do not read a generator."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class SaliencyPipeline(Pipeline):
    """Base of the pipelines: takes items of any kind of collection, reads the arguments, makes the answers."""

    _load_processor = False
    _load_feature_extractor = False
    _load_video_processor = False
    main_input = ""
    item_options: tuple[str, ...] = ()  # arguments of `preprocess`

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "generate_saliency") or self.model.main_input_name != self.main_input:
            raise ValueError(f"model must be an MHEX classifier of {self.main_input}, got {type(self.model).__name__}.")

    def __call__(self, inputs, **kwargs):
        """Answer one item; a list or tuple at once; a dataset, a column of one or another iterable as a stream."""
        if isinstance(inputs, (list, tuple)):
            return super().__call__(list(inputs), **kwargs) if len(inputs) else []
        single = isinstance(inputs, (str, bytes, dict, torch.Tensor)) or hasattr(inputs, "__array_interface__")
        if not single and not isinstance(inputs, Dataset) and hasattr(inputs, "__iter__"):
            inputs = Stream(inputs)
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
            options["target"] = self._label_index("target", options["target"])
        if isinstance(options.get("contrast"), str) and options["contrast"] not in CONTRASTS:
            options["contrast"] = self._label_index("contrast", options["contrast"])
        after = {name: options[name] for name in ("target", "top_k", "normalize") if name in options}
        return before, options, after

    def _label_index(self, argument: str, label) -> int:
        indices = {name: index for index, name in self.model.config.id2label.items()}
        index = indices.get(label, label) if isinstance(label, str) else label
        if type(index) is not int or not 0 <= index < len(indices):
            words = ", ".join(map(repr, ("all",) if argument == "target" else CONTRASTS))
            cure = f"None, {words}, a label ({', '.join(indices)}) or its index, up to {len(indices) - 1}"
            raise ValueError(f"{argument} must be {cure}; got {label!r}.")
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
    """Answers for images (PIL of any mode, array or tensor, path, URL; see `read_picture` and `load_picture`):

    a list of dicts of `label`, `score`, `target` (its index), `logit`, `explained`, `saliency` (array [H, W] over the
    pixels that the network sees, after resizing and cropping), `overlay` (PIL image of these pixels under the map) and
    `block_saliency` (an array [h, w] for each block). Arguments, at construction or at a call:

    Args:
        top_k: how many labels to answer with, 1 by default, None for all.
        target: a label or its index instead of the best ones; "all". contrast: may be a label too.
        timeout: seconds to wait for an image from the web.
        others: of `generate_saliency`; with `upsample=False` the answers have no `saliency` and no `overlay`.
    """

    _load_tokenizer = False
    _load_image_processor = True
    main_input = "pixel_values"
    item_options: tuple[str, ...] = ("timeout",)

    def preprocess(self, image, timeout=None):
        if isinstance(image, dict):
            raise TypeError("image must be one image, got a dict; pass the dataset's column of images.")
        channels = self.model.config.num_channels
        picture = read_picture(load_picture(image, channels, timeout) if isinstance(image, str) else image, channels)
        layout = {} if hasattr(picture, "getbands") else {"input_data_format": "channels_last"}
        return self.image_processor(images=picture, return_tensors="pt", **layout).to(self.dtype)

    def _forward(
        self, inputs, target=None, top_k=1, normalize=None, upsample=True, decay=None, refine=False, **options
    ):
        values = inputs[self.main_input]
        every = target == "all" or (target is None and top_k != 1)
        options |= {"target": "all" if every else target, "decay": decay, "refine": refine}
        found = self.model.generate_saliency(**inputs, **options, upsample=refine and upsample)
        kept = {"target": found.target, "explained": found.explained}
        kept |= {f"block.{number}": values for number, values in enumerate(found.block_saliency)}
        if every:
            count = found.logits.shape[-1]
            best = found.logits.argsort(dim=-1, descending=True, stable=True)[:, : count if target else top_k]
            rows = torch.arange(len(best), device=best.device)[:, None]
            kept = {name: values[rows, best] for name, values in kept.items()}
        else:
            kept = {name: values[:, None] for name, values in kept.items()}
        if refine:
            kept["saliency"] = found.saliency[:, None]
        elif upsample:
            maps = [values for name, values in kept.items() if name.startswith("block.")]
            depths = check_blocks(options.get("blocks"), self.model.num_blocks)
            factors = decay_factors(depths, self.model.config.head_decay if decay is None else decay)
            kept["saliency"] = combine_maps(maps, factors, tuple(values.shape[2:]))
        if normalize and "saliency" in kept:
            kept["saliency"] = normalize_map(kept["saliency"], normalize)
        return {"logits": found.logits, **kept, self.main_input: values}

    def postprocess(self, found, target=None, top_k=1, normalize=None):
        found = {name: values[0] for name, values in found.items()}
        answers = []
        for place, label in enumerate(found["target"].tolist()):
            answer = self._answer(label, found["logits"], found["explained"][place])
            if "saliency" in found:
                answer["saliency"] = found["saliency"][place].numpy()
                answer["overlay"] = self._paint(found[self.main_input], found["saliency"][place])
            blocks = [name for name in found if name.startswith("block.")]
            answer["block_saliency"] = [found[name][place].numpy() for name in blocks]
            answers.append(answer)
        return answers

    def _paint(self, values: torch.Tensor, saliency: torch.Tensor):
        """Pixel values [C, H, W] without the image processor's normalisation, under a map [H, W]."""
        values = values.float()
        if self.image_processor.do_normalize:
            mean, std = (
                values.new_tensor(s) for s in (self.image_processor.image_mean, self.image_processor.image_std)
            )
            values = values * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
        return paint_map(values.clamp(0, 1), saliency)


class SignalSaliencyPipeline(ImageSaliencyPipeline):
    """Answers for signals (arrays or tensors [L] or [C, L]; a list is several of them):

    a list of dicts as `ImageSaliencyPipeline` gives, with `saliency` [L], `block_saliency` [L'] for each block, and
    `overlay`, the first channel as a line coloured by the map. Arguments: `top_k`, `target` and those of
    `generate_saliency`.
    """

    _load_image_processor = False
    _load_feature_extractor = True
    main_input = "input_values"
    item_options: tuple[str, ...] = ()

    def preprocess(self, signal):
        if isinstance(signal, (dict, str)) or not hasattr(signal, "__len__"):
            raise TypeError(f"signal must be an array of numbers, got {type(signal).__name__}.")
        found = self.feature_extractor(signal, return_tensors="pt").to(self.dtype)
        if len(found[self.main_input]) != 1:
            raise ValueError(f"signal must be [L] or [C, L], got {len(found[self.main_input])} of them; pass a list.")
        return found

    def _paint(self, values: torch.Tensor, saliency: torch.Tensor):
        return paint_signal(self.feature_extractor.restore(values)[0].float(), saliency)


class TextSaliencyPipeline(SaliencyPipeline, ChunkPipeline):
    """Answers for texts, and for pairs of them as dicts of `text` and `text_pair`:

    a list of dicts of `label`, `score`, `target` (its index), `logit`, `explained`, `words` (in reading order, dicts of
    `text`, `start`, `end` in characters of its text, `score`, and `segment`, 1 in a pair's second text), `special` (the
    share of [CLS] and [SEP]), `truncated`, and `windows` (how many the text took). Word scores and `special` add up to
    `explained`. Arguments, at construction or at a call:

    Args:
        top_k: how many labels to answer with, 1 by default, None for all.
        target: a label or its index instead of the best ones; "all". contrast: may be a label too.
        long_text: "truncate" (with a warning) or, for single texts, "windows". The logits of a text in windows are the
            windows' mean, weighed by their tokens, and so are its maps, which are as exact as those of one window.
        overlap: tokens that a window shares with the one before; None for 32, or half of a window that has no room.
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

    def preprocess(self, text, long_text="truncate", overlap=None, max_length=None):
        text, pair = read_texts(text)
        longest = min(self.tokenizer.model_max_length, self.model.max_tokens)
        special = self.tokenizer.num_special_tokens_to_add(pair=pair is not None)
        content = (longest if max_length is None else max_length) - special
        if not 1 <= content <= longest - special:
            raise ValueError(f"max_length must leave room for a token and be at most {longest}, got {max_length}.")
        if overlap is None:
            overlap = 32 if content > 32 else content // 2
        if type(overlap) is not int or not 0 <= overlap < content:
            raise ValueError(f"overlap must lie in [0, {content - 1}], below a window's tokens; got {overlap!r}.")
        split = {"stride": overlap, "return_overflowing_tokens": True} if pair is None else {}
        encoded = self.tokenizer(
            [text],
            None if pair is None else [pair],
            truncation=True,
            max_length=content + special,
            return_attention_mask=True,
            **split,
        )
        windows = encoded.encodings
        if not windows or self.tokenizer.truncation_side != "right":
            raise ValueError("tokenizer must be a fast one (use_fast=True) that truncates on the right side.")
        cut = len(windows) > 1 if pair is None else bool(windows[0].overflowing)
        if cut and pair is not None and long_text == "windows":
            raise ValueError("long_text='windows' reads single texts, and this pair is too long; use 'truncate'.")
        cut = cut and long_text == "truncate"
        if cut:
            warnings.warn(
                f"a text of {len(text) + len(pair or '')} characters exceeds {content} tokens: the rest is cut off and "
                "gets no saliency" + ("; long_text='windows' reads all of it." if pair is None else "."),
                stacklevel=2,
            )
            windows = windows[:1]
        names = [name for name in (*self.tokenizer.model_input_names, "attention_mask") if name in encoded]
        for number, window in enumerate(windows):
            inputs = {name: torch.tensor([encoded[name][number]]) for name in names}
            place = {"encoding": window, "start": number * (content - overlap), "is_last": window is windows[-1]}
            yield inputs | place | {"texts": (text, pair), "cut": cut}

    def _forward(self, inputs, target=None, top_k=1, normalize=None, refine=False, **options):
        carried = {name: inputs.pop(name) for name in ("encoding", "start", "is_last", "texts", "cut")}
        labels = ["all" if target is None else target]
        if refine:
            options["refine"] = refine
            if options.get("mask_token_id") is None:
                options["mask_token_id"] = self.tokenizer.mask_token_id
            starts, ends = (carried[name] for name in ("start", "is_last"))
            whole = not any(starts) and all(ends) if isinstance(starts, list) else starts == 0 and ends
            if target is None and top_k == 1 and whole:
                labels = [None]
            elif target in (None, "all"):  # the best labels are known when all windows are
                labels = torch.arange(self.model.config.num_labels).unbind()
        found = [self.model.generate_saliency(**inputs, **options, target=label) for label in labels]
        explained = torch.cat([one.explained.view(len(one.logits), -1) for one in found], 1)
        maps = torch.cat([one.saliency.view(len(one.logits), -1, one.saliency.shape[-1]) for one in found], 1)
        valid = inputs["attention_mask"].bool()
        return {"logits": found[0].logits, "explained": explained, "saliency": maps, "valid": valid, **carried}

    def postprocess(self, windows, target=None, top_k=1, normalize=None):
        weights, logits, explained = join_windows(windows)
        ranked = logits.argsort(descending=True, stable=True).tolist()
        answers = []
        for label in [target] if type(target) is int else ranked[: None if target == "all" else top_k]:
            row = label if len(explained) > 1 else 0
            answer = self._answer(label, logits, explained[row])
            found = word_scores(windows, token_scores(windows, weights, row, normalize))
            answer["words"] = [vars(word) for word in own_places(windows[0]["texts"][0], found.words)]
            answer["special"] = found.special
            answers.append(answer | {"truncated": windows[0]["cut"], "windows": len(windows)})
        return answers


def join_windows(windows: list[dict]) -> tuple[list[float], torch.Tensor, torch.Tensor]:
    """The windows' weights, by their tokens, and with them the means of their logits [K] and of `explained` [R].

    Maps are joined with the same weights (`token_scores`), and so add up to what the joined `explained` says.
    """
    tokens = [max(1, window["encoding"].special_tokens_mask.count(0)) for window in windows]
    weights = torch.tensor(tokens) / sum(tokens)
    logits, explained = (
        sum(weight * window[name][0] for weight, window in zip(weights, windows)) for name in ("logits", "explained")
    )
    return weights.tolist(), logits, explained


def token_scores(
    windows: list[dict], weights: list[float], row: int, normalize: str | None = None
) -> tuple[torch.Tensor, tuple, tuple]:
    """The map of a text in windows [T], the weighed sum of theirs, and its tokens' offsets and words.

    A token stands at (0, place) before the text, at (1, place) in it, or at (2, place) behind it; windows add up there.
    """
    text, pair = windows[0]["texts"]
    scores: dict[tuple[int, int], float] = {}
    tokens = {}
    for window, weight in zip(windows, weights):
        encoding, mask = window["encoding"], window["encoding"].special_tokens_mask
        own = [place for place, special in enumerate(mask) if not special]
        first, last = (own[0], own[-1]) if own else (len(mask), len(mask))
        offsets, word_ids = token_places(text, pair, encoding)
        values = weight * window["saliency"][0, row][window["valid"][0]].double()
        for place, value in enumerate(values.tolist()):
            if first <= place <= last:
                key = (1, window["start"] + place - first)
                tokens[key] = (offsets[place], word_ids[place])
            else:
                key = (0, place) if place < first else (2, place - last)
            scores[key] = scores.get(key, 0.0) + value
    keys = sorted(scores)
    values = torch.tensor([scores[key] for key in keys], dtype=torch.float64)
    if normalize:
        values = normalize_map(values[None, None], normalize)[0, 0]
    found = [tokens.get(key, ((0, 0), None)) for key in keys]
    return values, tuple(offset for offset, _ in found), tuple(word for _, word in found)


def word_scores(windows: list[dict], found: tuple[torch.Tensor, tuple, tuple]) -> ExplainedText:
    """The words that an answer of `token_scores` falls on."""
    values, offsets, word_ids = found
    text, pair = windows[0]["texts"]
    return words_of_pair(text, pair, offsets, word_ids, values.tolist())
