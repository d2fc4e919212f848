"""Parts of a set from pictures, signals or texts with their labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hf_mhex.benchmarks.explanations.parts import Images, Texts
from hf_mhex.data.images import read_image, to_pixel_values
from hf_mhex.evaluation.drop import special_ids


def image_part(pictures: Sequence, labels: Sequence[int], processor, num_channels: int = 3) -> Images:
    """Pictures, as `read_image` takes them, through an image processor."""
    pixels = [to_pixel_values(read_image(picture, num_channels), processor) for picture in pictures]
    return Images(torch.stack(pixels), torch.as_tensor(labels).long())


def signal_part(signals: Sequence, labels: Sequence[int], extractor) -> Images:
    """Signals [L] or [C, L] of one length through a feature extractor, as strips [N, C, 1, L].

    Raises ValueError for several lengths, and for fewer points than removals need, of which ROAD leaves a fifth.
    """
    values = [torch.as_tensor(extractor(signal, return_tensors="pt")["input_values"]) for signal in signals]
    lengths = sorted({value.shape[-1] for value in values})
    if len(lengths) > 1:
        raise ValueError(f"signals must all have one length, got {lengths[0]} to {lengths[-1]} points; resample them.")
    strips = torch.cat(values)[:, :, None]
    if strips.shape[-1] < 5:
        raise ValueError(f"signals must have at least 5 points to be judged by removal, got {strips.shape[-1]}.")
    return Images(strips, torch.as_tensor(labels).long())


def text_part(texts: Sequence[str], labels: Sequence[int], tokenizer, most: int) -> Texts:
    """Texts through a tokenizer, cut at `most` tokens.

    Raises ValueError for a tokenizer without a mask token: what stands for a removed word must be known to the network.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError("tokenizer must have a mask token; measures by removal put it in a word's place.")
    rows = tokenizer(list(texts), truncation=True, max_length=most)["input_ids"]
    ids = tuple(torch.tensor(row) for row in rows)
    labels = torch.as_tensor(labels).long()
    return Texts(ids, labels, tokenizer.mask_token_id, tokenizer.pad_token_id, special_ids(tokenizer))


def shuffled(count: int, seed: int) -> list[int]:
    """Row numbers in an order drawn from the seed, so that the first few are a fair sample."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
