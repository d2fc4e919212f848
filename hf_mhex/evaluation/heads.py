"""Single-head and single-node performance: which labels a piece of a block speaks for, and what its removal costs.

Source: Koresh et al., "Unified CNNs and transformers underlying learning mechanism reveals multi-head attention modus
vivendi" (arXiv 2501.12900). There a frozen layer is read out by new weights without bias, trained for that, and all of
them but one piece's are silenced; the K x K mean field of a piece (row: true label, column: mean output) is scaled by
its largest value, cut at a threshold, and sorted into groups of labels. Here the read-out is the block's own head, so
that a piece is a slice of the equivalent matrix and the fields of all pieces add up to the block's mean logits. On a
plain network, whose blocks have no heads, what a piece adds is how far the logits fall without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch

from hf_mhex.evaluation.ordering import correlation
from hf_mhex.evaluation.pieces import Piece, is_plain, look_at, pieces_of, removed, widths_of
from hf_mhex.evaluation.problems import check_single_labels
from hf_mhex.modeling.mhex_maps import check_blocks, decay_factors


@dataclasses.dataclass(frozen=True)
class PieceReport:
    """What one piece does.

    Args:
        field: [K, K]: row, the true label; column, what the piece adds to that label's logit in its block, the mean
            over the row's label. scaled: the same over its largest value; all 0 where no value is positive.
        groups: groups of labels whose fields are above the threshold for each other; `labels` are all of them.
        noise: values above the threshold outside the groups. noise_share: what they are of all values above it.
        alone: accuracy of what this piece alone adds.
        predicted: how far the field says that the logit of the true label falls without the piece, by label [K]; None
            on a plain network, whose field is measured.
        block_fall, model_fall: how far the logit of the true label really fell without the piece, in its block's
            logits and in the model's, by label [K]; None where nothing was removed. predicted_model: `predicted` times
            the block's weight in the model's logits.
        accuracy: of the model without this piece; None where nothing was removed.
    """

    piece: Piece
    field: torch.Tensor = dataclasses.field(repr=False)
    scaled: torch.Tensor = dataclasses.field(repr=False)
    groups: tuple[tuple[int, ...], ...]
    noise: int
    noise_share: float
    alone: float
    predicted: torch.Tensor | None = dataclasses.field(repr=False)
    predicted_model: torch.Tensor | None = dataclasses.field(repr=False)
    block_fall: torch.Tensor | None = dataclasses.field(default=None, repr=False)
    model_fall: torch.Tensor | None = dataclasses.field(default=None, repr=False)
    accuracy: float | None = None

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels that the piece speaks for."""
        return tuple(sorted(label for group in self.groups for label in group))


@dataclasses.dataclass(frozen=True)
class SingleHeads:
    """Every piece of some blocks over a data set.

    Args:
        rows: by true label [K]. rest: field [K, K] of what is no piece, by block (0 for channel groups).
        accuracy: of the whole model. curves: accuracy after removing more and more pieces, "strongest first" and
            "weakest first" (by the mean of what a piece adds to its true label), as (pieces removed, accuracy, mean
            accuracy of the split blocks' own heads, None on a plain network).
        agreement: rank correlation over pieces and labels of the predicted falls with the real ones, "block", "model";
            empty on a plain network.
    """

    threshold: float
    rows: torch.Tensor
    accuracy: float
    pieces: tuple[PieceReport, ...]
    rest: dict[int, torch.Tensor] = dataclasses.field(repr=False)
    curves: dict[str, tuple[tuple[int, float, float | None], ...]]
    agreement: dict[str, float]

    def record(self, names: dict[int, str]) -> dict:
        """The same as JSON values, labels by their names."""

        def listed(values):
            return None if values is None else [round(value, 5) for value in values.tolist()]

        found = []
        for report in self.pieces:
            found.append(
                dataclasses.asdict(report.piece)
                | {
                    "name": str(report.piece),
                    "groups": [[names[label] for label in group] for group in report.groups],
                    "noise": report.noise,
                    "noise_share": round(report.noise_share, 5),
                    "alone": report.alone,
                    "accuracy": report.accuracy,
                    "predicted": listed(report.predicted),
                    "block_fall": listed(report.block_fall),
                    "predicted_model": listed(report.predicted_model),
                    "model_fall": listed(report.model_fall),
                    "field": [listed(row) for row in report.field],
                }
            )
        return {
            "threshold": self.threshold,
            "labels": [names[label] for label in range(len(self.rows))],
            "rows": self.rows.tolist(),
            "accuracy": self.accuracy,
            "agreement": {name: round(value, 5) for name, value in self.agreement.items()},
            "curves": {name: [list(point) for point in points] for name, points in self.curves.items()},
            "pieces": found,
        }


