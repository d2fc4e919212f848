"""Part consistency: teach a network to say of a part of its input what its own map says of that part.

A map adds up; the network it explains need not. For some rows of a batch a part S is kept, the rest removed, x_S:

    loss = usual loss(x) + usual loss(x_S) + weight * KL( softmax f(x_S) || softmax of the sum over S of map(x) )

with the sigmoid of each label for several labels, and a squared error for regression. Where S is everything the term is
0, since maps are exact; where it is nothing, the network is asked to say nothing (logits all alike), so f(nothing) is
taught to be 0 and is no bias beside the map. Kin: FastSHAP (arXiv 2107.07436) and ViT-Shapley (2206.05282) train a
second network so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils import ModelOutput

from hf_mhex.data.settings import bounded, choose
from hf_mhex.evaluation.controls import gaussian_blur
from hf_mhex.evaluation.part_removal import tokenizer_options
from hf_mhex.modeling.mhex_maps import Features, decay_factors, no_autocast, upsampling_matrix
from hf_mhex.training.losses import label_entries, outside_graph, within

FILLS = ("zero", "mean", "blur", "noise")  # in place of pixels and of a signal's points
HIDES = ("mask", "attention")  # in place of tokens
AUTO = "auto"


@dataclass(frozen=True)
class PartConsistency:
    """Which rows lose which parts, and what their answer weighs.

    Args:
        weight: of the term. 0 leaves rows without parts with their usual loss alone: augmentation, for comparison.
        share: of the rows that pass once more without a part, in (0, 1]. A step costs about 1 + share passes.
        parts: most cells along a side of an image, at least 2; each row draws its own grid, from 2 to so many. A signal
            has from 2 to `parts ** 2` intervals; the parts of a text are its tokens.
        removals: what a row may draw. "zero" (of the normalised input), "mean" (its own), "blur" (a Gaussian of a tenth
            of the side) and "noise" (standard normal) for images and signals, by default zero and blur. "mask" ([MASK])
            and "attention" (no other token sees it, no mean counts it) for texts; by default mask if there is a
            `mask_id`, else attention.
        mask_id, special_ids: of the tokenizer, which MHEXTrainer fills in; special tokens stay. Without special_ids the
            first token stays.

    Raises ValueError or TypeError for values outside these.
    """

    weight: float = 1.0
    share: float = 0.5
    parts: int = 7
    removals: tuple[str, ...] | None = None
    mask_id: int | None = None
    special_ids: tuple[int, ...] = ()

    def __post_init__(self):
        bounded("part_consistency", self.weight, 0)
        bounded("part_share", self.share, 1e-6, 1)
        bounded("parts", self.parts, 2)
        if not isinstance(self.parts, Integral):
            raise TypeError(f"parts must be an int, the cells along a side; got {self.parts!r}.")
        if self.removals is not None and not self.removals:
            raise ValueError(f"part_removals must name at least one of {', '.join(FILLS + HIDES)}, got none.")
        for name in self.removals or ():
            choose("part_removals", name, FILLS + HIDES)

    def kinds(self, text: bool) -> tuple[str, ...]:
        """The removals that rows draw from; ValueError for those of the other kind of input."""
        if self.removals is None:
            return (("attention",) if self.mask_id is None else ("mask",)) if text else ("zero", "blur")
        for name in self.removals:
            choose(f"part_removals of {'texts' if text else 'images and signals'}", name, HIDES if text else FILLS)
        if "mask" in self.removals and self.mask_id is None:
            raise ValueError("part_removals has 'mask', which needs mask_id; give it, or take 'attention'.")
        return tuple(self.removals)


def usual_weight(asked: float | str | None, model: nn.Module, tokenizer, compiled: bool = False) -> float | None:
    """The weight that a run asked for; of "auto" 1 for texts of one label each whose tokenizer has [MASK], else None.

    What was measured decides: see docs/training.md, "Maps that say what parts do". "auto" is None too for a [MASK] that
    the model has no vector for, and for a compiled model, since not every torch can. ValueError for another word.
    """
    if not isinstance(asked, str):
        return asked
    choose("part_consistency", asked, (AUTO,))
    mask_id = getattr(tokenizer, "mask_token_id", None)
    if compiled or getattr(model, "main_input_name", None) != "input_ids" or mask_id is None:
        return None
    if mask_id >= model.config.vocab_size:
        return None
    known = model.config.problem_type  # None until the first labels tell
    single = known == "single_label_classification" or (known is None and model.config.num_labels > 1)
    return 1.0 if single else None


def with_tokens(settings: PartConsistency | None, tokenizer) -> PartConsistency | None:
    """The settings with the numbers of [MASK] and of special tokens, where there is a tokenizer that knows them."""
    if settings is None or not hasattr(tokenizer, "all_special_ids"):
        return settings
    found = tokenizer_options(tokenizer)
    mask_id = found["mask_id"] if settings.mask_id is None else settings.mask_id
    return replace(settings, mask_id=mask_id, special_ids=settings.special_ids or found["special_ids"])


@dataclass
class PartConsistencyOutput(ModelOutput):
    """Output of `part_consistency_outputs`; logits and block_logits are those of the whole rows.

    Args:
        loss: the total []. block_losses: of whole rows and parts together [blocks]. part_loss: the term, unweighted [].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    block_logits: torch.FloatTensor | None = None
    block_losses: torch.FloatTensor | None = None
    part_loss: torch.FloatTensor | None = None


