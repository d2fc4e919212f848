"""read_image gives the pixels that people mean, from whatever they have."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hf_mhex.data.images import read_image, to_pixel_values
from hf_mhex.processors import image_processor_for
from networks import lively_resnet

RAMP = np.linspace(0, 65535, 12 * 8).reshape(8, 12)


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


DEEP = {
    "16-bit PNG": lambda: saved(Image.fromarray(RAMP.astype(np.uint16))),
    "16-bit TIFF": lambda: saved(Image.fromarray(RAMP.astype(np.uint16)), "TIFF"),
    "32-bit integers": lambda: saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    "integers out of range": lambda: saved(Image.fromarray((RAMP * 9 - 70000).astype(np.int32)), "TIFF"),
    "floats to 1": lambda: saved(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF"),
    "floats to 255": lambda: saved(Image.fromarray((RAMP / 257).astype(np.float32)), "TIFF"),
    "floats out of range": lambda: saved(Image.fromarray((RAMP - 1000).astype(np.float32)), "TIFF"),
    "16-bit array": lambda: RAMP.astype(np.uint16),
    "float tensor": lambda: torch.from_numpy(RAMP / 65535)[None],
    "half tensor": lambda: torch.from_numpy(np.rint(RAMP / 257)).to(torch.bfloat16),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_pixels_are_scaled_and_not_clipped(kind):
    found = np.asarray(read_image(DEEP[kind](), 3)).astype(int)
    assert found.shape == (8, 12, 3)
    assert np.abs(found[..., 0] - RAMP / 257).max() <= 0.51


def test_a_dark_16_bit_picture_stays_dark():
    assert np.asarray(read_image(Image.fromarray((RAMP / 300).astype(np.uint16)), 1)).max() == 1


@pytest.mark.parametrize("deep", [False, True])
def test_a_photograph_stands_upright(deep):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    image = Image.fromarray(RAMP.astype(np.uint16)) if deep else Image.fromarray((RAMP / 257).astype(np.uint8))
    data = saved(image, exif=exif)
    for value in (data, {"bytes": data, "path": None}, Image.open(io.BytesIO(data))):
        found = np.asarray(read_image(value, 1))
        assert found.shape == (12, 8)
        assert np.abs(found - np.rot90(RAMP / 257, -1)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF at all", b"Exif\0\0II*\0"])
def test_a_picture_whose_exif_is_broken_is_taken_as_it_stands(kind, exif):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8))
    plain, broken = (saved(image, kind, dpi=(72, 72), **given) for given in ({}, {"exif": exif}))
    for value in (broken, Image.open(io.BytesIO(broken))):
        assert np.array_equal(read_image(value, 3), np.asarray(Image.open(io.BytesIO(plain)).convert("RGB")))


def test_a_picture_whose_raw_profile_is_broken_is_taken_as_it_stands():
    profile = PngInfo()
    profile.add_text("Raw profile type exif", "\nexif\n4\nno hexadecimal")
    image = Image.new("RGB", (4, 4), "red")
    assert np.array_equal(read_image(saved(image, pnginfo=profile), 3), np.asarray(image))


def transparent_palette():
    image = Image.new("P", (4, 4))
    image.putpalette([0, 0, 0, 255, 0, 0])
    return saved(image, transparency=0)


COLOURS = [
    (transparent_palette, (255, 255, 255)),
    (lambda: Image.new("RGBA", (4, 4), (0, 0, 0, 0)), (255, 255, 255)),
    (lambda: Image.new("LA", (4, 4), (0, 51)), (204, 204, 204)),
    (lambda: Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
    (lambda: saved(Image.new("1", (4, 4), 1)), (255, 255, 255)),
    (lambda: np.zeros((4, 4, 4), np.uint8), (255, 255, 255)),
    (lambda: np.full((4, 4), True), (255, 255, 255)),
]


@pytest.mark.parametrize("make, colour", COLOURS)
def test_every_mode_becomes_colour_or_gray(make, colour):
    assert read_image(make(), 3).getpixel((0, 0)) == colour
    gray = read_image(make(), 1)
    assert gray.mode == "L" and abs(gray.getpixel((0, 0)) - np.dot(colour, [0.299, 0.587, 0.114])) <= 1
    assert read_image(make()).mode in ("L", "RGB")


def test_the_first_frame_of_an_animation_is_read_and_it_is_said():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    with pytest.warns(UserWarning, match="animated or has several pages; the first is read"):
        found = read_image(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), 3)
    assert found.getpixel((0, 0)) == (255, 0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(saved(frames[0], "MPO", save_all=True, append_images=frames[1:]), 3)  # a phone's, not animated


@pytest.mark.parametrize("channels", [2, 4, 5, 13])
def test_as_many_bands_as_the_model_has(channels):
    model = lively_resnet(torch.float32, num_channels=channels)
    processor = image_processor_for(model.config, image_size=32)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 36, channels), dtype=np.uint8)
    found = read_image(pixels, channels)
    assert np.array_equal(found, pixels)
    assert np.array_equal(read_image(torch.from_numpy(pixels).permute(2, 0, 1), channels), pixels)
    values = to_pixel_values(found, processor)
    assert values.shape == (channels, 32, 32) and values.std((1, 2)).min() > 0.1
    with pytest.raises(ValueError, match=f"the image has 3 bands, but the model reads {channels}"):
        read_image(Image.new("RGB", (8, 8)), channels)


@pytest.mark.parametrize("shape", [(5, 20, 12), (12, 20, 12), (12, 20, 6)])
def test_bands_stand_last_where_they_are_as_many_as_the_model_reads(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(read_image(pixels, 12), pixels if shape[2] == 12 else pixels.transpose(1, 2, 0))


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(saved(Image.effect_noise((40, 40), 50))[:400])
    for value in (path, str(path), {"bytes": None, "path": str(path)}, {"bytes": b"no", "path": "broken.png"}):
        with pytest.raises(ValueError, match="broken.png is no image that can be read"):
            read_image(value, 3)
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        read_image(tmp_path / "nowhere.png")
    for value, words in (
        (None, "holds no image"),
        (np.zeros((2, 2, 2, 2)), "must be numbers"),
        (np.full((2, 2), np.nan), "not finite"),
        (np.zeros((8, 9, 5)), "has 5 bands, but the model reads 3"),
    ):
        with pytest.raises(ValueError, match=words):
            read_image(value, 3)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_training_reads_as_many_bands_as_the_model_has(channels):
    from hf_mhex.training.inputs import ImageCollator
    from hf_mhex.training.settings import ProcessingSettings

    config = lively_resnet(torch.float32, num_channels=channels).config
    pixels = np.stack([np.full((32, 32), 40 * band, np.uint8) for band in range(channels)], -1)
    image = pixels[..., 0] if channels == 1 else pixels
    collate = ImageCollator(image_processor_for(config, image_size=32), ProcessingSettings(), channels)
    found = collate([{"image": image, "labels": 0, "draw": None}])["pixel_values"]
    assert found.shape == (1, channels, 32, 32)
    assert found[0].mean((1, 2)).unique().numel() == channels
