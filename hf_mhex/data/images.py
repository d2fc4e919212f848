"""Reading of images: whatever people have, as the pixels that training, explaining and showing all see."""

from __future__ import annotations

import io
import warnings
from os import PathLike, fspath

import numpy as np
import torch
from PIL import Image, ImageOps

GRAY = ("1", "L")


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
    elif not isinstance(value, Image.Image):
        value = _from_array(value, name)
    if isinstance(value, Image.Image):
        value = ImageOps.exif_transpose(_shallow(value, name))
    bands = value.shape[-1] if isinstance(value, np.ndarray) else len(value.getbands())
    if isinstance(value, np.ndarray) and num_channels in (None, bands):
        return value
    if num_channels not in (None, 1, 3) and bands == num_channels:
        return np.array(value)
    if isinstance(value, np.ndarray) or num_channels not in (None, 1, 3):
        raise ValueError(f"{name} has {bands} bands, but the model reads {num_channels}.")
    if value.has_transparency_data:
        seen = value.convert("RGBA")
        value = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert(
            "L" if value.mode in (*GRAY, "LA", "La") else "RGB"
        )
    wanted = {1: "L", 3: "RGB", None: "L" if value.mode in GRAY else "RGB"}[num_channels]
    return value if value.mode == wanted else value.convert(wanted)


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


def _from_array(value, name: str) -> Image.Image | np.ndarray:
    """A PIL image of 1, 3 or 4 bands, an array of bytes for other numbers of them."""
    pixels = value.detach().cpu() if isinstance(value, torch.Tensor) else value
    pixels = np.asarray(pixels.float() if getattr(pixels, "dtype", None) == torch.bfloat16 else pixels)
    if pixels.ndim == 3 and pixels.shape[0] <= 5 < pixels.shape[2]:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or not pixels.size or pixels.dtype.kind not in "buif":
        raise ValueError(f"{name} must be numbers [H, W] or [H, W, bands], got {pixels.dtype} {list(pixels.shape)}.")
    tops = {"u2": (65535,), "b1": (1,)}.get(
        pixels.dtype.str[1:], (1, 255) if pixels.dtype.kind == "f" else (255, 65535)
    )
    pixels = _to_bytes(pixels, tops, name)
    return Image.fromarray(pixels) if pixels.ndim == 2 or pixels.shape[2] in (3, 4) else pixels


def _shallow(image: Image.Image, name: str) -> Image.Image:
    """An image of a mode deeper than 8 bits as "L", others as they are; what EXIF says of it stays."""
    if image.mode[0] not in "IF":
        return image
    tops = (1, 255) if image.mode == "F" else (65535,)
    shallow = Image.fromarray(_to_bytes(np.asarray(image), tops, name))
    if exif := image.getexif():
        shallow.info["exif"] = exif.tobytes()
    return shallow


def _to_bytes(pixels: np.ndarray, tops: tuple[int, ...], name: str) -> np.ndarray:
    """Numbers as bytes, scaled from [0, top] for the first top that holds them all, else from their own range."""
    if pixels.dtype == np.uint8:
        return pixels
    pixels = pixels.astype(np.float64)
    low, high = pixels.min(), pixels.max()
    if not np.isfinite(low + high):
        raise ValueError(f"{name} holds values that are not finite.")
    top = next((top for top in tops if low >= 0 and high <= top), None)
    low, width = (low, high - low) if top is None else (0.0, float(top))
    return np.rint((pixels - low) * (255 / (width or 1.0))).astype(np.uint8)