def single_heads(
    model,
    data: Iterable[dict],
    blocks: Sequence[int] = (-1,),
    groups: int | None = None,
    threshold: float = 0.3,
    remove: bool = True,
    steps: int = 8,
) -> SingleHeads:
    """The field of every piece of some blocks over labelled rows, and what happens without it.

    Args:
        model: an MHEX classifier for single labels in eval mode, or a plain network (`hf_mhex.training.load_plain`),
            for which every piece is removed once. data: batches of inputs with labels [B].
        blocks: indices, negative ones from the end.
        groups: channel groups in a block; None for attention heads where the family has them, else 8 groups.
        threshold: share of the largest value from which a field's value counts.
        remove: also run the model without each piece, and without more and more of them in `steps` steps; that takes
            pieces + 2 steps passes over the data.

    Raises ValueError for options that cannot be, a model in training mode or for other problems, no labelled rows,
    and rows of one label only.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}.")
    if (groups is not None and groups < 1) or steps < 1:
        raise ValueError(f"groups and steps must be at least 1, got {groups} and {steps}.")
    check_single_labels(model)
    if model.training:
        raise ValueError("model must be in eval mode; call model.eval().")
    batches = list(data)
    if not batches or any("labels" not in batch for batch in batches):
        raise ValueError("data must be batches of inputs with `labels`, at least one: rows of a field are true labels.")
    chosen = check_blocks(blocks, len(widths_of(model)))
    pieces = pieces_of(model, chosen, groups)
    labels = torch.cat([batch["labels"].cpu() for batch in batches])
    if len(labels.unique()) < 2:
        raise ValueError(
            f"data must hold rows of two labels, for a field compares them; all {len(labels)} are of "
            f"{model.config.id2label[int(labels[0])]!r}. Take more rows, or shuffle a file that is sorted by label."
        )
    if is_plain(model):
        return of_plain(model, batches, pieces, labels, threshold, steps if remove else 0)
    looks = [look_at(model, batch, pieces) for batch in batches]
    logits, block_logits, added = (
        torch.cat([getattr(look, name) for look in looks]) for name in ("logits", "block_logits", "added")
    )
    factors = dict(enumerate(decay_factors(list(range(model.num_blocks)), model.config.head_decay)))
    count = model.config.num_labels
    reports = [
        report_of(piece, added[:, number], labels, count, factors[piece.block], threshold)
        for number, piece in enumerate(pieces)
    ]
    rest = {}
    for block in chosen:
        mine = [number for number, piece in enumerate(pieces) if piece.block == block]
        rest[block] = by_label(block_logits[:, block] - added[:, mine].sum(1), labels, count)
    curves: dict = {}
    if remove:
        whole = (logits, block_logits)
        reports = [with_removal(model, batches, report, labels, whole) for report in reports]
        curves = removal_curves(model, batches, reports, labels, whole, steps)
    there = torch.bincount(labels, minlength=count)
    agreement = agreement_of(reports, there > 0) if remove else {}
    return SingleHeads(threshold, there, accuracy_of(logits, labels), tuple(reports), rest, curves, agreement)


def of_plain(model, batches, pieces, labels: torch.Tensor, threshold: float, steps: int) -> SingleHeads:
    """The fields of a plain network's pieces: how far the logits fall without each."""
    count, whole = model.config.num_labels, logits_without(model, batches, [])
    reports = []
    for piece in pieces:
        logits = logits_without(model, batches, [piece])[0]
        found = report_of(piece, whole[0] - logits, labels, count, 1.0, threshold)
        fall, accuracy = found.predicted, accuracy_of(logits, labels)
        found = dataclasses.replace(found, predicted=None, predicted_model=None, model_fall=fall, accuracy=accuracy)
        reports.append(found)
    curves = removal_curves(model, batches, reports, labels, whole, steps) if steps else {}
    there = torch.bincount(labels, minlength=count)
    return SingleHeads(threshold, there, accuracy_of(whole[0], labels), tuple(reports), {}, curves, {})


