"""How do rows of data become batches of a model's inputs? Images of one size, texts of near lengths, errors apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from hf_mhex.data.source import Row, read_image
from hf_mhex.explaining.words import words_from_tokens


@dataclass
class Prepared:
    """A row, its share of a batch (`inputs`), and what else its record says of it."""

    row: Row
    inputs: Any
    record: dict = field(default_factory=dict)
    encoding: Any = None


def prepare_images(rows: Sequence[Row], processor, config) -> Iterator[Prepared | tuple[Row, Exception]]:
    """Each image as pixels [C, H, W], or its row with what was raised."""
    for row in rows:
        try:
            image = read_image(row.value, config.num_channels)
            yield Prepared(row, processor(image, return_tensors="pt")["pixel_values"][0])
        except Exception as error:  # whatever a broken file makes Pillow raise
            yield row, error


def image_batches(prepared: Sequence[Prepared], batch_size: int) -> Iterator[list[Prepared]]:
    """Batches of images of one size."""
    by_size = sorted(prepared, key=lambda item: tuple(item.inputs.shape))
    for _, group in groupby(by_size, key=lambda item: tuple(item.inputs.shape)):
        yield from _chunks(list(group), batch_size)


def collate_images(batch: Sequence[Prepared], processor) -> dict[str, torch.Tensor]:
    """pixel_values [B, C, H, W]."""
    return {"pixel_values": torch.stack([item.inputs for item in batch])}


def prepare_texts(rows: Sequence[Row], tokenizer, config) -> Iterator[Prepared | tuple[Row, Exception]]:
    """Each text as token ids and offsets, or its row with what is wrong with it; too long ones are cut off."""
    good = []
    for row in rows:
        if not isinstance(row.value, str):
            yield row, TypeError(f"the row must hold a text, got {type(row.value).__name__}.")
        elif not row.value.strip():
            yield row, ValueError("the row holds an empty text.")
        else:
            good.append(row)
    if not good:
        return
    longest = min(tokenizer.model_max_length, config.max_position_embeddings)
    encoding = tokenizer([row.value for row in good], truncation=True, max_length=longest)
    for index, row in enumerate(good):
        found = encoding.encodings[index]
        inputs = {name: values[index] for name, values in encoding.items()}
        yield Prepared(row, inputs, {"truncated": bool(found.overflowing)}, found)


def text_batches(prepared: Sequence[Prepared], batch_size: int) -> Iterator[list[Prepared]]:
    """Batches of texts in the order of their lengths, so that little is padded."""
    yield from _chunks(sorted(prepared, key=lambda item: len(item.inputs["input_ids"])), batch_size)


def collate_texts(batch: Sequence[Prepared], tokenizer) -> dict[str, torch.Tensor]:
    """Token ids, mask and whatever else the tokenizer gives, [B, T]."""
    names = batch[0].inputs
    return dict(tokenizer.pad({name: [item.inputs[name] for item in batch] for name in names}, return_tensors="pt"))


def collate_targets(batch: Sequence[Prepared]) -> torch.Tensor:
    """The rows' own targets, [B]; ValueError where one is missing."""
    targets = [item.row.target for item in batch]
    if None in targets:
        raise ValueError("the row holds no target.")
    return torch.tensor(targets)


def words_record(item: Prepared, scores: Sequence[float]) -> dict:
    """The columns of a text's words: `words`, `word_scores`, and the share of the special tokens."""
    found = words_from_tokens(item.row.value, item.encoding.offsets, item.encoding.word_ids, scores)
    names, values = [word.text for word in found.words], [word.score for word in found.words]
    return {"words": names, "word_scores": values, "special": found.special}


def _chunks(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
