"""Image processors: each does what timm's own evaluation transform does, and AutoImageProcessor finds it."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import AutoImageProcessor, BitImageProcessor

from hf_mhex import MHEXResNetConfig, image_processor_for
from hf_mhex.conversion import timm_family
from hf_mhex.processors import restore_image
from networks import small_config

NETWORKS = [
    "resnet50.a1_in1k",
    "resnet18",
    "ecaresnet26t",
    "resnetrs50",
    "resnet50d.gluon_in1k",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "vit_base_patch16_siglip_384",
    "swin_tiny_patch4_window7_224",
    "vit_medium_patch16_gap_384.sw_in12k_ft_in1k",  # its pictures are squashed
]


def picture(width, height, seed=0):
    """A smooth colour picture."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def nearest(found, expected):
    """Mean difference, whichever way the odd pixel of a margin went (transformers rounds down, timm to even)."""
    moved, same = (slice(1, None), slice(None, -1)), (slice(None), slice(None))
    pairs = [(found[:, y, x], expected[:, v, u]) for y, v in (moved, same) for x, u in (moved, same)]
    return min((one - two).abs().mean().item() for one, two in pairs)  # Pillow and torchvision round differently


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(300, 300), (400, 260), (257, 511)])
def test_like_timm(name, size, tmp_path):
    config = timm_family(name, {}).config(architecture=name)
    image_processor_for(config).save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    found = processor(picture(*size), return_tensors="pt")["pixel_values"][0]
    data = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    expected = timm.data.create_transform(**data, is_training=False)(picture(*size))
    assert found.shape == expected.shape
    assert nearest(found, expected) < 0.02


def test_given_values_and_the_picture_back():
    config = MHEXResNetConfig(architecture="resnet18")
    processor = image_processor_for(config, image_size=64, crop_pct=1.0, mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.5))
    assert processor.crop_size == {"height": 64, "width": 64} and processor.size == {"shortest_edge": 64}
    image = picture(64, 64)
    pixels = processor(image, return_tensors="pt")["pixel_values"][0]
    raw = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.2, 0.3, 0.4), (0.1, 0.2, 0.5)))
    assert torch.allclose(pixels, (raw - mean) / std, atol=1e-5)
    assert np.array_equal(restore_image(pixels, processor), np.array(image))
    for plain in ({}, {"image_mean": None, "image_std": None}):  # whatever mean and std say, they were not applied
        processor = BitImageProcessor(do_resize=False, do_center_crop=False, do_normalize=False, **plain)
        pixels = processor(image, return_tensors="pt")["pixel_values"][0]
        assert np.array_equal(restore_image(pixels, processor), np.array(image))


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_a_network_of_one_size_gets_that_size(name):
    config = small_config(name)  # of img_size 48
    assert image_processor_for(config).crop_size == {"height": 48, "width": 48}
    assert image_processor_for(config, image_size=64).crop_size == {"height": 64, "width": 64}


def test_a_size_that_is_not_square():
    """The picture is resized to it whole; one of that shape comes as timm makes it."""
    config = small_config("vit", architecture_kwargs={"img_size": [32, 48], "patch_size": 8})
    processor = image_processor_for(config)
    assert processor.crop_size == {"height": 32, "width": 48}
    assert processor.size == {"height": 35, "width": 53}  # of crop_pct 0.9
    known = timm.get_pretrained_cfg(config.architecture).to_dict()
    data = timm.data.resolve_data_config({"input_size": (3, 32, 48)}, known)
    expected = timm.data.create_transform(**data, is_training=False)(picture(530, 350))
    found = processor(picture(530, 350), return_tensors="pt")["pixel_values"][0]
    assert found.shape == expected.shape and nearest(found, expected) < 0.02
    assert processor(picture(50, 90), return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 48)
    assert image_processor_for(config, image_size=(16, 24)).crop_size == {"height": 16, "width": 24}


def test_the_source_s_preprocessing_comes_before_timm_s(tmp_path):
    values = {"input_size": [3, 40, 40], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.8}
    config = small_config("vit", preprocessing=values | {"interpolation": "nearest"})
    config.save_pretrained(tmp_path)
    for found in (config, type(config).from_pretrained(tmp_path)):
        processor = image_processor_for(found)
        assert processor.crop_size == {"height": 40, "width": 40} and processor.size == {"shortest_edge": 50}
        assert list(processor.image_mean) == values["mean"] and list(processor.image_std) == values["std"]
        assert processor.resample == Image.Resampling.NEAREST
        assert image_processor_for(found, image_size=64, crop_pct=1.0).size == {"shortest_edge": 64}


@pytest.mark.parametrize(
    "values, words",
    [
        ({"crop_mode": "border"}, r"config.preprocessing\['crop_mode'\] must be one of center, squash, got 'border'"),
        ({"interpolation": "random"}, r"config.preprocessing\['interpolation'\] must be one of nearest.* got 'random'"),
        ({"crop_pct": "all"}, r"crop_pct must lie in \(0, 1\], got 'all'"),
        ({"mean": 0.5, "std": "0.5"}, "std must be 3 values"),
        ({"input_size": [3, 224, None]}, r"image_size must be at least 1 pixel, got \[224, None\]; give one int, or"),
        ({"input_size": 224}, r"preprocessing's input_size must be \[channels, height, width\], got 224"),
        ({"means": [0.5]}, r"preprocessing must be among \['crop_mode', .*'std'\]; got \['means'\]"),
    ],
)
def test_preprocessing_that_cannot_be(values, words):
    with pytest.raises(ValueError, match=words):
        image_processor_for(MHEXResNetConfig(preprocessing=values))


def test_gray_images():
    processor = image_processor_for(MHEXResNetConfig(num_channels=1), image_size=32)
    pixels = processor(picture(40, 40).convert("L"), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 1, 32, 32)
    assert restore_image(pixels[0], processor).shape == (32, 32, 1)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"image_size": 0}, "image_size must be at least 1 pixel, got 0"),
        ({"image_size": -5}, "image_size must be at least 1 pixel, got -5"),
        ({"image_size": (32, 32, 3)}, r"image_size must be at least 1 pixel, got \(32, 32, 3\); give one int, or"),
        ({"crop_pct": 0}, r"crop_pct must lie in \(0, 1\], got 0"),
        ({"crop_pct": 1.2}, r"crop_pct must lie in \(0, 1\], got 1.2"),
        ({"mean": (0.5,)}, r"mean must be 3 values, one a channel .* got \[0.5\]"),
        ({"std": (0.5, 0.0, 0.5)}, r"std must be 3 values, one a channel \(std above 0\)"),
    ],
)
def test_values_that_cannot_be(given, words):
    with pytest.raises(ValueError, match=words):
        image_processor_for(MHEXResNetConfig(), **given)
