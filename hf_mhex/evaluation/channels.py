"""Which channels carry a class? Each channel's exact share of the logit over a data set, and what drives it most.

Source: the neuron analysis of Sun & Lio, arXiv 2501.01311. With p the pooled descriptor of a block, the model's logit
is the sum over blocks and channels of `decay factor * W_eq[c, ch] * p[ch]`, so every channel has a contribution in
logits, and the contributions of all channels of all blocks add up to the logit. A channel's contribution splits over
positions as the block's map does, which shows the image region or the tokens that it comes from.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from hf_mhex.modeling.mhex_maps import decay_factors


@dataclass(frozen=True)
class Example:
    """A row in which a channel contributes much: its number, the contribution, and the map [...] that adds up to it."""

    row: int
    contribution: float
    map: torch.Tensor = field(repr=False)


@dataclass(frozen=True)
class Channel:
    """A channel of a block for one class.

    Args:
        weight: its entry of the block's equivalent matrix, times the block's factor in the model's logit.
        contribution: what it adds to the logit, the mean over the class's rows.
        share: `contribution` as a share of the sum of the sizes of all channels' contributions, signed.
        examples: the rows to which it adds most.
    """

    block: int
    channel: int
    weight: float
    contribution: float
    share: float
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class ClassReport:
    """A class: the rows that the model answers with it, their mean logit (against the reference), its top channels.

    `by_block` is what each block adds to that logit; it adds up to it.
    """

    label: int
    rows: int
    logit: float
    by_block: tuple[float, ...]
    channels: tuple[Channel, ...]


def channel_report(
    model, batches: Iterable[dict], top: int = 8, examples: int = 4, contrast: str | None = None
) -> list[ClassReport]:
    """The channels that carry each class over a data set, those that add or take most first.

    Args:
        model: an MHEX classifier in eval mode. batches: inputs of `forward`, labels ignored; gone through twice.
        top: channels of a class. examples: rows of a channel.
        contrast: None for the logit, "mean" for its distance to the mean of the other classes' (what tells classes
            apart; the logits' common level says nothing).

    A class that no row is answered with has no channels. Raises ValueError for options that cannot be.
    """
    if contrast not in (None, "mean"):
        raise ValueError(f"contrast must be None or 'mean', got {contrast!r}.")
    if top < 1 or examples < 0:
        raise ValueError(f"top must be at least 1 and examples at least 0, got {top} and {examples}.")
    rows = weighed_rows(model, contrast)
    sums = [torch.zeros_like(matrix, dtype=torch.float64) for matrix in rows]
    counts = torch.zeros(rows[0].shape[0], dtype=torch.long)
    for batch in batches:
        descriptors, answers, _ = look(model, batch)
        counts += torch.bincount(answers, minlength=len(counts))
        for total, p in zip(sums, descriptors):
            total.index_add_(0, answers, p.double())
    means = [total / counts.clamp(min=1)[:, None] for total in sums]
    reports = [class_report(label, int(counts[label]), rows, means, top) for label in range(len(counts))]
    return find_examples(model, batches, rows, reports, examples) if examples else reports


@torch.no_grad()
def weighed_rows(model, contrast: str | None) -> list[torch.Tensor]:
    """For each block its equivalent matrix [K, C] times its factor in the logit; minus the mean of the other rows."""
    matrices = [model.equivalent_matrix(block) for block in range(model.num_blocks)]
    factors = decay_factors(list(range(model.num_blocks)), model.config.head_decay, matrices[0])
    weighed = [factor * matrix for factor, matrix in zip(factors, matrices)]
    if contrast is None:
        return weighed
    labels = matrices[0].shape[0]
    if labels == 1:
        raise ValueError(f"contrast={contrast!r} needs another class, but the model has one label; use None.")
    return [matrix - (matrix.sum(0) - matrix) / (labels - 1) for matrix in weighed]


@torch.no_grad()
def look(model, batch: dict):
    """Of a batch: every block's p [B, C], the answered classes [B], and every block's features."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    outputs = model.base_model(**inputs, explain=lambda block, features: features.added(), return_dict=True)
    logits, _ = model._logits(outputs.gate_scores)
    return [features.p for features in outputs.explanations], logits.argmax(-1), outputs.explanations


def class_report(label: int, count: int, rows: list, means: list, top: int) -> ClassReport:
    """The top channels of a class from its mean descriptors."""
    found = [matrix[label].double() * mean[label] for matrix, mean in zip(rows, means)]
    everything = torch.cat(found)
    size = float(everything.abs().sum())
    channels = []
    for place in everything.abs().argsort(descending=True, stable=True)[: top if count else 0].tolist():
        block, channel = 0, place
        while channel >= len(found[block]):
            channel -= len(found[block])
            block += 1
        amount = float(found[block][channel])
        weight = float(rows[block][label, channel])
        channels.append(Channel(block, channel, weight, amount, amount / size if size else 0.0))
    by_block = tuple(float(part.sum()) for part in found)
    return ClassReport(label, count, sum(by_block), by_block, tuple(channels))


def find_examples(model, batches, rows: list, reports: list[ClassReport], examples: int) -> list[ClassReport]:
    """The reports with each channel's strongest rows of its class, and where in them it comes from."""
    best: dict[tuple[int, int], list] = {}
    first = 0
    for batch in batches:
        descriptors, answers, features = look(model, batch)
        for report in reports:
            chosen = (answers == report.label).nonzero()[:, 0].tolist()
            for place, channel in enumerate(report.channels):
                heap = best.setdefault((report.label, place), [])
                for row in chosen:
                    amount = channel.weight * float(descriptors[channel.block][row, channel.channel])
                    entry = (amount * (1 if channel.contribution >= 0 else -1), -(first + row))
                    if len(heap) < examples or entry > heap[0][:2]:
                        shown = channel_map(features[channel.block], row, channel)
                        heapq.heappush(heap, (*entry, Example(first + row, amount, shown)))
                        if len(heap) > examples:
                            heapq.heappop(heap)
        first += len(answers)

    def filled(report: ClassReport) -> ClassReport:
        channels = []
        for place, channel in enumerate(report.channels):
            found = sorted(best.get((report.label, place), []), reverse=True)
            channels.append(Channel(**{**vars(channel), "examples": tuple(entry[2] for entry in found)}))
        return ClassReport(**{**vars(report), "channels": tuple(channels)})

    return [filled(report) for report in reports]


def channel_map(features, row: int, channel: Channel) -> torch.Tensor:
    """Where one row's contribution of a channel comes from: [h, w] or [T]; it adds up to the contribution."""
    z = features.summands[0][row, channel.channel]
    if not features.p[row, channel.channel] > 0:
        return torch.zeros_like(z)
    if features.valid is None:
        return channel.weight * z / z.numel()
    inside = features.valid[row]
    return torch.where(inside, channel.weight * z / inside.sum().clamp(min=1), 0)
