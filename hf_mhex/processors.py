"""Processors that belong to a model: stock ones, and the limits that model and processor share."""

from __future__ import annotations

from math import floor

import numpy as np
import torch
from PIL import Image

from hf_mhex.environment import downloading
from hf_mhex.families import family_of


def make_processor(model, source=None, revision: str | None = None, image_size: int | None = None):
    """The processor of a converted model: its source's tokenizer, or an image processor from timm's data config."""
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
    image_size: int | None = None,
    crop_pct: float | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
):
    """Resize the shorter edge to `image_size / crop_pct`, crop the centre, scale to [0, 1] and normalise.

    What is not given comes from timm's data config of `config.architecture` (its tag, where the name has one). Gray
    models (`num_channels` 1) get the average of timm's three means and stds, and take gray images only: the stock
    pipelines read every image as RGB. Where the margin of the crop is odd, its centre lies one pixel from timm's.

    Args:
        image_size: height and width of the model's input, pixels.
        crop_pct: share of the resized image's shorter edge that the crop keeps, in (0, 1].
        mean, std: one value a channel, for pixels in [0, 1].

    Raises ValueError for an image_size, crop_pct, mean or std that cannot be.
    """
    import timm
    from timm.data import resolve_data_config
    from transformers import BitImageProcessor

    channels = config.num_channels
    found = timm.get_pretrained_cfg(config.architecture)
    image_size = (config.architecture_kwargs or {}).get("img_size") if image_size is None else image_size
    data = resolve_data_config({"img_size": image_size} if image_size else {}, found.to_dict() if found else {})
    size = data["input_size"][-1]
    crop_pct = data["crop_pct"] if crop_pct is None else crop_pct
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}.")
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct must lie in (0, 1], got {crop_pct}.")
    statistics = {}
    for name, given in (("mean", mean), ("std", std)):
        values = list(data[name] if given is None else given)
        if given is None and channels != len(values):
            values = [sum(values) / len(values)] * channels
        if len(values) != channels or (name == "std" and min(values) <= 0):
            raise ValueError(f"{name} must be {channels} values, one a channel (std above 0), got {values}.")
        statistics[name] = values
    return BitImageProcessor(
        size={"shortest_edge": floor(size / crop_pct)},
        crop_size={"height": size, "width": size},
        resample=getattr(Image.Resampling, data["interpolation"].upper()),
        image_mean=statistics["mean"],
        image_std=statistics["std"],
        do_convert_rgb=channels == 3,
    )


def restore_image(pixel_values: torch.Tensor, processor) -> np.ndarray:
    """The picture that the model saw: pixel_values [C, H, W] without the normalisation, uint8 [H, W, C]."""
    pixels = pixel_values.detach().float().cpu()
    if getattr(processor, "do_normalize", True):
        mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
        pixels = pixels * std + mean
    return (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
