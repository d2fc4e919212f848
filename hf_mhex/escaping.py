"""Names and texts of others, such as labels and words, written so that nothing that shows them obeys them."""

from __future__ import annotations

import html
import re


def visible(part: str) -> str:
    """Control characters, which a terminal would obey, as Unicode's pictures of them; line ends and tabs stay."""
    pictures = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
    return part.replace("\r\n", "\n").translate(pictures | dict.fromkeys(range(0x80, 0xA0), 0xFFFD))


def escaped(part: str) -> str:
    """A text for HTML, its control characters made visible."""
    return html.escape(visible(part))


def escaped_markdown(part: str) -> str:
    """A text for one line of Markdown, also in a table: no markup, no HTML, control characters made visible.

    Underscores within words, as in LABEL_0, mean nothing to Markdown and stay as they are.
    """
    return re.sub(r"([\\`*\[\]|~#<>&]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(visible(part).split()))


def code_markdown(part: str) -> str:
    """A text as code within one line of Markdown, between more backticks than it has in a row."""
    line = visible(part).replace("\n", " ").replace("\t", " ")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    room = " " * ("`" in line)
    return f"{fence}{room}{line}{room}{fence}"
