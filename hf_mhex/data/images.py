"""Reading of images: whatever people have, as the pixels that training, explaining and showing all see."""

from __future__ import annotations

import io
import warnings
from os import PathLike, fspath

import numpy as np
import torch
from PIL import Image

from hf_mhex.modeling.pipeline_mhex import read_picture


def read_image(value, num_channels: int | None = None) -> Image.Image | np.ndarray:
    """The image upright, 8 bits a band, in as many bands as a model reads.

    Deeper pixels are scaled, never clipped: 16 bits by 257; 32-bit integers likewise, and floats from [0, 1] or
    [0, 255], but by the picture's own range where a value lies outside. Transparency is laid on white. Of an animation
    the first frame is read, with a warning.

    Args:
        value: PIL image, path, bytes, open file, dict of `bytes` and `path` (as `datasets` has it), or array or tensor
            [H, W], [H, W, bands] or [bands, H, W].
        num_channels: 1 gives a PIL image "L", 3 "RGB"; another number takes images of so many bands and gives an array
            [H, W, bands] of bytes; None gives "L" for gray and "RGB" for other images, arrays of 2 or over 4 bands.

    Raises ValueError, naming the file, for one that cannot be read, and for other numbers of bands; FileNotFoundError.
    """
    name = "the image"
    if isinstance(value, dict):
        name = value.get("path") or name
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise ValueError("the row holds no image.")
    if isinstance(value, (str, PathLike)):
        name = fspath(value)
        value = _open(name, name)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        value = _open(io.BytesIO(value), name)
    elif hasattr(value, "read"):
        value = _open(value, name)
    known = isinstance(value, (Image.Image, torch.Tensor))
    return read_picture(value if known else np.asarray(value), num_channels, name)


def to_pixel_values(image: Image.Image | np.ndarray, processor) -> torch.Tensor:
    """What an image processor makes of an image that was read, [C, H, W]."""
    layout = {"input_data_format": "channels_last"} if isinstance(image, np.ndarray) else {}
    return processor(images=image, return_tensors="pt", **layout)["pixel_values"][0]


def _open(file, name: str) -> Image.Image:
    """The decoded image; Pillow raises many kinds of errors for a broken file."""
    try:
        image = Image.open(file)
        if getattr(image, "is_animated", False) and image.format != "MPO":  # a phone's photograph beside its preview
            warnings.warn("an image is animated or has several pages; the first is read.", stacklevel=3)
        image.load()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{name} is no image that can be read; it is broken or of another kind.") from error
    return image
