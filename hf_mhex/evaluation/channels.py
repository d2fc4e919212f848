"""Channels that carry a class: each one's exact share of the logit over a data set, and what drives it most.

Source: the neuron analysis of Sun & Lio, arXiv 2501.01311. With p the pooled descriptor of a block, the model's logit
is the sum over blocks and channels of `decay factor * W_eq[c, ch] * p[ch]`, so every channel has a contribution in
logits, and the contributions of all channels of all blocks add up to the logit. A channel's contribution splits over
positions as the block's map does, which shows the image region or the tokens that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter

import torch

from hf_mhex.modeling.mhex_maps import Features, block_map, decay_factors


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
        answers, features = look(model, batch)
        counts += torch.bincount(answers, minlength=len(counts))
        for total, shown in zip(sums, features):
            total.index_add_(0, answers, shown.p.cpu().double())
    means = [total / counts.clamp(min=1)[:, None] for total in sums]
    reports = [class_report(label, int(counts[label]), rows, means, top) for label in range(len(counts))]
    return find_examples(model, batches, reports, examples) if examples else reports


def weighed_rows(model, contrast: str | None) -> list[torch.Tensor]:
    """For each block its equivalent matrix [K, C] times its factor in the logit; minus the mean of the other rows."""
    blocks = list(range(model.num_blocks))
    factors = decay_factors(blocks, model.config.head_decay)
    weighed = [factor * model.equivalent_matrix(block).cpu() for factor, block in zip(factors, blocks)]
    if contrast is None:
        return weighed
    labels = weighed[0].shape[0]
    if labels == 1:
        raise ValueError(f"contrast={contrast!r} needs another class, but the model has one label; use None.")
    return [matrix - (matrix.sum(0) - matrix) / (labels - 1) for matrix in weighed]


@torch.no_grad()
def look(model, batch: dict) -> tuple[torch.Tensor, list[Features]]:
    """Of a batch the answered classes [B] and every block's features."""
    inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
    shown: dict[int, Features] = {}
    answer = model(**inputs, explain=lambda block, features: shown.update({block: features.added()}))
    return answer.logits.argmax(-1).cpu(), [shown[block] for block in range(model.num_blocks)]


def class_report(label: int, count: int, rows: list, means: list, top: int) -> ClassReport:
    """The top channels of a class from its mean descriptors."""
    found = [matrix[label].double() * mean[label] for matrix, mean in zip(rows, means)]
    places = [(block, channel) for block, part in enumerate(found) for channel in range(len(part))]
    everything = torch.cat(found)
    size = float(everything.abs().sum())
    channels = []
    for number in everything.abs().argsort(descending=True, stable=True)[: top if count else 0].tolist():
        block, channel = places[number]
        amount = float(everything[number])
        channels.append(Channel(block, channel, float(rows[block][label, channel]), amount, amount / (size or 1.0)))
    by_block = tuple(float(part.sum()) for part in found)
    return ClassReport(label, count, sum(by_block), by_block, tuple(channels))


def find_examples(model, batches, reports: list[ClassReport], examples: int) -> list[ClassReport]:
    """The reports with each channel's strongest rows of its class, the first of equals, and where they come from."""
    best: dict[tuple[int, Channel], list[Example]] = {}
    first = 0
    for batch in batches:
        answers, features = look(model, batch)
        for report in reports:
            rows = (answers == report.label).nonzero()[:, 0].tolist()
            for channel in report.channels if rows else ():
                amounts = channel.weight * features[channel.block].p[:, channel.channel]
                maps = channel_maps(features[channel.block], channel)
                here = [Example(first + row, float(amounts[row]), maps[row].cpu()) for row in rows]
                kept = best.get((report.label, channel), []) + here
                kept.sort(key=attrgetter("contribution"), reverse=channel.contribution >= 0)
                best[report.label, channel] = kept[:examples]
        first += len(answers)

    def filled(report: ClassReport) -> ClassReport:
        channels = (
            replace(channel, examples=tuple(best.get((report.label, channel), ()))) for channel in report.channels
        )
        return replace(report, channels=tuple(channels))

    return [filled(report) for report in reports]


def channel_maps(features: Features, channel: Channel) -> torch.Tensor:
    """Where a channel's contributions come from, [B, h, w] or [B, T]; each map adds up to the row's contribution."""
    rows = features.p.new_zeros(1, 1, features.p.shape[1])
    rows[..., channel.channel] = channel.weight
    return block_map(rows, features)[:, 0]