def part_consistency_loss(
    model: nn.Module,
    inputs: dict,
    labels: torch.Tensor,
    settings: PartConsistency | None = None,
    *,
    generator: torch.Generator | None = None,
    num_items_in_batch=None,
    shard: tuple[int, int] = (0, 1),
) -> torch.Tensor:
    """The loss [] of a batch with part consistency, for a plain loop: `part_consistency_loss(model, inputs, labels)`.

    One pass over the batch and its rows without parts, joined. Rows and parts are drawn row by row, so that a batch of
    8 equals 4 of 2 drawn from one generator, given the `num_items_in_batch` of all 8. Batch norms see both kinds of
    rows at once. A plain network without heads gets the usual loss of both.

    Args:
        model: any MHEX classifier, also wrapped by DDP, FSDP, DeepSpeed or PEFT.
        inputs: those of its forward: pixel_values [B, C, H, W], input_values [B, C, L] or [B, L], or input_ids [B, T].
        labels: as the model's own [B] or [B, K]; rows whose single label is -100 lose no part.
        settings: None for `PartConsistency()`. For [MASK] in a text's removed places give it `mask_id`.
        generator: on the CPU; None for torch's own.
        num_items_in_batch: what the sums are divided by (Trainer's count over accumulated batches).
        shard: number of this process and of all, whose batches of one size follow each other. Then give all the same
            `generator`, and they draw the parts that one process would.

    Raises ValueError for inputs without parts and for removals that do not fit them, TypeError without labels.
    """
    return part_consistency_outputs(model, inputs, labels, settings, generator, num_items_in_batch, shard).loss


def part_consistency_outputs(
    model: nn.Module,
    inputs: dict,
    labels: torch.Tensor,
    settings: PartConsistency | None = None,
    generator: torch.Generator | None = None,
    num_items_in_batch=None,
    shard: tuple[int, int] = (0, 1),
) -> PartConsistencyOutput:
    """The loss, its term, and what the model says of whole rows; see `part_consistency_loss`."""
    settings = PartConsistency() if settings is None else settings
    whole = within(model)
    given = main_input(whole, inputs)
    if not isinstance(labels, torch.Tensor):
        cure = "pass those of the batch as a tensor"
        raise TypeError(f"labels must be given for part consistency, got {type(labels).__name__}; {cure}.")
    batch, text = len(given), not given.is_floating_point()
    mask = inputs.get("attention_mask")
    if text and mask is not None and mask.ndim != 2:
        raise ValueError(
            f"attention_mask must be [batch, tokens] for part consistency, got {list(mask.shape)}; or train with "
            "part_consistency=None."
        )
    if text and settings.mask_id is not None and not 0 <= settings.mask_id < whole.config.vocab_size:
        raise ValueError(
            f"mask_id must lie in [0, {whole.config.vocab_size - 1}], the model's vocabulary; got {settings.mask_id}. "
            "Use the model's own tokenizer, or its resize_token_embeddings."
        )
    parts = draw_parts(given, mask, labels, settings, generator, shard)
    items = label_entries(labels).clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    rows = torch.tensor([part.row for part in parts], dtype=torch.long, device=given.device)
    claims: dict[int, torch.Tensor] = {}  # by block: one that is checkpointed passes twice
    explains = hasattr(whole, "heads") and bool(parts)
    passed = {name: value for name, value in inputs.items() if name != "labels"}
    if parts:
        keep = torch.stack([part.keep for part in parts]).to(given.device)
        passed = joined(whole, passed, rows, parts, keep, settings)

    def claim(block: int, features: Features) -> None:
        """Keep what the map of a block says of the kept parts, [rows, K]."""
        with no_autocast(features.p.device):
            part = pooled_part(features, rows.to(features.p.device), keep.to(features.p.device), text)
            claims[block] = whole.heads[block](whole.base_model.gates[block](part))

    callback = {"explain": outside_graph(model, claim)} if explains else {}
    every = torch.cat([labels, labels[rows.to(labels.device)]])
    outputs = model(**passed, labels=every, num_items_in_batch=items, **callback)
    part_loss = outputs.logits.new_zeros(())
    if explains:
        said = claimed_logits(claims, outputs.logits, whole.config.head_decay)
        part_loss = disagreement(outputs.logits[batch:], said, whole.config.problem_type).sum() / items
    blocks = outputs.get("block_logits")
    return PartConsistencyOutput(
        loss=outputs.loss + settings.weight * part_loss,
        logits=outputs.logits[:batch],
        block_logits=None if blocks is None else blocks[:batch],
        block_losses=outputs.get("block_losses"),
        part_loss=part_loss,
    )


