"""Games v(keep) over the features of one row: what a network says when part of an input is removed.

Most measures of faithfulness are functions of such a game alone: `v(keep [M, N] of bools) -> [M]` is the score of the
explained class when only the kept features are there. What "removed" means is the game's own choice, and it decides
the outcome as much as the map does, so that every table names it.

`scores` is called with a batch and gives [M, K]: softmax probabilities for all measures but sensitivity-n and
infidelity, whose papers take the logit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hf_mhex.evaluation.controls import gaussian_blur
from hf_mhex.evaluation.drop import content_tokens
from hf_mhex.evaluation.imputation import impute
from hf_mhex.evaluation.ordering import float64

Scores = Callable[..., torch.Tensor]
FILLS = ("zero", "mean", "blur", "impute")


class RememberedGame:
    """A game that puts each question to the network once, for many measures and maps judged on one row.

    Random subsets are the same for every map, and orders of few features often name the same ones. Only for games that
    answer alike in every batch, and of few features: every answer is kept.
    """

    def __init__(self, game: Callable[[torch.Tensor], torch.Tensor]):
        self.game = game
        self.answers: dict[bytes, float] = {}

    def __call__(self, keep: torch.Tensor) -> torch.Tensor:
        """Score of the target, [M], float64, for keep [M, N]."""
        asked = [row.tobytes() for row in keep.bool().numpy()]
        fresh = {key: place for place, key in enumerate(asked) if key not in self.answers}
        if fresh:
            self.answers.update(zip(fresh, self.game(keep[list(fresh.values())]).tolist()))
        return torch.tensor([self.answers[key] for key in asked], dtype=torch.float64)


@dataclass(frozen=True)
class ImageGame:
    """Pixels of one image [C, H, W], numbered row by row; a map [H, W] is flattened alike.

    Args:
        scores: [M, K] of images [M, C, H, W]. target: the explained class.
        fill: what stands for a removed pixel: "zero" (of the normalised input: the data's mean colour), "mean" (the
            image's own mean colour), "blur" (a Gaussian of a tenth of the side) or "impute" (ROAD's noisy linear
            imputation from the pixels that stay).
        chunk: images in one call of `scores`. noise, seed: of the imputation.
    """

    scores: Scores
    image: torch.Tensor
    target: int
    fill: str = "zero"
    chunk: int = 64
    noise: float = 0.01
    seed: int = 0

    def __post_init__(self):
        if self.fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(map(repr, FILLS))}; got {self.fill!r}.")

    @property
    def features(self) -> int:
        """The number of pixels."""
        return self.image[0].numel()

    def __call__(self, keep: torch.Tensor) -> torch.Tensor:
        """Score of the target, [M], float64, for keep [M, H * W]."""
        keep = keep.view(-1, 1, *self.image.shape[1:]).bool()
        found = [self._score(part) for part in keep.split(self.chunk)]
        return torch.cat(found)

    def _score(self, keep: torch.Tensor) -> torch.Tensor:
        if self.fill == "impute":
            changed = impute(self.image, keep[:, 0], self.noise, self.seed)
        else:
            changed = torch.where(keep, self.image, self._background())
        return float64(self.scores(changed)[:, self.target])

    def _background(self) -> torch.Tensor:
        if self.fill == "zero":
            return torch.zeros_like(self.image)
        if self.fill == "mean":
            return self.image.mean((1, 2), keepdim=True).expand_as(self.image)
        return gaussian_blur(self.image, 0.1 * max(self.image.shape[1:]))


@dataclass(frozen=True)
class TextGame:
    """Content tokens of one text [T]: special tokens and padding are always kept and are no features.

    Args:
        scores: [M, K] of (input_ids, attention_mask), each [M, T']. target: the explained class.
        how: "mask" puts [MASK] in a removed token's place (positions stay), "delete" takes it out and closes the gap.
        mask_id, pad_id, special_ids: of the tokenizer; "mask" needs the first, "delete" the second.
    """

    scores: Scores
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    target: int
    how: str = "mask"
    mask_id: int | None = None
    pad_id: int | None = None
    special_ids: tuple[int, ...] = ()
    chunk: int = 64

    def __post_init__(self):
        if self.how not in ("mask", "delete"):
            raise ValueError(f"how must be 'mask' or 'delete', got {self.how!r}.")
        needed = "mask_id" if self.how == "mask" else "pad_id"
        if getattr(self, needed) is None:
            raise ValueError(f"how={self.how!r} needs {needed}; the tokenizer has none.")

    @property
    def places(self) -> torch.Tensor:
        """Positions of the content tokens, [N]."""
        return content_tokens(self.input_ids, self.attention_mask, self.special_ids).nonzero()[:, 0]

    @property
    def features(self) -> int:
        """The number of content tokens."""
        return len(self.places)

    def __call__(self, keep: torch.Tensor) -> torch.Tensor:
        """Score of the target, [M], float64, for keep [M, N]."""
        stays = (self.attention_mask != 0).repeat(len(keep), 1)
        stays[:, self.places] = keep.bool()
        found = [self._score(part) for part in stays.split(self.chunk)]
        return torch.cat(found)

    def _score(self, stays: torch.Tensor) -> torch.Tensor:
        if self.how == "mask":
            there = (self.attention_mask != 0).expand_as(stays)
            ids = self.input_ids.where(stays | ~there, self.mask_id)
        else:
            width = max(1, int(stays.sum(1).max()))
            order = stays.int().argsort(dim=1, descending=True, stable=True)[:, :width]
            there = stays.gather(1, order)
            ids = self.input_ids.expand_as(stays).gather(1, order).where(there, self.pad_id)
        return float64(self.scores(ids, there.long())[:, self.target])
