"""Texts longer than a model: windows that overlap, one rule for their sum, and a refusal that names the way out."""

import pytest
import torch
from accelerate import dispatch_model
from transformers import AutoTokenizer

import hf_mhex
from hf_mhex.modeling.pipeline_mhex import TextSaliencyPipeline
from minilm import MINILM
from networks import lively_bert, text_batch

TEXT = " ".join(f"word {number} is good, the battery is not." for number in range(12))


def model_and_tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    return lively_bert(torch.float32, vocab_size=len(tokenizer)), tokenizer


@pytest.mark.parametrize("options", [{}, {"rollout": True}, {"target": 2, "decay": 0.9}])
def test_a_long_text_adds_up(options):
    model, tokenizer = model_and_tokenizer()
    why = hf_mhex.explain(model, tokenizer, TEXT, stride=5, contrast=None, **options)
    assert why.record["windows"] > 3 and not why.record["truncated"]
    assert len(why.saliency) == len(tokenizer(TEXT)["input_ids"])
    total = sum(word.score for word in why.parts) + why.record["special"]
    assert why.saliency.sum() == pytest.approx(why.explained, abs=1e-4) and total == pytest.approx(
        why.explained, abs=1e-4
    )
    if "decay" not in options:
        assert why.explained == pytest.approx(why.logit, abs=1e-4)
    assert why.parts[-1].text in ("not", "not.", ".")


def test_it_is_the_pipeline_s_rule_derived_again():
    model, tokenizer = model_and_tokenizer()
    why = hf_mhex.explain(model, tokenizer, TEXT, stride=5, target="all", contrast=None)
    pipe = TextSaliencyPipeline(model=model, tokenizer=tokenizer, long_text="windows", overlap=5, device="cpu")
    for answer in pipe(TEXT, target="all"):
        assert why[answer["target"]].record["words"] == answer["words"]
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    content, places = 38, range(0, len(ids) - 5, 38 - 5)
    logits, tokens = 0, 0
    for start in places:
        part = ids[start : start + content]
        window = torch.tensor([[tokenizer.cls_token_id, *part, tokenizer.sep_token_id]])
        with torch.no_grad():
            logits = logits + len(part) * model(input_ids=window).logits[0].double()
        tokens += len(part)
    for label, value in enumerate((logits / tokens).tolist()):
        assert why[label].logit == pytest.approx(value, abs=1e-4)


def test_a_model_over_several_devices(tmp_path):
    model, tokenizer = model_and_tokenizer()
    expected = hf_mhex.explain(model, tokenizer, TEXT, stride=5)
    places = {model.base_model_prefix: "cpu", "heads": "disk"}
    spread = dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    assert hf_mhex.explain(spread, tokenizer, TEXT, stride=5).saliency == pytest.approx(expected.saliency, abs=1e-6)


@pytest.mark.parametrize("blocks", [None, 0, [-1], [0, 1, 2]])
def test_the_sentence_names_blocks_as_without_windows(blocks):
    model, tokenizer = model_and_tokenizer()
    one, plain = (hf_mhex.explain(model, tokenizer, "a phone", blocks=blocks, **way) for way in ({"stride": 3}, {}))
    assert one.record["sentence"] == plain.record["sentence"]


def test_a_short_text_is_one_window():
    model, tokenizer = model_and_tokenizer()
    one, plain = (hf_mhex.explain(model, tokenizer, "a good phone", **way) for way in ({"stride": 3}, {}))
    assert one.record["windows"] == 1 and one.label == plain.label
    assert one.saliency == pytest.approx(plain.saliency, abs=1e-5)


def test_an_absent_word_is_what_the_caller_names():
    model, tokenizer = model_and_tokenizer()
    for given in ({}, {"mask_token_id": 2000}):
        ways = ({"stride": 3}, {})
        one, plain = (hf_mhex.explain(model, tokenizer, "a good phone", refine=2, **way, **given) for way in ways)
        assert one.saliency == pytest.approx(plain.saliency, abs=1e-5)
    assert one.saliency != pytest.approx(hf_mhex.explain(model, tokenizer, "a good phone", refine=2).saliency, abs=1e-3)


def test_what_cannot_be_is_named():
    model, tokenizer = model_and_tokenizer()
    for stride in (38, -1, "5", True):
        with pytest.raises(ValueError, match=rf"stride must lie in \[0, 37\], below a window's tokens; got {stride!r}"):
            hf_mhex.explain(model, tokenizer, TEXT, stride=stride)
    with pytest.raises(ValueError, match="empty text"):
        hf_mhex.explain(model, tokenizer, " \n", stride=3)
    for target in ([1], torch.tensor([1])):
        with pytest.raises(TypeError, match="target must be None, a label, its index or 'all' with stride, got "):
            hf_mhex.explain(model, tokenizer, TEXT, stride=3, target=target)
    with pytest.raises(TypeError, match="stride reads one text in windows, got tuple"):
        hf_mhex.explain(model, tokenizer, (TEXT, TEXT), stride=3)
    with pytest.raises(ValueError, match=r"has 60 tokens, but the model has 40 positions; .*stride=32"):
        model(**text_batch(length=60))
