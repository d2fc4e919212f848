"""Which words does a token map fall on? The words of a batch as it comes from a fast tokenizer."""

from collections.abc import Sequence

import torch
from transformers import BatchEncoding

from hf_mhex.modeling.mhex_words import ExplainedText, Word, words_from_tokens

__all__ = ["ExplainedText", "Word", "explain_words", "words_from_tokens"]


def explain_words(texts: str | Sequence[str], encoding: BatchEncoding, saliency) -> list[ExplainedText]:
    """Add token maps up to words, for a batch as it comes from a fast tokenizer and `generate_saliency`.

    Args:
        texts: the B texts that were tokenized; a string is a batch of one.
        encoding: `tokenizer(texts, ...)`, with any padding and truncation; it knows its offsets by itself.
        saliency: the maps of one label, [B, T].

    Returns B texts, see `words_from_tokens`. Raises ValueError for an encoding without offsets (of a slow tokenizer,
    or a plain dict), for pairs of texts, and for texts or a saliency that do not fit the encoding.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
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
    if any(1 in row.sequence_ids for row in rows):
        raise ValueError("encoding must hold single texts, got pairs; split each with words_from_tokens by segment.")
    return [
        words_from_tokens(text, row.offsets, row.word_ids, row_scores)
        for text, row, row_scores in zip(texts, rows, scores.tolist())
    ]
