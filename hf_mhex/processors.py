"""Processors that belong to a model: stock ones, and the limits that model and processor share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor
from numbers import Real
from os import PathLike, fspath

import numpy as np
import torch
from PIL import Image

from hf_mhex.environment import downloading
from hf_mhex.families import KINDS, family_of
from hf_mhex.loading import file_of

INTERPOLATIONS = tuple(name.lower() for name in Image.Resampling.__members__)


def make_processor(model, source=None, revision: str | None = None, image_size: int | None = None):
    """The processor of a converted model: its source's tokenizer, or the image processor of its configuration."""
    if model.main_input_name == "pixel_values":
        return image_processor_for(model.config, image_size)
    from transformers import AutoTokenizer

    with downloading(f"the tokenizer of {source!r}"):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    tokenizer.model_max_length = max_length(model, tokenizer)
    return tokenizer


def check_processor(model, processor) -> None:
    """TypeError for a processor that does not make the model's input, as one of another kind."""
    kind = family_of(model).input
    if kind.main_input not in (getattr(processor, "model_input_names", None) or ()):
        raise TypeError(
            f"processor must be the {kind.processor} of this model of {kind.name}s, which makes {kind.main_input}; got "
            f"{type(processor).__name__}. hf_mhex.load gives a model with its own."
        )


def max_length(model, tokenizer, wanted: int | None = None) -> int:
    """Longest text in tokens that model and tokenizer take, at most `wanted`."""
    return min(tokenizer.model_max_length, model.max_tokens, model.max_tokens if wanted is None else wanted)


def image_processor_for(
    config,
    image_size: int | Sequence[int] | None = None,
    crop_pct: float | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
):
    """Resize the shorter edge to `image_size / crop_pct`, crop the centre, scale to [0, 1] and normalise.

    What is not given comes from `config.preprocessing`, which conversion takes from its source, else from timm's data
    config of `config.architecture` (its tag, where the name has one). Images of the crop mode "squash", and of a size
    that is not square, are resized to `image_size / crop_pct` without keeping their shape. Gray models (`num_channels`
    1) get the average of the three means and stds, and take gray images only: the stock pipelines read every image as
    RGB. Where the margin of the crop is odd, its centre lies one pixel from timm's.

    Args:
        image_size: height and width of the model's input, pixels: one int, or the two of them.
        crop_pct: share of the resized image's shorter edge that the crop keeps, in (0, 1].
        mean, std: one value a channel, for pixels in [0, 1].

    Raises ValueError for an image_size, crop_pct, mean or std that cannot be, and for a crop mode or an interpolation
    of `config.preprocessing` that the processor does not have.
    """
    import timm
    from timm.data import resolve_data_config
    from transformers import BitImageProcessor

    channels, own = config.num_channels, getattr(config, "preprocessing", None) or {}
    known = timm.get_pretrained_cfg(config.architecture)
    data = resolve_data_config({"in_chans": channels}, {**(known.to_dict() if known else {}), **own})
    if image_size is None and "input_size" not in own:
        image_size = (config.architecture_kwargs or {}).get("img_size")
    height, width = image_edges(data["input_size"][1:] if image_size is None else image_size)
    crop_pct = data["crop_pct"] if crop_pct is None else crop_pct
    if not isinstance(crop_pct, Real) or not 0 < float(crop_pct) <= 1:
        raise ValueError(f"crop_pct must lie in (0, 1], got {crop_pct!r}.")
    share = float(crop_pct)
    for name, choices in (("crop_mode", ("center", "squash")), ("interpolation", INTERPOLATIONS)):
        if data[name] not in choices:
            raise ValueError(
                f"config.preprocessing[{name!r}] must be one of {', '.join(choices)}, got {data[name]!r}; set it so."
            )
    size = {"height": floor(height / share), "width": floor(width / share)}
    squash = data["crop_mode"] == "squash" or height != width
    statistics = {}
    for name, given in (("mean", mean), ("std", std)):
        values = data[name] if given is None else given
        values = list(values) if isinstance(values, Iterable) else [values]
        numbers = all(isinstance(value, Real) for value in values)
        if given is None and numbers and channels != len(values):
            values = [sum(values) / len(values)] * channels
        if len(values) != channels or not numbers or (name == "std" and min(values) <= 0):
            raise ValueError(f"{name} must be {channels} values, one a channel (std above 0), got {values}.")
        statistics[name] = values
    return BitImageProcessor(
        size=size if squash else {"shortest_edge": size["height"]},
        crop_size={"height": height, "width": width},
        resample=Image.Resampling[data["interpolation"].upper()],
        image_mean=statistics["mean"],
        image_std=statistics["std"],
        do_convert_rgb=channels == 3,
    )


def image_edges(size) -> tuple[int, int]:
    """Height and width of an image's size: one int, or the two of them; ValueError for another."""
    pair = size if isinstance(size, (list, tuple)) else (size, size)
    if len(pair) != 2 or not all(type(edge) is int and edge >= 1 for edge in pair):
        raise ValueError(f"image_size must be at least 1 pixel, got {size!r}; give one int, or height and width.")
    return pair[0], pair[1]


def preprocessing_of(source: str | PathLike, revision: str | None = None) -> dict:
    """How the image processor beside a transformers checkpoint makes images, as `config.preprocessing` says it.

    Without sizes where no image of one size is cut, or its crop leaves another share of the height than of the width.
    Empty where no processor stands there; ConnectionError where the Hub would have to be asked and cannot be.
    """
    from transformers import AutoImageProcessor

    if file_of(source, KINDS["image"].processor_file, revision) is None:
        return {}
    with downloading(f"the image processor of {fspath(source)!r}"):
        processor = AutoImageProcessor.from_pretrained(source, revision=revision)
    mean, std, white = [0.0] * 3, [1.0] * 3, 255 * (processor.rescale_factor if processor.do_rescale else 1)
    if processor.do_normalize:
        mean, std = processor.image_mean, processor.image_std
    found = {
        "mean": [value / white for value in mean],
        "std": [value / white for value in std],
        "interpolation": Image.Resampling(processor.resample).name.lower(),
    }
    size = dict(processor.size)
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else size
    if not processor.do_resize or not {"height", "width"} <= crop.keys():
        return found
    height, width = crop["height"], crop["width"]
    square = height == width and size.keys() == {"shortest_edge"}
    scaled = (size["shortest_edge"],) * 2 if square else (size.get("height", 0), size.get("width", 0))
    crop_pct = 1.0 if scaled == (height, width) else height / (scaled[0] + 0.5)  # rounded down, scaled[0] comes again
    if crop_pct > 1 or floor(width / crop_pct) != scaled[1]:
        return found
    mode = "center" if square else "squash"
    return found | {"input_size": [len(mean), height, width], "crop_pct": crop_pct, "crop_mode": mode}


def restore_image(pixel_values: torch.Tensor, processor) -> np.ndarray:
    """The picture that the model saw: pixel_values [C, H, W] without the normalisation, uint8 [H, W, C]."""
    pixels = pixel_values.detach().float().cpu()
    if getattr(processor, "do_normalize", True):
        mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
        pixels = pixels * std + mean
    return (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
