"""Words coloured by their scores, for the browser, the terminal and as a picture: red for the label, blue against it.

Every text has its own scale, as large as its strongest word and centred at 0, and states it in numbers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw
from rich.text import Text

from hf_mhex.escaping import escaped, visible
from hf_mhex.modeling.mhex_words import ExplainedText, Word
from hf_mhex.modeling.pipeline_mhex import AGAINST, FOR
from hf_mhex.pictures.colours import paint, signed, to_bytes
from hf_mhex.pictures.fonts import font_of

OPACITY = 0.55  # of the strongest word: dark text on it, or white text in a dark page, stays readable
WIDTH, MARGIN, SIZE = 860, 16, 18  # pixels of a picture of words, and its letters
ROOM, SCALE, BAR = WIDTH - 2 * MARGIN, 240, 8  # pixels of a line, and of the scale's bar


def words_html(entries: Iterable[tuple], *, title: str | None = "Words and decision") -> str:
    """A page of its own (no script, nothing loaded) with coloured words, readable in light and dark mode.

    Args:
        entries: for each text the explained text, a heading such as the predicted label with its score, what is
            explained (`MHEXSaliency.explained`), which words and special tokens together should reach, and perhaps a
            note that stands below the words.
        title: title of the page; None leaves out title and legend.

    Hovering over a word shows its score. Everything is escaped.
    """
    articles = "\n".join(article(*entry) for entry in entries)
    head = f"<h1>{escaped(title)}</h1>\n{_LEGEND}\n" if title else ""
    return html_page(title or "Words", head + articles)


def html_page(title: str, body: str) -> str:
    """A page of its own that runs no script and loads nothing; `body` is HTML, its pictures are part of it."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
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
        text.append(visible(part), style)
    return text


def scale_terminal(explained: ExplainedText) -> Text:
    """The scale of `words_terminal`: both ends and 0 in numbers, on their colours."""
    limit = _largest(explained)
    text = Text("scale ")
    for strength, value in ((-1.0, -limit), (0.0, 0.0), (1.0, limit)):
        style = "#000000 on #" + bytes(_ground(strength)).hex() if strength and limit else ""
        text.append(f" {signed(value)} ", style)
    return text


def words_picture(entries: Sequence[tuple]) -> Image.Image:
    """Texts with their words coloured, each with a heading above it and its scale, and perhaps a note, below.

    A word that is longer than a line is broken. A text that begins in a script from right to left runs that way.

    Args:
        entries: explained texts with a heading and, where there is one, a note.
    """
    tokens: list[tuple[int, int, str, tuple[int, ...] | None]] = []  # x, y, text and ground
    bars: list[tuple[int, float]] = []  # y and the strongest word's size
    y = MARGIN
    for explained, heading, *note in entries:
        for line in _wrapped(_line(heading)):
            tokens.append((MARGIN, y, line, None))
            y += round(1.5 * SIZE)
        y += SIZE // 2
        placed, y = _placed(explained, y)
        tokens += placed
        bars.append((y, _largest(explained)))
        y += 2 * SIZE + BAR
        for line in _wrapped(_line(" ".join(note))):
            tokens.append((MARGIN, y, line, None))
            y += round(1.5 * SIZE)
        y += SIZE
    canvas = Image.new("RGB", (WIDTH, max(y, 1)), "white")
    draw = ImageDraw.Draw(canvas)
    for x, y, text, ground in tokens:
        if ground:
            draw.rectangle((x, y - 3, x + _length(text), y + SIZE + 5), fill=ground)
        draw.text((x, y), text, fill="#1a1a1a" if ground else "#555555", font=font_of(text, SIZE))
    for y, limit in bars:
        _draw_scale(draw, y, limit)
    return canvas


def _placed(explained: ExplainedText, y: int) -> tuple[list[tuple[int, int, str, tuple[int, ...]]], int]:
    """Where the parts of a text stand from a height on, with their grounds, and the height below them."""
    x, gap, found = 0, _length(" "), []
    for part, word, strength in _segments(explained):
        pieces = [part] if word else part.split(" ")  # what no word covers breaks at its spaces
        for number, piece in enumerate(map(_line, pieces)):
            x += gap * (number > 0)
            if x and x + _length(piece) > ROOM:
                x, y = 0, y + 2 * SIZE
            for chunk in _chunks(piece):
                if x and x + _length(chunk) > ROOM:
                    x, y = 0, y + 2 * SIZE
                if chunk:
                    found.append((x, y, chunk, _ground(strength) if word else (255, 255, 255)))
                x += _length(chunk)
    if _from_the_right(explained.text):
        found = [(ROOM - x - _length(chunk), y, chunk, ground) for x, y, chunk, ground in found]
    return [(MARGIN + x, line, chunk, ground) for x, line, chunk, ground in found], y + 2 * SIZE


