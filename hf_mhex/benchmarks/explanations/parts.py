"""Rows that explanations are judged on: one part of a set, ready for networks, and how many each measure gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from hf_mhex.baselines.networks import device_of, logits_of


@dataclass(frozen=True)
class Sizes:
    """How many rows each measure gets; slow methods (many passes a row) and the random logit get the first `slow`.

    Args:
        rows: of measures by removal and of the drops. questions: of the 2 x 2 Grid Pointing Game; the 3 x 3 one gets
            half, and slow methods are not asked it. sanity: of the parameter randomisation, which makes each map anew
            for every stage, and of slow methods' random logit. chosen: rows of the validation part that settings are
            chosen on. samples: random subsets of sensitivity-n and infidelity. steps: of insertion and deletion.
    """

    rows: int = 96
    questions: int = 72
    sanity: int = 8
    slow: int = 24
    chosen: int = 24
    samples: int = 32
    steps: int = 14

    def __post_init__(self):
        for name, value in asdict(self).items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}.")


@dataclass(frozen=True)
class Images:
    """Images [N, C, H, W] as networks take them, or signals as strips [N, C, 1, L], and their labels [N]."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows) -> Images:
        """The given rows, in that order."""
        return Images(self.pixels[rows], self.labels[rows])

    def batches(self, size: int):
        """Inputs of `size` rows at a time, with the rows' numbers."""
        for rows in torch.arange(len(self)).split(size):
            yield rows, self.pixels[rows]


@dataclass(frozen=True)
class Texts:
    """Token numbers of N texts, each a tensor [T], their labels [N] and the tokenizer's special numbers."""

    ids: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    mask_id: int
    pad_id: int
    special_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows) -> Texts:
        """The given rows, in that order."""
        rows = torch.as_tensor(rows)
        return Texts(
            tuple(self.ids[row] for row in rows.tolist()),
            self.labels[rows],
            self.mask_id,
            self.pad_id,
            self.special_ids,
        )

    def batches(self, size: int):
        """Inputs of `size` rows of about one length at a time, with the rows' numbers."""
        order = torch.tensor([len(ids) for ids in self.ids]).argsort(stable=True)
        for rows in order.split(size):
            yield rows, self.inputs(rows)

    def inputs(self, rows) -> dict:
        """The inputs that methods take, padded to the longest of the rows."""
        chosen = [self.ids[row] for row in torch.as_tensor(rows).tolist()]
        padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(ids) for ids in chosen])
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        special = {"mask_id": self.mask_id, "pad_id": self.pad_id, "special_ids": self.special_ids}
        return {"input_ids": padded, "attention_mask": mask, **special}


def image_scores(model) -> Callable[[torch.Tensor], torch.Tensor]:
    """Logits [M, K] of images [M, C, H, W], without gradients, on the device of the images."""

    def scores(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return logits_of(model(pixels.to(device_of(model)))).to(pixels.device)

    return scores


def text_scores(model) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Logits [M, K] of (input_ids, attention_mask), without gradients, on the device of the texts."""

    def scores(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        inputs = on_device({"input_ids": input_ids, "attention_mask": attention_mask}, device_of(model))
        with torch.no_grad():
            return logits_of(model(**inputs)).to(input_ids.device)

    return scores


def on_device(inputs: dict, device: torch.device) -> dict:
    """The inputs of a text method with their tensors on a device."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def maps_of(call: Callable, model, inputs, target: torch.Tensor) -> torch.Tensor:
    """A method's maps, on the CPU; its inputs are brought to the network's device."""
    device = device_of(model)
    there = on_device(inputs, device) if isinstance(inputs, dict) else inputs.to(device)
    return call(model, there, target.to(device)).cpu()


def probabilities(scores: Callable) -> Callable:
    """The same with softmax."""
    return lambda *inputs: scores(*inputs).softmax(-1)


def logits_of_part(model, part: Images | Texts, size: int = 64) -> torch.Tensor:
    """Logits of every row, [N, K]."""
    found = None
    for rows, inputs in part.batches(size):
        if isinstance(part, Images):
            answer = image_scores(model)(inputs)
        else:
            answer = text_scores(model)(inputs["input_ids"], inputs["attention_mask"])
        found = answer.new_zeros(len(part), answer.shape[-1]) if found is None else found
        found[rows] = answer
    return found
