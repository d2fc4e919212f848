"""Words that a token map falls on, of texts and of pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import BatchEncoding

from hf_mhex.modeling.mhex_words import ExplainedText, Word, words_from_tokens

__all__ = ["ExplainedText", "Word", "explain_words", "split_pair", "words_from_tokens", "words_of"]


def split_pair(value: Any) -> tuple[str, str | None]:
    """The text and its second one, or None, of a string, a pair, or a dict of `text` and `text_pair`.

    Raises TypeError for another value, ValueError where nothing is in the text.
    """
    if isinstance(value, dict):
        unknown = sorted(set(value) - {"text", "text_pair"})
        if unknown or "text" not in value:
            raise TypeError(f"a pair must be a dict of 'text' and 'text_pair', got {', '.join(map(repr, value))}.")
        value = (value["text"], value.get("text_pair"))
    text, pair = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, None)
    if not isinstance(text, str) or not isinstance(pair, (str, type(None))):
        raise TypeError(f"the row must hold a text or a pair of texts, got {type(value).__name__}.")
    if not text.strip() and not (pair or "").strip():
        raise ValueError("the row holds an empty text.")
    return text, pair


def words_of(text: str, pair: str | None, row, scores: Sequence[float]) -> ExplainedText:
    """The words of one text or pair, see `words_from_tokens`.

    Of a pair, the explained text is both, joined by a line feed; its words carry their segment, and `start` and `end`
    count in the joined text.

    Args:
        row: the tokens, a `tokenizers.Encoding`.
        scores: the map, one number a token.
    """
    if pair is None:
        return words_from_tokens(text, row.offsets, row.word_ids, scores)
    shift = len(text) + 1
    segments = [segment or 0 for segment in row.sequence_ids]
    offsets = [(start + shift * segment, end + shift * segment) for (start, end), segment in zip(row.offsets, segments)]
    ids = [None if word is None else (segment, word) for word, segment in zip(row.word_ids, segments)]
    found = words_from_tokens(f"{text}\n{pair}", offsets, ids, scores)
    return replace(found, words=tuple(replace(word, segment=int(word.start >= shift)) for word in found.words))


def own_places(text: str, words: Sequence[Word]) -> list[Word]:
    """The words of a text or pair with `start` and `end` counted in their own segment; `text` is the first."""
    shift = len(text) + 1
    return [replace(word, start=word.start - shift, end=word.end - shift) if word.segment else word for word in words]


def explain_words(texts, encoding: BatchEncoding, saliency) -> list[ExplainedText]:
    """Add token maps up to words, for a batch as it comes from a fast tokenizer and `generate_saliency`.

    Args:
        texts: the B texts that were tokenized, or pairs of them (tuples or dicts of `text` and `text_pair`); a string
            is a batch of one.
        encoding: `tokenizer(texts, ...)`, with any padding and truncation; it knows its offsets by itself.
        saliency: the maps of one label, [B, T].

    Returns B texts, see `words_of`. Raises ValueError for an encoding without offsets (of a slow tokenizer, or a plain
    dict), and for texts or a saliency that do not fit the encoding.
    """
    texts = [texts] if isinstance(texts, (str, dict)) else list(texts)
    rows = getattr(encoding, "encodings", None)
    if not rows:
        cure = "pass what a fast tokenizer (use_fast=True) returned, before it is turned into a dict or padded again"
        raise ValueError(f"encoding must carry character offsets, this {type(encoding).__name__} does not; {cure}.")
    if len(texts) != len(rows):
        cure = "pass the texts of this batch, and leave return_overflowing_tokens out"
        raise ValueError(f"texts must be the {len(rows)} that encoding was made from, got {len(texts)}; {cure}.")
    scores = torch.as_tensor(saliency)
    expected = [len(rows), len(rows[0])]
    if list(scores.shape) != expected:
        cure = "pass the map of these inputs, of one label where target='all' was asked for"
        raise ValueError(f"saliency must have shape {expected} like encoding, got {list(scores.shape)}; {cure}.")
    found = []
    for value, row, row_scores in zip(texts, rows, scores.tolist()):
        text, pair = (value, None) if isinstance(value, str) else split_pair(value)
        if pair is None and 1 in row.sequence_ids:
            raise ValueError("encoding holds pairs of texts: texts must be pairs too.")
        found.append(words_of(text, pair, row, row_scores))
    return found