@dataclass(frozen=True)
class Part:
    """What a row keeps: `keep` [*positions] of bools, and how the rest is removed; `draw` goes on for noise."""

    row: int
    keep: torch.Tensor
    removal: str
    draw: torch.Generator


def main_input(model: nn.Module, inputs: dict) -> torch.Tensor:
    """The tensor whose parts are removed; ValueError where it is not among the inputs."""
    name = model.main_input_name
    if not isinstance(inputs.get(name), torch.Tensor):
        raise ValueError(
            f"part consistency removes parts of {name}, which must be given; got {', '.join(inputs)}. Give it, or "
            "train with part_consistency=None."
        )
    return inputs[name]


def draw_parts(given, attention_mask, labels, settings: PartConsistency, generator, shard=(0, 1)) -> list[Part]:
    """The parts of the rows that lose some; what a row draws depends on its turn alone, not on batch and process."""
    text = not given.is_floating_point()
    kinds = settings.kinds(text)
    process, processes = shard
    seeds = torch.randint(2**62, (processes, len(given)), generator=generator)[process].tolist()
    labelled = [bool(label_entries(label)) for label in labels.cpu()]
    parts = []
    for row, seed in enumerate(seeds):
        draw = torch.Generator().manual_seed(seed)
        chosen, kind = torch.rand(2, generator=draw).tolist()
        if chosen >= settings.share or not labelled[row]:
            continue
        if text:
            keep = kept_tokens(
                given[row].cpu(), None if attention_mask is None else attention_mask[row], settings, draw
            )
        else:
            keep = kept_cells(tuple(given.shape[2:]) or (given.shape[1],), settings.parts, draw)
        parts.append(Part(row, keep, kinds[int(kind * len(kinds))], draw))
    return parts


def kept_number(parts: int, draw: torch.Generator) -> torch.BoolTensor:
    """Which of some parts stay: a number of them drawn evenly from none to all but one, [parts]."""
    count = int(torch.randint(max(1, parts), (), generator=draw))
    return torch.rand(parts, generator=draw).argsort().argsort() < count


