"""Words from token scores: word pieces are added up to words by character offsets, so that sums stay."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Word:
    """A word `text`, the characters [start, end) of the source text, and the sum of its tokens' scores.

    Of a pair of texts, `segment` is 0 for the first and 1 for the second.
    """

    text: str
    start: int
    end: int
    score: float
    segment: int = 0


@dataclass(frozen=True)
class ExplainedText:
    """A text, its words in reading order, and the share of the special tokens ([CLS], [SEP]).

    `sum of word.score + special` is the sum of the token scores that the words were made from. Characters that no
    word covers are the spaces between words, what the tokenizer dropped, and what truncation cut off.
    """

    text: str
    words: tuple[Word, ...]
    special: float

    @property
    def total(self) -> float:
        """The sum of all words and the special tokens; of a raw contribution map, what the model calls `explained`."""
        return math.fsum([*(word.score for word in self.words), self.special])

    def segments(self) -> Iterator[tuple[str, Word | None]]:
        """The whole text in order, as (characters, their word) and (characters between words, None)."""
        position = 0
        for word in self.words:
            if word.start > position:
                yield self.text[position : word.start], None
            yield word.text, word
            position = word.end
        if position < len(self.text):
            yield self.text[position:], None


def split_pair(value) -> tuple[str, str | None]:
    """The text and its second one, or None, of a string, a pair, or a dict of `text` and `text_pair`.

    Raises TypeError for another value.
    """
    if isinstance(value, dict):
        unknown = sorted(set(value) - {"text", "text_pair"})
        if unknown or "text" not in value:
            raise TypeError(f"a pair must be a dict of 'text' and 'text_pair', got {', '.join(map(repr, value))}.")
        value = (value["text"], value.get("text_pair"))
    text, pair = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, None)
    if not isinstance(text, str) or not isinstance(pair, (str, type(None))):
        raise TypeError(f"the row must hold a text or a pair of texts, got {type(value).__name__}.")
    return text, pair


def read_texts(value) -> tuple[str, str | None]:
    """`split_pair` of a value to be explained; ValueError for nothing but white space and for half a character."""
    texts = split_pair(value)
    joined = "".join(filter(None, texts))
    if not joined.strip():
        raise ValueError("the row holds an empty text.")
    if half := [character for character in joined if "\ud800" <= character <= "\udfff"]:
        raise ValueError(f"the row holds half a character ({half[0]!r}, as of an emoji that was cut); take it out.")
    return texts


def token_places(text: str, pair: str | None, row) -> tuple[list[tuple[int, int]], list]:
    """Each token's character range and word in the text, or of a pair in both texts joined by a line feed.

    row: the tokens, a `tokenizers.Encoding`.
    """
    if pair is None:
        return row.offsets, row.word_ids
    shift = len(text) + 1
    segments = [segment or 0 for segment in row.sequence_ids]
    offsets = [(start + shift * segment, end + shift * segment) for (start, end), segment in zip(row.offsets, segments)]
    return offsets, [None if word is None else (segment, word) for word, segment in zip(row.word_ids, segments)]


def words_of_pair(text: str, pair: str | None, offsets, word_ids, scores: Sequence[float]) -> ExplainedText:
    """The words of one text or pair whose tokens stand where `token_places` says.

    Of a pair, the explained text is both, joined by a line feed; its words carry their segment, and `start` and `end`
    count in the joined text.
    """
    if pair is None:
        return words_from_tokens(text, offsets, word_ids, scores)
    found = words_from_tokens(f"{text}\n{pair}", offsets, word_ids, scores)
    return replace(found, words=tuple(replace(word, segment=int(word.start > len(text))) for word in found.words))


def own_places(text: str, words: Sequence[Word]) -> list[Word]:
    """The words of a text or pair with `start` and `end` counted in their own segment; `text` is the first."""
    shift = len(text) + 1
    return [replace(word, start=word.start - shift, end=word.end - shift) if word.segment else word for word in words]


def words_from_tokens(text: str, offsets: Sequence, word_ids: Sequence, scores: Sequence[float]) -> ExplainedText:
    """Add the scores of T tokens up to the words of `text`.

    A word is what the tokenizer's pre-tokenizer calls one: BERT's splits at white space and makes every punctuation
    mark and every Chinese character a word of its own, so "don't" is don, ' and t. Two refinements keep characters
    whole: marks that the tokenizer dropped behind a word (accents, variation selectors) belong to it, and words made
    from one and the same character (a ligature that stands for a phrase) are one word. A token without a word is
    special; so is padding, to which MHEX gives exactly 0.

    Args:
        text: the text that was tokenized, one segment.
        offsets: character range [start, end) of each token in `text`, T pairs.
        word_ids: number of the word that each token belongs to, None for special and padding tokens, T of them.
        scores: the map, T finite numbers.

    Raises ValueError for lengths that differ, a score that is not finite, and offsets that do not run through `text`
    in order (those of a second segment, of text split into words beforehand, or of another text).
    """
    if not len(offsets) == len(word_ids) == len(scores):
        lengths = f"{len(offsets)}, {len(word_ids)} and {len(scores)}"
        raise ValueError(f"offsets, word_ids and scores must have one entry for each token, got {lengths}.")
    special: list[float] = []
    spans: list[list[int]] = []  # start and end of each word
    shares: list[list[float]] = []  # the scores of its tokens
    last_id = None
    for (start, end), word_id, score in zip(offsets, word_ids, map(float, scores)):
        if not math.isfinite(score):
            raise ValueError(f"scores must be finite, got {score} for characters {(start, end)}; check the inputs.")
        same_word, last_id = word_id == last_id, word_id
        if word_id is None:
            special.append(score)
            continue
        floor = max(spans[-1][0], 0 if same_word else spans[-1][1] - 1) if spans else 0
        if not floor <= start <= end <= len(text):
            cure = "pass the one text that was tokenized, not a pair of texts and not a list of words"
            raise ValueError(f"offsets must run through the text in order, got {(start, end)} after {floor}; {cure}.")
        start += len(text[start:end]) - len(text[start:end].lstrip())  # some tokenizers count the space before a word
        if spans and (same_word or start < spans[-1][1]):
            spans[-1][1] = max(spans[-1][1], end)
            shares[-1].append(score)
        else:
            spans.append([start, end])
            shares.append([score])
    limits = [start for start, _ in spans[1:]] + [len(text)]
    ends = [_end_with_marks(text, end, limit) for (_, end), limit in zip(spans, limits)]
    words = (Word(text[start:end], start, end, math.fsum(share)) for (start, _), end, share in zip(spans, ends, shares))
    return ExplainedText(text, tuple(words), math.fsum(special))


def _end_with_marks(text: str, end: int, limit: int) -> int:
    """Move the end of a word behind the combining marks that follow it, not beyond `limit`."""
    while end < limit and unicodedata.category(text[end]).startswith("M"):
        end += 1
    return end
