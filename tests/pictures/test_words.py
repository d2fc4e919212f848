"""Coloured words give the text back exactly, escaped, in the colours and numbers of their scores."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from hf_mhex.modeling.mhex_words import ExplainedText, Word
from hf_mhex.pictures.words import WIDTH, scale_terminal, words_html, words_picture, words_terminal


def explained_text(text="good, bad", scores=(2.0, 0.0, -1.0), special=0.25):
    spans = [(found.start(), found.end()) for found in re.finditer(r"\w+|[^\w\s]", text)]
    words = (Word(text[start:end], start, end, score) for (start, end), score in zip(spans, scores))
    return ExplainedText(text, tuple(words), special)


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text of each paragraph of class "text"."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.texts, self._inside = [], [], False
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "p":
            self._inside = dict(attributes).get("class") == "text"
            self.texts += [""] if self._inside else []

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "p"

    def handle_data(self, data):
        if self._inside:
            self.texts[-1] += data

    def words(self):
        return [attributes for tag, attributes in self.tags if tag == "span" and "style" in attributes]


def colour(style):
    return [float(part) for part in re.search(r"rgba\((.*?)\)", style)[1].split(",")]


def contrast(one, other):
    """The contrast of two colours [3] of 0..255 as WCAG 2 defines it."""

    def luminance(colour):
        shares = np.asarray(colour) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_the_page_is_whole_and_loads_nothing():
    source = words_html([(explained_text(), "World 0.91", 1.25)], title="A title")
    page = Page(source)
    assert source.startswith("<!doctype html>")
    assert ("html", {"lang": "en"}) in page.tags
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert any(attributes.get("name") == "viewport" for _, attributes in page.tags)
    assert "<title>A title</title>" in source
    assert not re.search(r"src=|href=|url\(|@import|https?:", source)


@pytest.mark.parametrize(
    "attack",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title></style><script>", "a&lt;b & 'c'"],
)
def test_everything_is_escaped(attack):
    text = f"{attack} and {attack}"
    harmless = Page(words_html([(explained_text("a b", ()), "heading", 0.0)], title="title"))
    for explained in (explained_text(text), ExplainedText(text, (Word(text, 0, len(text), 1.0),), 0.0)):
        page = Page(words_html([(explained, attack, 0.0)], title=attack))
        assert {tag for tag, _ in page.tags} == {tag for tag, _ in harmless.tags}
        assert {name for _, names in page.tags for name in names} <= {
            *("lang", "charset", "name", "content", "http-equiv", "class", "dir", "style", "title")
        }
        assert page.texts == [text]


@pytest.mark.parametrize("control", ["\x1b]0;title\x07", "\x9b31m", "\x00", "\x7f"])
def test_control_characters_are_made_visible_in_words_labels_and_titles(control):
    source = words_html([(explained_text(f"good{control} bad"), f"label{control}", 0.0)], title=f"title{control}")
    assert all(character.isprintable() or character == "\n" for character in source)


@pytest.mark.parametrize("text", ["日本語 and 👩‍👩‍👧 ❤️", "هذا نص", "two\nlines\tand  gaps", ""])
def test_the_page_gives_the_text_back(text):
    assert Page(words_html([(explained_text(text), "heading", 0.0)])).texts == [text]


def test_words_are_coloured_by_their_share_of_the_texts_largest():
    entries = [(explained_text(scores=scores), "heading", 0.0) for scores in ((2.0, 0.0, -1.0), (-200.0, 0.0, 100.0))]
    words = Page(words_html(entries)).words()
    (red, none, blue), (blue_too, _, red_too) = [
        [colour(word["style"]) for word in words[at : at + 3]] for at in (0, 3)
    ]
    assert red[0] > red[2] and blue[2] > blue[0] and none[3] == 0
    assert red[3] == pytest.approx(2 * blue[3], abs=2e-3)
    assert blue_too == [*blue[:3], red[3]] and red_too == [*red[:3], blue[3]]  # the second text has its own scale
    assert [word["title"] for word in words] == ["+2", "0", "-1", "-200", "0", "+100"]


def test_the_page_states_scale_special_share_sum_and_logit():
    source = words_html([(explained_text(special=0.25), "Sports 0.75", 1.375)])
    for stated in ("<h2>Sports 0.75</h2>", ">-2<", ">0<", ">+2<"):
        assert stated in source
    for stated in ("words +1 ", "special tokens +0.25", "sum +1.25", "explained +1.38"):
        assert stated in source.replace("\n", " ")


def test_words_stay_readable_on_a_light_and_a_dark_page():
    source = words_html([(explained_text(scores=(1.0, 0.5, -1.0)), "heading", 0.0)])
    schemes = list(zip(re.findall(r"--page: #(\w+)", source), re.findall(r"--ink: #(\w+)", source)))
    assert len(schemes) == 2
    for page, ink in schemes:
        page, ink = ([int(part, 16) for part in re.findall("..", code * (6 // len(code)))] for code in (page, ink))
        for word in Page(source).words():
            *hue, opacity = colour(word["style"])
            ground = (1 - opacity) * np.array(page) + opacity * np.array(hue)
            assert contrast(ground, ink) > 4.5


@pytest.mark.parametrize("words", [(), (Word("zero", 0, 4, 0.0),)])
def test_a_text_without_scores_has_a_page(words):
    source = words_html([(ExplainedText("zero", words, 1.5), "heading", 1.5)])
    assert "sum +1.5" in source and "nan" not in source


def test_what_the_model_did_not_read_is_marked():
    page = Page(words_html([(explained_text("read this. But not this", (1.0, 1.0, 1.0)), "heading", 0.0)]))
    assert len([1 for tag, attributes in page.tags if attributes.get("title") == "not read by the model"]) == 1
    whole = Page(words_html([(explained_text("read  this.\n", (1.0, 1.0, 1.0)), "heading", 0.0)]))
    assert not [1 for tag, attributes in whole.tags if attributes.get("title") == "not read by the model"]


def test_the_terminal_shows_the_text_in_the_colours_of_its_words():
    text = words_terminal(explained_text("good, bad unread", (2.0, 0.0, -1.0)))
    assert text.plain == "good, bad unread"
    grounds = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert set(grounds) == {"good", "bad", " unread"}  # a word without a score needs no colour
    red, blue = ([int(part, 16) for part in re.findall("..", grounds[word][-6:])] for word in ("good", "bad"))
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 30
    assert min(contrast(ground, [0, 0, 0]) for ground in (red, blue)) > 4.5
    assert grounds[" unread"] == "strike"


def test_the_terminal_states_the_scale():
    assert scale_terminal(explained_text(scores=(2.0, 0.0, -1.0))).plain == "scale  -2  0  +2 "
    assert scale_terminal(explained_text("", ())).plain == "scale  0  0  0 "


@pytest.mark.parametrize("control", ["\x1b[31m", "\x9b31m", "\r", "\x08", "\x7f", "\x00"])
def test_a_text_cannot_command_the_terminal(control):
    text = f"good{control} bad\r\nline\tend"
    shown = words_terminal(explained_text(text, (1.0, 1.0, 1.0))).plain
    assert all(character.isprintable() or character in "\n\t" for character in shown)
    assert shown.startswith("good") and shown.endswith(" bad\nline\tend")


def test_a_picture_of_words_has_their_colours_and_breaks_its_lines():
    short = explained_text("good, bad", (2.0, 0.0, -1.0))
    pixels = np.asarray(words_picture([(short, "World 0.91")])).astype(int)
    warm = pixels[..., 0] - pixels[..., 2]
    reds, blues = np.argwhere(warm > 60), np.argwhere(warm < -30)
    assert pixels.shape[1] == WIDTH
    for above, below in ((0, 80), (80, pixels.shape[0])):  # the words, then the scale, which runs from blue to red
        red, blue = (found[(found[:, 0] >= above) & (found[:, 0] < below), 1] for found in (reds, blues))
        assert (red.max() < blue.min()) if above == 0 else (blue.max() < red.min())
    long = explained_text("word " * 200, (1.0,) * 200)
    assert words_picture([(long, "a"), (short, "b")]).height > 3 * words_picture([(short, "b")]).height
    unread = ExplainedText("read " + "cut off " * 60, (Word("read", 0, 4, 1.0),), 0.0)
    assert (
        words_picture([(unread, "a")]).height > words_picture([(short, "a")]).height
    )  # what no word covers breaks too


@pytest.mark.parametrize("text", ["", "<script>'\"&\x1b[31m", "\x00\n\t\x9b", "日本語 ❤️"])
def test_a_picture_of_any_text_is_drawn(text):
    assert words_picture([(explained_text(text, (1.0,) * 20), text)]).width == WIDTH
