"""Pictures of unusual inputs look as they were looked at and kept in golden/, but for a few grey levels.

`python tests/pictures/test_golden.py` draws them anew.
"""

import io
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from hf_mhex.data.images import read_image
from hf_mhex.explaining.zones import Zones
from hf_mhex.modeling.mhex_words import ExplainedText, Word
from hf_mhex.pictures.fonts import lacking
from hf_mhex.pictures.maps import block_strip, overlay, side_by_side
from hf_mhex.pictures.signals import Signal, line_picture
from hf_mhex.pictures.words import words_html, words_picture

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE, STRAY = 24, 0.05  # grey levels that a pixel may differ by, and the share of inked ones that may by more
WAVES = np.sin(np.linspace(0, 9, 48))[:, None] * np.cos(np.linspace(0, 7, 36))
MAP = np.array([[1.0, -0.5, 0.0], [0.25, 2.0, -1.0]])
NOTE = "+3.2 ahead of the other labels; red speaks for Dress, blue against it"


TEXTS = {
    "right_to_left": "הטלפון טוב, הסוללה לא",
    "emoji": "good 😀 phone ☺ and 😡 battery",
    "hostile": "<script>'\"&\x1b[31m\x00 bad",
    "long_word": "a " + "long" * 60 + " word",
}


def words(text):
    """Every word with a score, the signs taking turns."""
    found = [(match.group(), match.start(), match.end()) for match in re.finditer(r"\w+|[^\w\s]+", text)]
    return ExplainedText(text, tuple(Word(*place, (-1.0) ** n / (n + 1)) for n, place in enumerate(found)), 0.1)


def stored(values, kind, **options):
    """What `read_image` makes of a stored picture."""
    buffer = io.BytesIO()
    values.save(buffer, kind, **options)
    return read_image(buffer.getvalue())


def deep():
    return stored(Image.fromarray(((WAVES + 1) * 20000 + 5000).astype(np.uint16)), "PNG")


def palette():
    return stored(Image.fromarray(((WAVES + 1) * 127).astype(np.uint8)).convert("RGB").quantize(16), "PNG")


def portrait():
    """A photograph taken with the camera turned; upright it is higher than wide and brighter at the top."""
    exif = Image.Exif()
    exif[0x0112] = 6
    level = np.repeat(np.linspace(255, 40, 60).astype(np.uint8)[:, None], 40, axis=1)
    return stored(Image.fromarray(np.rot90(level)), "JPEG", exif=exif, quality=95)


def shown(image, saliency=MAP):
    return overlay(image, saliency, title="Dress (0.490)", note=NOTE, size=160)


AXIS = np.linspace(4000, 400, 120)  # a spectrum's wavenumbers fall
PEAKS = sum(height * np.exp(-(((AXIS - place) / 150) ** 2)) for place, height in ((2900, 1), (1700, 2), (1050, 1.5)))
SIGNS = np.sin(AXIS / 300)


def spectrum(maps, values=PEAKS[None], **options):
    signal = Signal(values, AXIS, "wavenumber (1/cm)")
    return line_picture(signal, maps, "Arabica (0.910)", NOTE.replace("Dress", "Arabica"), **options)


def zones():
    return Zones([("C=O", 1600.0, 1800.0), ("C-H", 2750.0, 3050.0)], AXIS)


