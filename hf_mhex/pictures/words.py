"""Words coloured by their scores, for the browser, the terminal and as a picture: red for the label, blue against it.

Every text has its own scale, as large as its strongest word and centred at 0, and states it in numbers.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from rich.text import Text

from hf_mhex.modeling.mhex_words import ExplainedText, Word
from hf_mhex.modeling.pipeline_mhex import AGAINST, FOR
from hf_mhex.pictures.colours import paint, signed, to_bytes

OPACITY = 0.55  # of the strongest word: dark text on it, or white text in a dark page, stays readable
WIDTH, MARGIN, SIZE = 860, 16, 18  # pixels of a picture of words, and its letters


def words_html(entries: Iterable[tuple[ExplainedText, str, float]], *, title: str | None = "Words and decision") -> str:
    """A page of its own (no script, nothing loaded) with coloured words, readable in light and dark mode.

    Args:
        entries: for each text the explained text, a heading such as the predicted label with its score, and the
            explained logit (`MHEXSaliency.explained`), which words and special tokens together should reach.
        title: title of the page; None leaves out title and legend.

    Hovering over a word shows its score. Everything is escaped.
    """
    articles = "\n".join(_article(*entry) for entry in entries)
    head = f"<h1>{_escaped(title)}</h1>\n{_LEGEND}\n" if title else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_escaped(title or "Words")}</title>
<style>{_STYLE}</style>
</head>
<body>
{head}{articles}
</body>
</html>
"""


def words_terminal(explained: ExplainedText) -> Text:
    """The text with its words coloured for a terminal; characters that a terminal would obey are made visible."""
    text = Text()
    for part, word, strength in _segments(explained):
        style = "strike" if _unread(part, word) else ""
        if strength:
            style = "#000000 on #" + bytes(_ground(strength)).hex()
        text.append(_visible(part), style)
    return text


def words_picture(entries: Sequence[tuple[ExplainedText, str]]) -> Image.Image:
    """Texts with their words coloured, each below its heading, which also states the strongest word's score.

    Args:
        entries: explained texts with a heading.
    """
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), SIZE)
    tokens: list[tuple[int, int, str, tuple[int, ...] | None]] = []  # x, y, text and ground
    y = MARGIN
    for explained, heading in entries:
        tokens.append((MARGIN, y, f"{_line(heading)}, strongest word {_largest(explained):.2g}", None))
        x, y = MARGIN, y + 2 * SIZE
        for part, word, strength in _segments(explained):
            pieces = [part] if word else part.split(" ")  # what no word covers breaks at its spaces
            for number, piece in enumerate(map(_line, pieces)):
                x += round(font.getlength(" ")) * (number > 0)
                wide = round(font.getlength(piece))
                if x + wide > WIDTH - MARGIN and x > MARGIN:
                    x, y = MARGIN, y + 2 * SIZE
                if piece:
                    tokens.append((x, y, piece, _ground(strength) if word else (255, 255, 255)))
                x += wide
        y += 3 * SIZE
    canvas = Image.new("RGB", (WIDTH, max(y, 1)), "white")
    draw = ImageDraw.Draw(canvas)
    for x, y, text, ground in tokens:
        if ground:
            draw.rectangle((x, y - 3, x + font.getlength(text), y + SIZE + 5), fill=ground)
        draw.text((x, y), text, fill="#1a1a1a" if ground else "#666666", font=font)
    return canvas


def _largest(explained: ExplainedText) -> float:
    return max((abs(word.score) for word in explained.words), default=0.0)


def _segments(explained: ExplainedText) -> Iterator[tuple[str, Word | None, float]]:
    """(characters, their word or None, the word's score as a share of the text's largest size, in [-1, 1])."""
    limit = _largest(explained)
    for part, word in explained.segments():
        yield part, word, word.score / limit if word and limit else 0.0


def _ground(strength: float) -> tuple[int, ...]:
    """The colour behind a word on a white page."""
    return to_bytes(paint(np.ones(3), np.array(strength), OPACITY))


def _visible(part: str) -> str:
    """Control characters, which a terminal would obey, as Unicode's pictures of them; line ends and tabs stay."""
    pictures = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
    return part.replace("\r\n", "\n").translate(pictures | dict.fromkeys(range(0x80, 0xA0), 0xFFFD))


def _line(part: str) -> str:
    """Visible characters on one line."""
    return _visible(part).replace("\n", " ").replace("\t", " ")


def _escaped(part: str) -> str:
    return html.escape(_visible(part))


def _unread(part: str, word: Word | None) -> bool:
    """Whether characters outside every word are more than space: cut off by truncation or dropped."""
    return word is None and any(unicodedata.category(character)[0] in "LNPS" for character in part)


def _rgba(strength: float) -> str:
    red, green, blue = to_bytes(FOR if strength > 0 else AGAINST)
    return f"rgba({red}, {green}, {blue}, {abs(strength) * OPACITY:.3f})"


def _article(explained: ExplainedText, heading: str, logit: float) -> str:
    parts = []
    for part, word, strength in _segments(explained):
        shown = _escaped(part)
        if word:
            shown = f'<span style="background: {_rgba(strength)}" title="{signed(word.score)}">{shown}</span>'
        elif _unread(part, word):
            shown = f'<span class="unread" title="not read by the model">{shown}</span>'
        parts.append(shown)
    limit = _largest(explained)
    return f"""<article>
<h2>{_escaped(heading)}</h2>
<p class="text" dir="auto">{"".join(parts)}</p>
<div class="scale"><span>{signed(-limit)}</span><span>0</span><span>{signed(limit)}</span></div>
<p class="figures">words {signed(explained.total - explained.special)} and special tokens \
{signed(explained.special)}: sum {signed(explained.total)}; explained logit {signed(logit)}</p>
</article>"""


_LEGEND = """<p>Red words speak for the explained label, blue words against it; the deeper, the more. A word's score is
the sum of its pieces' scores. <span class="unread">Struck out</span>: not read by the model.</p>"""
_STYLE = f"""
:root {{ color-scheme: light dark; --page: #fff; --ink: #1a1a1a; --pale: #666; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #161616; --ink: #f0f0f0; --pale: #a0a0a0; }} }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.6 system-ui, sans-serif;
  background: var(--page); color: var(--ink); print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin: 0; }}
article {{ border-top: 1px solid var(--pale); margin-top: 1.5rem; padding-top: 1rem; }}
.text {{ white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; }}
.text span {{ border-radius: 0.2em; padding: 0.1em 0; }}
.unread {{ color: var(--pale); text-decoration: line-through; }}
.figures {{ color: var(--pale); font-size: 0.9rem; font-variant-numeric: tabular-nums; }}
.scale {{ display: flex; justify-content: space-between; max-width: 20rem; padding: 0 0.4rem;
  background: linear-gradient(to right, {_rgba(-1)}, transparent, {_rgba(1)}); }}
"""