def by_label(values: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Means of values [N, ...] over the rows of each label, [K, ...]; 0 for a label without rows."""
    sums = values.new_zeros(count, *values.shape[1:]).index_add_(0, labels, values)
    rows = torch.bincount(labels, minlength=count).clamp(min=1)
    return sums / rows.view(-1, *(1,) * (values.ndim - 1))


def report_of(piece: Piece, added: torch.Tensor, labels, count: int, factor: float, threshold: float) -> PieceReport:
    """A piece's report from what it adds to its block's logits in every row, [N, K]."""
    mean = by_label(added, labels, count)
    scaled, groups, noise, share = label_groups(mean, threshold)
    alone, diagonal = accuracy_of(added, labels), mean.diagonal().clone()
    return PieceReport(piece, mean, scaled, groups, noise, share, alone, diagonal, factor * diagonal)


def label_groups(mean_field: torch.Tensor, threshold: float = 0.3) -> tuple[torch.Tensor, tuple, int, float]:
    """A field [K, K] over its largest value, its groups of labels, its noise and the noise's share.

    Greedy: labels whose own value reaches the threshold come in the order of it; each opens a group, and takes in, the
    strongest pairs first, the free labels that reach the threshold with every member of the group in both directions.
    """
    largest = mean_field.max()
    scaled = mean_field / largest if largest > 0 else torch.zeros_like(mean_field)
    above = scaled >= threshold
    own = scaled.diagonal()
    free = [label for label in own.argsort(descending=True, stable=True).tolist() if above[label, label]]
    groups = []
    while free:
        group = [free.pop(0)]
        pairs = scaled[group[0]] + scaled[:, group[0]]
        for label in sorted(free, key=lambda other: -float(pairs[other])):
            if all(above[label, member] and above[member, label] for member in group):
                group.append(label)
                free.remove(label)
        groups.append(tuple(sorted(group)))
    inside = torch.zeros_like(above)
    for members in map(torch.tensor, groups):
        inside[members[:, None], members] = True
    noise = int((above & ~inside).sum())
    return scaled, tuple(groups), noise, noise / max(1, int(above.sum()))


def with_removal(model, batches, report: PieceReport, labels: torch.Tensor, whole) -> PieceReport:
    """The report with what really happens without its piece."""
    logits, block_logits = logits_without(model, batches, [report.piece])
    block, count, rows = report.piece.block, model.config.num_labels, torch.arange(len(labels))
    falls = [
        by_label((before - after)[rows, labels], labels, count)
        for before, after in ((whole[1][:, block], block_logits[:, block]), (whole[0], logits))
    ]
    return dataclasses.replace(report, block_fall=falls[0], model_fall=falls[1], accuracy=accuracy_of(logits, labels))


@torch.no_grad()
def logits_without(model, batches, pieces: Sequence[Piece]) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's logits [N, K] and its blocks' [N, blocks, K] (no block of a plain one) without some pieces."""
    found = []
    with removed(model, pieces):
        for batch in batches:
            inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
            answer = model(**inputs)
            blocks = answer.logits[:, None][:, :0] if is_plain(model) else answer.block_logits
            found.append((answer.logits.cpu().double(), blocks.cpu().double()))
    return tuple(torch.cat(values) for values in zip(*found))


def removal_curves(model, batches, reports, labels, whole, steps: int) -> dict:
    """Accuracies without the strongest and without the weakest pieces, more of them at each step."""
    blocks = [] if is_plain(model) else sorted({report.piece.block for report in reports})

    def point(count: int, logits: torch.Tensor, block_logits: torch.Tensor) -> tuple[int, float, float | None]:
        own = [accuracy_of(block_logits[:, block], labels) for block in blocks]
        return count, accuracy_of(logits, labels), sum(own) / len(own) if own else None

    rows = torch.bincount(labels, minlength=len(reports[0].field)).double() / len(labels)
    falls = [report.model_fall if is_plain(model) else report.predicted_model for report in reports]
    strength = [float(fall @ rows) for fall in falls if fall is not None]
    order = [report for _, report in sorted(zip(strength, reports), key=lambda pair: -pair[0])]
    counts = sorted({round(step * len(order) / steps) for step in range(1, steps + 1)} - {0})
    curves = {}
    for name, ranked in (("strongest first", order), ("weakest first", order[::-1])):
        points = [point(0, *whole)]
        for count in counts:
            points.append(point(count, *logits_without(model, batches, [report.piece for report in ranked[:count]])))
        curves[name] = tuple(points)
    return curves


def agreement_of(reports: Sequence[PieceReport], there: torch.Tensor) -> dict[str, float]:
    """Rank correlations of predicted and real falls over all pieces and labels that have rows."""
    pairs = {"block": ("predicted", "block_fall"), "model": ("predicted_model", "model_fall")}
    found = {}
    for name, fields in pairs.items():
        left, right = (torch.cat([getattr(report, one)[there] for report in reports]) for one in fields)
        found[name] = correlation(left, right)
    return found


def accuracy_of(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of rows whose highest logit is their label's."""
    return float((logits.argmax(-1) == labels).double().mean())
