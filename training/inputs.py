"""Batches of rows: texts are tokenized and padded; images are augmented, processed and stacked; signals stacked."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import Dataset

from hf_mhex.data.images import read_image, to_pixel_values
from hf_mhex.data.rows import Rows
from hf_mhex.training.settings import ProcessingSettings


class TokenizedRows(Dataset):
    """Rows of texts, tokenized once, so that their lengths are known; cut at the tokenizer's `model_max_length`."""

    def __init__(self, rows: Rows, tokenizer):
        self.labels, self.epoch = rows.labels, 0
        texts = [rows[number]["text"] for number in range(len(rows))]
        self.encodings = tokenizer(texts, truncation=True)
        self.lengths = np.array([len(ids) for ids in self.encodings["input_ids"]])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict:
        return {name: values[row] for name, values in self.encodings.items()} | {"labels": self.labels[row]}

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's data loaders before each epoch."""
        self.epoch = epoch


class TextCollator:
    """Pads tokenized rows to the longest of the batch."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        encodings = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
        batch = dict(self.tokenizer.pad(encodings, return_tensors="pt"))
        return batch | {"labels": torch.as_tensor(np.stack([row["labels"] for row in rows]))}


class SignalCollator:
    """Standardises and stacks signals by their feature extractor."""

    def __init__(self, extractor):
        self.extractor = extractor

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        values = self.extractor([row["signal"] for row in rows], return_tensors="pt")
        return {**values, "labels": torch.as_tensor(np.stack([row["labels"] for row in rows]))}


class ImageCollator:
    """Crops, processes, mirrors, shifts and joins to mosaics; all that is drawn depends on (seed, epoch, row) alone."""

    def __init__(self, processor, settings: ProcessingSettings, num_channels: int):
        self.processor, self.settings, self.num_channels = processor, settings, num_channels

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        draws = [None if row["draw"] is None else generator_for(*row["draw"]) for row in rows]
        images = [read_image(row["image"], self.num_channels) for row in rows]
        images = [image if draw is None else self.crop(image, draw) for image, draw in zip(images, draws)]
        pixels = torch.stack([to_pixel_values(image, self.processor) for image in images])
        for row, draw in enumerate(draws):
            if draw is not None:
                pixels[row] = self.move(pixels[row], draw)
        labels = torch.as_tensor(np.stack([row["labels"] for row in rows]))
        if draws[0] is not None and self.joins(rows[0]["draw"][1], draws[0]):
            pixels, labels = mosaics_of(pixels, labels)
        return {"pixel_values": pixels, "labels": labels}

    def joins(self, epoch: int, draw: torch.Generator) -> bool:
        """Whether a batch of this epoch becomes mosaics."""
        last = self.settings.mosaic_epochs
        return (last is None or epoch < last) and bool(torch.rand((), generator=draw) < self.settings.mosaics)

    def crop(self, image, draw: torch.Generator):
        """A random rectangle of an area in [min_area, 1], of an aspect in [3/4, 4/3] of the image's own."""
        if self.settings.min_area >= 1:
            return image
        area, aspect, left, top = torch.rand(4, generator=draw).tolist()
        area = self.settings.min_area + area * (1 - self.settings.min_area)
        stretch = math.exp((2 * aspect - 1) * math.log(4 / 3) / 2)
        pixels = np.asarray(image)
        height = max(1, round(pixels.shape[0] * min(1.0, math.sqrt(area) / stretch)))
        width = max(1, round(pixels.shape[1] * min(1.0, math.sqrt(area) * stretch)))
        x, y = int(left * (pixels.shape[1] - width + 1)), int(top * (pixels.shape[0] - height + 1))
        part = pixels[y : y + height, x : x + width]
        return part if isinstance(image, np.ndarray) else Image.fromarray(part)

    def move(self, pixels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Mirror with probability `flip`, then shift by whole pixels, edges continued; pixels [C, H, W]."""
        flip, down, right = torch.rand(3, generator=draw).tolist()
        if flip < self.settings.flip:
            pixels = pixels.flip(-1)
        height, width = pixels.shape[-2:]
        reach = round(self.settings.shift * min(height, width))
        if reach == 0:
            return pixels
        top, left = int(down * (2 * reach + 1)), int(right * (2 * reach + 1))
        padded = F.pad(pixels[None], (reach,) * 4, mode="replicate")[0]
        return padded[:, top : top + height, left : left + width]


def mosaics_of(pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mosaics of 2 x 2 images, [M, C, 2 H, 2 W], and their labels by part, [M, 2, 2] or [M, 2, 2, K].

    Every image stands in one; the first ones again where the last mosaic would have gaps.
    """
    rows, (channels, height, width) = len(pixels), pixels.shape[1:]
    places = torch.arange(-(-rows // 4) * 4) % rows
    parts = pixels[places].view(-1, 2, 2, channels, height, width)
    joined = parts.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, 2 * height, 2 * width)
    return joined, labels[places].unflatten(0, (-1, 2, 2))


def generator_for(seed: int, epoch: int, row: int) -> torch.Generator:
    """Random numbers of one row in one epoch of one run."""
    mixed = np.random.SeedSequence((seed, epoch, row)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))
