"""Words that a token map falls on, of texts and of pairs of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import BatchEncoding

from hf_mhex.modeling.mhex_words import ExplainedText, split_pair, token_places, words_of_pair


def words_of(text: str, pair: str | None, row, scores: Sequence[float]) -> ExplainedText:
    """The words of one text or pair, see `words_of_pair`.

    Args:
        row: the tokens, a `tokenizers.Encoding`.
        scores: the map, one number a token.
    """
    return words_of_pair(text, pair, *token_places(text, pair, row), scores)


def explain_words(texts, encoding: BatchEncoding, saliency) -> list[ExplainedText]:
    """Add token maps up to words, for a batch as it comes from a fast tokenizer and `generate_saliency`.

    Args:
        texts: the B texts that were tokenized, or pairs of them (tuples or dicts of `text` and `text_pair`); a string
            is a batch of one.
        encoding: `tokenizer(texts, ...)`, with any padding and truncation; it knows its offsets by itself.
        saliency: the maps of one label, [B, T].

    Returns B texts, see `words_of_pair`. Raises ValueError for an encoding without offsets (of a slow tokenizer, or a
    plain dict), and for texts or a saliency that do not fit the encoding.
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