def _length(text: str) -> int:
    """Width of a text in pixels."""
    return round(font_of(text, SIZE).getlength(text))


def _chunks(piece: str) -> Iterator[str]:
    """A piece, or where it is longer than a line, parts of it that fit."""
    while _length(piece) > ROOM:
        fit = max(1, int(len(piece) * ROOM / _length(piece)))
        while fit > 1 and _length(piece[:fit]) > ROOM:
            fit -= 1
        yield piece[:fit]
        piece = piece[fit:]
    yield piece


def _wrapped(text: str) -> list[str]:
    """Lines of a heading or a note."""
    lines = [""]
    for word in text.split():
        for chunk in _chunks(word):
            longer = f"{lines[-1]} {chunk}".strip()
            if _length(longer) <= ROOM:
                lines[-1] = longer
            else:
                lines.append(chunk)
    return lines if lines != [""] else []


def _from_the_right(text: str) -> bool:
    """Whether the first letter with a direction belongs to a script from right to left."""
    kinds = (unicodedata.bidirectional(character) for character in text)
    return next((kind != "L" for kind in kinds if kind in ("L", "R", "AL")), False)


def _draw_scale(draw: ImageDraw.ImageDraw, y: int, limit: float) -> None:
    """A bar from the strongest blue to the strongest red, with both ends and 0 in numbers."""
    small = font_of("0", SIZE - 5)
    for x in range(SCALE):
        colour = _ground((2 * x / (SCALE - 1) - 1) * bool(limit))
        draw.line((MARGIN + x, y, MARGIN + x, y + BAR), fill=colour)
    draw.rectangle((MARGIN, y, MARGIN + SCALE, y + BAR), outline="#999999")
    numbers = [(-limit, "la", 0), (0, "ma", SCALE // 2), (limit, "ra", SCALE)] if limit else [(0, "ma", SCALE // 2)]
    for value, anchor, x in numbers:
        draw.text((MARGIN + x, y + BAR + 4), signed(value), fill="#555555", font=small, anchor=anchor)


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


def _line(part: str) -> str:
    """Visible characters on one line."""
    return visible(part).replace("\n", " ").replace("\t", " ")


def _unread(part: str, word: Word | None) -> bool:
    """Whether characters outside every word are more than space: cut off by truncation or dropped."""
    return word is None and any(unicodedata.category(character)[0] in "LNPS" for character in part)


def background(strength: float) -> str:
    """The colour of CSS behind a word of a strength in [-1, 1]."""
    red, green, blue = to_bytes(FOR if strength > 0 else AGAINST)
    return f"rgba({red}, {green}, {blue}, {abs(strength) * OPACITY:.3f})"


def article(explained: ExplainedText, heading: str, value: float, note: str = "") -> str:
    """One text of `words_html`, for a page of one's own."""
    parts = []
    for part, word, strength in _segments(explained):
        shown = escaped(part)
        if word:
            shown = f'<span style="background: {background(strength)}" title="{signed(word.score)}">{shown}</span>'
        elif _unread(part, word):
            shown = f'<span class="unread" title="not read by the model">{shown}</span>'
        parts.append(shown)
    limit = _largest(explained)
    said = f'<p class="note">{escaped(note)}</p>\n' if note else ""
    return f"""<article>
<h2>{escaped(heading)}</h2>
<p class="text" dir="auto">{"".join(parts)}</p>
{said}\
<div class="scale"><span>{signed(-limit)}</span><span>0</span><span>{signed(limit)}</span></div>
<p class="figures">words {signed(explained.total - explained.special)} and special tokens \
{signed(explained.special)}: sum {signed(explained.total)}; explained {signed(value)}</p>
</article>"""


_LEGEND = """<p>Red words speak for the explained label, blue words against it; the deeper, the more. A word's score is
the sum of its pieces' scores. <span class="unread">Struck out</span>: not read by the model.</p>"""
WORDS_STYLE = f"""
.text {{ white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; }}
.text span {{ border-radius: 0.2em; padding: 0.1em 0; }}
.unread {{ color: var(--pale, #777); text-decoration: line-through; }}
.figures {{ color: var(--pale, #777); font-size: 0.9rem; font-variant-numeric: tabular-nums; }}
.scale {{ display: flex; justify-content: space-between; max-width: 20rem; padding: 0 0.4rem;
  background: linear-gradient(to right, {background(-1)}, transparent, {background(1)}); }}
"""
STYLE = f"""
:root {{ color-scheme: light dark; --page: #fff; --ink: #1a1a1a; --pale: #666; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #161616; --ink: #f0f0f0; --pale: #a0a0a0; }} }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.6 system-ui, sans-serif;
  background: var(--page); color: var(--ink); print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin: 0; }}
article {{ border-top: 1px solid var(--pale); margin-top: 1.5rem; padding-top: 1rem; }}
img {{ max-width: 100%; }}
{WORDS_STYLE}"""