PICTURES = {
    "zero_map": lambda: shown((WAVES + 1) / 2, np.zeros((4, 3))),
    "one_cell": lambda: shown((WAVES + 1) / 2, [[2.5]]),
    "one_pixel": lambda: shown(np.full((1, 1), 0.5), [[2.5]]),
    "deep": lambda: shown(deep()),
    "palette": lambda: shown(palette()),
    "portrait": lambda: shown(portrait()),
    "side_by_side": lambda: side_by_side((WAVES + 1) / 2, [MAP, -MAP], labels=["Dress", "Coat"], notes=[NOTE, NOTE]),
    "blocks": lambda: block_strip((WAVES + 1) / 2, [MAP, np.zeros((4, 3)), [[-2.5]]], title="Block by block"),
    "spectrum": lambda: spectrum({"Arabica": SIGNS, "Robusta": -SIGNS}),
    "spectrum_of_zeros": lambda: spectrum({"": np.zeros(120)}),
    "spectrum_by_few_cells": lambda: spectrum({"block 2": [1.0, -2.0, 0.5]}),
    "spectrum_of_channels": lambda: spectrum({"": SIGNS}, np.stack([PEAKS, 2 - PEAKS / 2])),
    "spectrum_with_zones": lambda: spectrum({"": SIGNS}, zones=zones()),
    "spectrum_of_one_sign": lambda: spectrum({"": PEAKS}),
    "one_word": lambda: words_picture([(words("good"), "positive (0.9)", NOTE)]),
    "no_word": lambda: words_picture([(ExplainedText("", (), 0.5), "positive (0.9)", NOTE)]),
    "long_word": lambda: words_picture([(words(TEXTS["long_word"]), "positive (0.9)", NOTE)]),
    "right_to_left": lambda: words_picture([(words(TEXTS["right_to_left"]), "positive (0.9)", NOTE)]),
    "emoji": lambda: words_picture([(words(TEXTS["emoji"]), "positive 😀 (0.9)", NOTE)]),
    "hostile": lambda: words_picture([(words(TEXTS["hostile"]), "<b>\x07 (0.9)", "<i>" + NOTE)]),
}


# Older releases set the text of a figure elsewhere.
OLDER = tuple(map(int, matplotlib.__version__.split(".")[:2])) < (3, 11)


@pytest.mark.skipif(OLDER, reason="the kept pictures were drawn by matplotlib 3.11; pip install 'matplotlib>=3.11'")
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_looks_as_it_did(name):
    now = PICTURES[name]()
    kept = Image.open(GOLDEN / f"{name}.png")
    assert now.size == kept.size
    assert difference(now, kept) < STRAY


def difference(one, two):
    """The share of the pixels with ink in either picture that differ."""
    one, two = (np.asarray(picture.convert("RGB")).astype(int) for picture in (one, two))
    ink = (np.minimum(one, two) < 250).any(-1)
    return (np.abs(one - two) > TOLERANCE).any(-1)[ink].mean()


def test_a_wrong_picture_would_be_noticed():
    assert difference(shown((WAVES + 1) / 2, -MAP), shown((WAVES + 1) / 2, MAP)) > 3 * STRAY
    assert difference(spectrum({"": -SIGNS}), spectrum({"": SIGNS})) > 3 * STRAY
    assert difference(spectrum({"": SIGNS * 0}), spectrum({"": SIGNS})) > 3 * STRAY


def test_the_portrait_stands_upright():
    picture = np.asarray(portrait().convert("L"))
    assert picture.shape == (60, 40) and picture[:9].mean() > picture[-9:].mean() + 100


def test_a_right_to_left_text_starts_at_the_right():
    """The first word, whose red is the strongest, is the rightmost."""
    pixels = np.asarray(PICTURES["right_to_left"]()).astype(int)[40:70]
    strongest = np.argwhere(pixels[..., 0] - pixels[..., 2] > 90)[:, 1]
    assert strongest.min() > 0.85 * pixels.shape[1]


def test_emoji_of_the_golden_picture_need_no_other_font():
    assert not lacking(TEXTS["emoji"]) and lacking("日本")


def page(text):
    return words_html([(words(text), f"{text[:20]} (0.9)", 1.0, NOTE)])


@pytest.mark.parametrize("name", TEXTS)
def test_a_page_is_what_it_was(name):
    assert page(TEXTS[name]) == (GOLDEN / f"{name}.html").read_text()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, make in PICTURES.items():
        make().quantize(256).save(GOLDEN / f"{name}.png", optimize=True)
    for name, text in TEXTS.items():
        (GOLDEN / f"{name}.html").write_text(page(text))
