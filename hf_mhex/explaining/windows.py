"""Texts beyond a model's positions, explained in overlapping windows."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from hf_mhex.families import family_of
from hf_mhex.modeling.mhex_words import ExplainedText, own_places
from hf_mhex.modeling.pipeline_mhex import TextSaliencyPipeline, join_windows, scores_of, token_scores, word_scores
from hf_mhex.processors import max_length


def explain_windows(
    model, tokenizer, text: str, stride: int, options: dict
) -> list[tuple[dict, np.ndarray, ExplainedText, np.ndarray]]:
    """Of a text of any length, by explained label: record, map [T] over all tokens, words and logits [K].

    Logits and maps are the windows' means, weighed by their tokens (`join_windows`), as those of the pipeline with
    `long_text="windows"`: the map adds up to the joined logit as exactly as a window's does to its own.

    Args:
        stride: tokens that a window shares with the one before.
        options: of `generate_saliency`; `target` a label's index, "all" or None.

    Raises TypeError for a model of no texts, a pair of texts and a target of another kind, ValueError for an empty text
    and for a stride that leaves a window no token of its own.
    """
    if (kind := family_of(model).kind) != "text":
        raise TypeError(f"stride reads one text in windows, and the model reads one {kind}; leave stride out.")
    if not isinstance(text, str):
        raise TypeError(f"stride reads one text in windows, got {type(text).__name__}; leave stride out.")
    options = dict(options)
    if not options.pop("upsample", True):
        raise ValueError("upsample must be True with stride: windows are joined by their combined maps.")
    target, normalize = options.pop("target", None), options.pop("normalize", None)
    if not (target is None or isinstance(target, Integral) or (isinstance(target, str) and target == "all")):
        raise TypeError(f"target must be None, a label, its index or 'all' with stride, got {target!r}.")
    # a pipeline refuses a device beside a map of devices
    device = model.device if getattr(model, "hf_device_map", None) is None else None
    pipeline = TextSaliencyPipeline(model=model, tokenizer=tokenizer, device=device)
    content = max_length(model, tokenizer) - tokenizer.num_special_tokens_to_add()
    if type(stride) is not int or not 0 <= stride < content:
        raise ValueError(f"stride must lie in [0, {content - 1}], below a window's tokens; got {stride!r}.")
    parts = pipeline.preprocess(text, long_text="windows", overlap=stride)
    windows = [pipeline.forward(part, target=target, **options) for part in parts]
    weights, logits, explained = join_windows(windows)
    scores, found = scores_of(logits, model.config), []
    labels = range(len(logits)) if target == "all" else [int(logits.argmax()) if target is None else int(target)]
    for label in labels:
        row = label if len(explained) > 1 else 0
        tokens = token_scores(windows, weights, row, normalize)
        saliency, words = tokens[0].numpy(), word_scores(windows, tokens)
        record = {
            "label": model.config.id2label[label],
            "target": label,
            "score": float(scores[label]),
            "logit": float(logits[label]),
            "sum": float(saliency.sum()),
            "explained": float(explained[row]),
            "special": words.special,
            "words": [vars(word) for word in own_places(text, words.words)],
            "truncated": False,
            "windows": len(windows),
        }
        found.append((record, saliency, words, logits.float().numpy()))
    return found
