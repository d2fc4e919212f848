"""Features that can be taken from one row, wholly or in part: cells of an image, content tokens of a text.

Both answer for presences [M, N] in [0, 1]: 1 leaves a feature, 0 puts the baseline there, values between mix the two
(of pixels, or of word embeddings). Presences outside [0, 1] extrapolate.
"""

from __future__ import annotations

import numpy as np
import torch

from hf_mhex.baselines.networks import device_of, grid_of, logits_of

CHUNK = 64  # rows in one pass


def rows_of(inputs) -> list:
    """The rows of a batch: images [C, H, W], or dicts of one text each."""
    if not isinstance(inputs, dict):
        return list(inputs)
    shared = {name: value for name, value in inputs.items() if not isinstance(value, torch.Tensor)}
    length = len(inputs["input_ids"])
    return [
        {name: value[row] for name, value in inputs.items() if isinstance(value, torch.Tensor)} | shared
        for row in range(length)
    ]


class Cells:
    """Square cells (`grid_of`) of an image [C, H, W] whose baseline is 0; answers are on the CPU."""

    def __init__(self, model, image: torch.Tensor, target: int, cells: int):
        self.model, self.image, self.target = model, image, target
        height, width = image.shape[-2:]
        lines, columns = grid_of((height, width), cells)
        line = torch.arange(height) * lines // height
        column = torch.arange(width) * columns // width
        self.number = line[:, None] * columns + column
        self.count = lines * columns
        self.positions = np.stack(np.divmod(np.arange(self.count), columns), 1).astype(float)

    def to_map(self, values: torch.Tensor) -> torch.Tensor:
        """The map [H, W] of values [N]: each cell's is spread evenly over its pixels, so that sums stay."""
        sizes = torch.bincount(self.number.flatten(), minlength=self.count)
        return (values.float() / sizes)[self.number]

    def logits(self, presence) -> torch.Tensor:
        """Logits [M, K] for presences [M, N]."""
        presence = torch.as_tensor(presence, dtype=self.image.dtype, device=self.image.device)
        with torch.no_grad():
            parts = [
                logits_of(self.model(part[:, self.number][:, None] * self.image)) for part in presence.split(CHUNK)
            ]
        return torch.cat(parts).cpu()

    def probability(self, presence) -> torch.Tensor:
        """Probability of the target, [M], float64."""
        return self.logits(presence).double().softmax(-1)[:, self.target]

    def logit(self, presence) -> torch.Tensor:
        """Logit of the target, [M], float64."""
        return self.logits(presence).double()[:, self.target]


class Tokens(Cells):
    """Content tokens of one text, a dict of input_ids [T], attention_mask [T], mask_id and special_ids."""

    def __init__(self, model, row: dict, target: int):
        self.model, self.target = model, target
        self.ids, self.mask = row["input_ids"], row["attention_mask"]
        special = torch.isin(self.ids, self.ids.new_tensor(list(row["special_ids"])))
        self.places = ((self.mask != 0) & ~special).nonzero()[:, 0].cpu()
        self.count = len(self.places)
        self.positions = np.arange(self.count, dtype=float)[:, None]
        embed = model.get_input_embeddings()
        with torch.no_grad():
            self.embedded, self.empty = embed(self.ids), embed(self.ids.new_tensor(row["mask_id"]))

    def to_map(self, values: torch.Tensor) -> torch.Tensor:
        """The map [T] of values [N]; 0 on special tokens and padding."""
        found = torch.zeros(len(self.ids))
        found[self.places] = values.float()
        return found

    def logits(self, presence) -> torch.Tensor:
        """Logits [M, K] for presences [M, N]."""
        presence = torch.as_tensor(presence, dtype=self.embedded.dtype, device=device_of(self.model))
        parts = []
        with torch.no_grad():
            for part in presence.split(CHUNK):
                there = part.new_ones(len(part), len(self.ids), 1)
                there[:, self.places, 0] = part
                mixed = there * self.embedded + (1 - there) * self.empty
                mask = self.mask.expand(len(part), -1)
                parts.append(logits_of(self.model(inputs_embeds=mixed, attention_mask=mask)))
        return torch.cat(parts).cpu()


def features_of(model, row, target: int, cells: int) -> Cells | Tokens:
    """The features of one row."""
    return Tokens(model, row, target) if isinstance(row, dict) else Cells(model, row, target, cells)
