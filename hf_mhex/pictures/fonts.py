"""Fonts for any text: DejaVu Sans, which comes with matplotlib, and an installed font for what it lacks."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

OWN = "DejaVu Sans"


def font_of(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font to draw a text with, `size` pixels high: the first that has every character of it, or DejaVu Sans."""
    return _opened(_covering(lacking(text)), size)


@lru_cache(maxsize=1)
def _own() -> tuple[str, frozenset[int]]:
    path = font_manager.findfont(OWN)
    return path, frozenset(FT2Font(path).get_charmap())


def lacking(text: str) -> frozenset[int]:
    """Codes of the characters that DejaVu Sans lacks; joiners and selectors, which have no form, do not count."""
    formless = ("Cf", "Mn", "Me", "Cc")
    return frozenset(code for code in map(ord, text) if unicodedata.category(chr(code)) not in formless) - _own()[1]


@lru_cache(maxsize=1024)
def _covering(codes: frozenset[int]) -> str:
    """The file of an installed font that has all of these characters."""
    if codes:
        for entry in font_manager.fontManager.ttflist:
            try:
                if not entry.name.startswith("Last Resort") and codes <= FT2Font(entry.fname).get_charmap().keys():
                    return entry.fname
            except (OSError, RuntimeError):  # listed, but no longer there or not readable
                continue
    return _own()[0]


@lru_cache(maxsize=64)
def _opened(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
