"""Collaboration of neighbouring heads: the cosine of their gradients on W1, and what goes with it.

Source: the collaboration analysis of Sun & Lio, arXiv 2501.01311. W1 of block b gets one gradient from the loss of its
own head and one, through the gate, from the loss of the next block's head. A cosine near 1 says that both want the same
change, one near -1 that they pull against each other. The last block has no successor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from hf_mhex.evaluation.intervals import Interval, bootstrap
from hf_mhex.evaluation.ordering import correlation
from hf_mhex.evaluation.problems import check_single_labels


@dataclass(frozen=True)
class Collaboration:
    """Row by row: cosines [N, blocks - 1], the probability of the answered class [N], and a drop [N] (or None)."""

    cosines: torch.Tensor
    confidence: torch.Tensor
    drop: torch.Tensor | None

    def summary(self, seed: int = 0) -> list[dict]:
        """For each block but the last: mean cosine with its interval, and its rank correlation with the other two."""
        found = []
        for block, values in enumerate(self.cosines.T):
            mean: Interval = bootstrap(values.tolist(), seed=seed)
            row: dict = {"block": block, "cosine": mean.estimate, "low": mean.low, "high": mean.high, "rows": mean.rows}
            row["with confidence"] = correlation_interval(values, self.confidence, seed)
            if self.drop is not None:
                row["with drop"] = correlation_interval(values, self.drop, seed)
            found.append(row)
        return found


def collaboration(model, batches: Iterable[dict], drop: Callable | None = None) -> Collaboration:
    """Cosines between the two gradients on every W1, for the loss of each row alone (cross-entropy of its label).

    Args:
        model: an MHEX classifier for single labels in eval mode, with at least two blocks.
        batches: inputs with labels [B].
        drop: `drop(batch) -> [B]`, how far the prediction falls when the map's part is removed.

    Raises ValueError for models with one block or another problem type, and batches without labels.
    """
    if model.num_blocks < 2:
        raise ValueError(f"model must have at least two blocks, this one has {model.num_blocks}.")
    check_single_labels(model)
    cosines, confidence, drops = [], [], []
    for batch in batches:
        if "labels" not in batch:
            raise ValueError("batches must carry labels: the gradients are those of the task's loss.")
        for row in range(len(batch["labels"])):
            one = {name: value[row : row + 1].to(model.device) for name, value in batch.items()}
            found, sure = row_cosines(model, one)
            cosines.append(found)
            confidence.append(sure)
        if drop is not None:
            drops.append(torch.as_tensor(drop(batch)).cpu().double())
    dropped = torch.cat(drops) if drops else None
    return Collaboration(torch.stack(cosines), torch.stack(confidence), dropped)


def row_cosines(model, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The cosines [blocks - 1] of one row and the probability of its answered class; 0 where a gradient is 0."""
    weights = [gate.weight for gate in model.base_model.gates]
    before = [weight.requires_grad for weight in weights]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            answer = model(**inputs)
            losses = [F.cross_entropy(logits, batch["labels"]) for logits in answer.block_logits.unbind(1)]
            found = []
            for block, weight in enumerate(weights[:-1]):
                own, next_ = (
                    torch.autograd.grad(losses[head], weight, retain_graph=True, allow_unused=True)[0]
                    for head in (block, block + 1)
                )
                found.append(cosine(own, next_))
    finally:
        for weight, wanted in zip(weights, before):
            weight.requires_grad_(wanted)
    return torch.stack(found).cpu(), answer.logits.detach().softmax(-1).max().cpu().double()


def cosine(left: torch.Tensor | None, right: torch.Tensor | None) -> torch.Tensor:
    """Cosine of two gradients, float64; 0 where one of them is 0 or absent."""
    if left is None or right is None:
        return torch.zeros((), dtype=torch.float64)
    left, right = left.double().flatten(), right.double().flatten()
    size = left.norm() * right.norm()
    return left @ right / size if size > 0 else torch.zeros((), dtype=torch.float64)


def correlation_interval(left: torch.Tensor, right: torch.Tensor, seed: int, samples: int = 500) -> dict:
    """Spearman's correlation with its percentile bootstrap interval (rows are resampled in pairs)."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(0, len(left), (samples, len(left)), generator=generator)
    found = torch.tensor([correlation(left[draw], right[draw]) for draw in draws], dtype=torch.float64)
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"correlation": correlation(left, right), "low": low, "high": high}