def kept_cells(sides: tuple[int, ...], most: int, draw: torch.Generator) -> torch.BoolTensor:
    """Which positions of an image [H, W] or a signal [L] stay, by the cells of a grid drawn with them."""
    if len(sides) == 1:
        most = min(most**2, sides[0])
    cells = int(torch.randint(2, max(3, most + 1), (), generator=draw))
    kept = kept_number(cells ** len(sides), draw).view((cells,) * len(sides))
    for axis, side in enumerate(sides):
        kept = kept.index_select(axis, torch.arange(side) * cells // side)
    return kept


def kept_tokens(ids, attention_mask, settings: PartConsistency, draw: torch.Generator) -> torch.BoolTensor:
    """Which tokens [T] stay: special ones, padding, and some of the rest."""
    valid = torch.ones_like(ids, dtype=torch.bool)
    if attention_mask is not None:
        valid = attention_mask.flatten().cpu() != 0
    special = torch.isin(ids, torch.tensor(settings.special_ids, dtype=ids.dtype))
    if not settings.special_ids:
        special[valid.int().argmax()] = True  # attention needs something to look at
    places = (valid & ~special).nonzero()[:, 0]
    keep = torch.ones_like(valid)
    keep[places] = kept_number(len(places), draw)
    return keep


def joined(model, inputs: dict, rows, parts: list[Part], keep: torch.Tensor, settings: PartConsistency) -> dict:
    """The inputs of whole rows and, after them, of the rows that lose a part."""
    given = inputs[model.main_input_name]
    batch = len(given)
    more = {}
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.ndim and len(value) == batch:
            more[name] = value[rows]
    if given.is_floating_point():
        kept = keep if given.ndim == 2 else keep[:, None]
        more[model.main_input_name] = given[rows].where(kept, filled(given[rows], parts))
    else:
        hidden = torch.tensor([part.removal == "attention" for part in parts], device=given.device)[:, None] & ~keep
        if "mask" in {part.removal for part in parts}:
            masked = ~keep & ~hidden
            more["input_ids"] = more["input_ids"].masked_fill(masked, settings.mask_id)
        if hidden.any():
            inputs = {"attention_mask": torch.ones_like(given), **inputs}
            mask = more.get("attention_mask", torch.ones_like(given[rows]))
            more["attention_mask"] = mask.masked_fill(hidden, 0)
    return inputs | {name: torch.cat([inputs[name], value]) for name, value in more.items()}


def filled(values: torch.Tensor, parts: list[Part]) -> torch.Tensor:
    """What stands in the place of removed positions of values [b, C, ...] or [b, L]."""
    found = []
    for row, part in zip(values, parts):
        lines = row if row.ndim > 1 else row[None]
        if part.removal == "zero":
            fill = torch.zeros_like(lines)
        elif part.removal == "mean":
            fill = lines.flatten(1).mean(1).view(-1, *[1] * (lines.ndim - 1)).expand_as(lines)
        elif part.removal == "blur":
            fill = gaussian_blur(lines, 0.1 * max(lines.shape[1:]))
        else:
            fill = torch.randn(lines.shape, generator=part.draw, dtype=torch.float32).to(lines)
        found.append(fill.view_as(row))
    return torch.stack(found)


def pooled_part(features: Features, rows: torch.Tensor, keep: torch.Tensor, text: bool) -> torch.Tensor:
    """The descriptor [rows, C] whose image under the equivalent matrix is the sum of a block's map over `keep`.

    The map is linear in its positions and is brought to the input's size by matrices; so the kept positions of the
    input [rows, *size] are carried to the block's own instead, and no map is formed. No row may come twice.
    """
    share = keep.to(features.p.dtype)
    if not text:
        matrices = [
            upsampling_matrix(cells, side, share) for cells, side in zip(features.shape, keep.shape[1:], strict=True)
        ]
        share = share @ matrices[-1]
        if len(matrices) == 2:
            share = matrices[0].mT @ share
    share = share.flatten(1)
    count = share.shape[1]
    if features.valid is not None:
        valid = features.valid[rows]
        share, count = share * valid, valid.sum(-1, keepdim=True).clamp(min=1)
    first, *others = (summand.to(share.dtype) for summand in features.summands)
    z = sum(others, first)
    spread = share.new_zeros(len(z), share.shape[1]).index_copy(0, rows, share)  # z[rows] would cost a copy each way
    total = (z @ spread[:, :, None])[rows, :, 0]
    return total / count * (features.p[rows] > 0)


def claimed_logits(claims: dict[int, torch.Tensor], like: torch.Tensor, decay: float) -> torch.Tensor:
    """What the combined map says of the kept parts, [rows, K], from every block's."""
    blocks = sorted(claims)
    factors = decay_factors(blocks, decay)
    return sum(factor * claims[block].to(like.device) for factor, block in zip(factors, blocks))


def disagreement(answer: torch.Tensor, claim: torch.Tensor, problem_type: str) -> torch.Tensor:
    """KL(answer || claim) of logits [b, K], by row; by label for several labels; a squared error for regression."""
    if problem_type == "regression":
        return (answer - claim).square()
    if problem_type == "single_label_classification":
        return F.kl_div(claim.log_softmax(-1), answer.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    present = answer.sigmoid() * (F.logsigmoid(answer) - F.logsigmoid(claim))
    return present + (-answer).sigmoid() * (F.logsigmoid(-answer) - F.logsigmoid(-claim))
