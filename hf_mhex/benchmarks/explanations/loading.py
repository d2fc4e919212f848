"""How do rows of pictures or texts become a part that explanations are judged on?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from hf_mhex.benchmarks.explanations.parts import Images, Texts


def image_part(pictures: Sequence[Image.Image], labels: Sequence[int], processor, num_channels: int = 3) -> Images:
    """Pictures through an image processor."""
    mode = "L" if num_channels == 1 else "RGB"
    pixels = [processor(picture.convert(mode), return_tensors="pt")["pixel_values"] for picture in pictures]
    return Images(torch.cat(pixels), torch.as_tensor(labels).long())


def text_part(texts: Sequence[str], labels: Sequence[int], tokenizer, most: int) -> Texts:
    """Texts through a tokenizer, cut at `most` tokens.

    Raises ValueError for a tokenizer without a mask token: what stands for a removed word must be known to the network.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError("tokenizer must have a mask token; measures by removal put it in a word's place.")
    rows = tokenizer(list(texts), truncation=True, max_length=most)["input_ids"]
    ids = tuple(torch.tensor(row) for row in rows)
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id} - {None}
    labels = torch.as_tensor(labels).long()
    return Texts(ids, labels, tokenizer.mask_token_id, tokenizer.pad_token_id, tuple(sorted(special)))


def shuffled(count: int, seed: int) -> list[int]:
    """Row numbers in an order drawn from the seed, so that the first few are a fair sample."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
