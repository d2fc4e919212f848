"""Tokens of any tokenizer become a text with scored words again, none lost, on whatever side they are padded."""

from string import ascii_lowercase

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_mhex.pictures.channels import text_of_ids
from minilm import MINILM

SPECIAL = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
PIECES = ["good", "batter", "y", "is", "poor", "4", "2", "[", "don", "'", "t", ","]


def tokenizer_of(marks):
    """A small fast tokenizer that marks a word's pieces as WordPiece, byte-level BPE or SentencePiece do."""
    if marks == "##":
        return AutoTokenizer.from_pretrained(MINILM)
    byte_level = marks == "\u0120"
    pieces = [*SPECIAL.values(), *PIECES, *(marks + piece for piece in PIECES), marks, *ascii_lowercase]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.Unigram([(piece, -float(number)) for piece, number in vocabulary.items()], unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel() if byte_level else pre_tokenizers.Metaspace()
    backend.decoder = decoders.ByteLevel() if byte_level else decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, vocabulary[name]) for name in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("marks", ["##", "\u0120", "\u2581"])
@pytest.mark.parametrize("text", ["good battery is poor", "battery 42 is poor", "battery [ good"])
def test_words_of_every_tokenizer(marks, text, side):
    tokenizer = tokenizer_of(marks)
    tokenizer.padding_side = side
    ids = tokenizer(text, padding="max_length", max_length=16)["input_ids"]
    scores = [float(number + 1) if token != tokenizer.pad_token_id else 0.0 for number, token in enumerate(ids)]
    explained = text_of_ids(ids, scores, tokenizer)
    assert [word.text.strip() for word in explained.words] == text.split()  # some count the space before a word in
    assert explained.total == pytest.approx(sum(scores))
    frame = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert explained.special == sum(score for score, token in zip(scores, ids) if token in frame)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ("[CLS] don ' t stop [UNK] [SEP]", ["don", "'", "t", "stop", "[UNK]"]),
        ("[CLS] ##y 4 ##2 [MASK] [SEP]", ["##y", "4", "##2", "[MASK]"]),  # not what the tokenizer would write
        ("[CLS] [SEP]", []),
    ],
)
def test_no_token_is_lost(tokens, words):
    tokenizer = tokenizer_of("##")
    ids = tokenizer.convert_tokens_to_ids(tokens.split())
    explained = text_of_ids(ids, [1.0] * len(ids), tokenizer)
    assert explained.total == len(ids) and explained.special == 2
    assert [word.text for word in explained.words] == words
