"""Pieces of a block: attention heads or groups of channels, what each adds to the block's logits, and their removal.

For a block with p = ReLU(mean z) and logits = W_eq p, the logits are a sum over channels, so a group S of channels adds
W_eq[:, S] p[S], and the groups add up to the logits. Attention writes sum over heads of W_O[:, h] c_h into z, so with
the indicator that the block's map has (1[mean z > 0], or 1[z > 0] where z is rectified) a head adds
W_eq (1[...] * mean over positions of W_O[:, h] c_h): a slice of W_eq W_O. Where a LayerNorm stands between W_O and z,
it is taken with the mean and deviation that it has on the row, with which it is linear. What the heads do not add comes
from the shortcut, the biases and the feed-forward branch, which reads the heads too: `rest`.

A plain network (`hf_mhex.training.plain`) has one read-out, at its end. What a piece of it adds is measured: how far
the logits fall without it. For channels before a last linear layer that is W[:, S] p[S] again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Any

import torch

from hf_mhex.families import FAMILIES, Attention, family_for_source
from hf_mhex.modeling.mhex_maps import Features


@dataclass(frozen=True)
class Piece:
    """A part of a block: attention head `number`, or channels [start, stop) (group `number`)."""

    block: int
    kind: str
    number: int
    start: int
    stop: int

    def __str__(self) -> str:
        if self.kind == "head":
            return f"head {self.number}"
        return f"channel {self.start}" if self.stop == self.start + 1 else f"channels {self.start}-{self.stop - 1}"


def pieces_of(model, blocks: Sequence[int], groups: int | None = None) -> list[Piece]:
    """The pieces of some blocks: heads where the family says where they are and `groups` is None, else channel groups.

    Args:
        blocks: indices, 0 and up. groups: of about equal size in a block; None for heads, or 8 groups.
    """
    attention, widths = attention_of(model), widths_of(model)
    found = []
    for number in blocks:
        block, width = blocks_of(model)[number], widths[number]
        if attention is not None and groups is None:
            heads = int(attrgetter(attention.heads)(block))
            size = attrgetter(attention.project)(block).in_features // heads
            found += [Piece(number, "head", head, head * size, (head + 1) * size) for head in range(heads)]
        else:
            edges = torch.linspace(0, width, min(groups or 8, width) + 1).round().int().tolist()
            found += [Piece(number, "channels", k, *ends) for k, ends in enumerate(pairwise(edges))]
    return found


def attention_of(model) -> Any:
    """Where the blocks of a model keep their heads, an `Attention`, or None."""
    name = model.config.model_type
    family = FAMILIES.get(name) or family_for_source("transformers", name)
    return None if family is None else family.attention


def is_plain(model) -> bool:
    """Whether a model is a plain network: it has `blocks`, and no heads on them."""
    return not hasattr(model, "num_blocks")


def blocks_of(model) -> list:
    """The residual blocks of an MHEX model or of a plain network."""
    return list(model.blocks if is_plain(model) else model.base_model.blocks)


def widths_of(model) -> list[int]:
    """The channels of each block."""
    return model.block_widths if is_plain(model) else [gate.out_features for gate in model.base_model.gates]


def channel_axis_of(model) -> int:
    """The axis of a block's output that its channels lie on."""
    return model.channel_axis if is_plain(model) else model.base_model.blocks[0].channel_axis


@torch.no_grad()
def block_features(model, batch: dict, block: int) -> Features:
    """What the head of a block reads of a batch of images; of a plain network what the block gives, which has no head.

    Raises ValueError for a plain network whose blocks give tokens in place of a map.
    """
    inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
    shown: dict[int, Any] = {}
    if not is_plain(model):
        model(**inputs, explain=lambda number, features: shown.update({number: features.added()}))
        return shown[block]
    handle = blocks_of(model)[block].register_forward_hook(lambda module, given, output: shown.update({block: output}))
    try:
        model(**inputs)
    finally:
        handle.remove()
    output = shown[block]
    if output.ndim != 4:
        raise ValueError("a plain network that classifies by tokens has no map of a filter; give one of convolutions.")
    output = output.movedim(channel_axis_of(model), 1)
    flat = output.flatten(2)
    return Features((flat,), flat.mean(-1), tuple(output.shape[2:]))


@dataclass(frozen=True)
class Look:
    """One pass: logits [B, K], block_logits [B, blocks, K], and what each piece adds [B, pieces, K], float64, CPU."""

    logits: torch.Tensor
    block_logits: torch.Tensor
    added: torch.Tensor


@torch.no_grad()
def look_at(model, batch: dict, pieces: Sequence[Piece]) -> Look:
    """What each piece adds to the logits of its block, with the logits; from one pass over a batch."""
    inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
    attention, blocks = attention_of(model), sorted({piece.block for piece in pieces})
    shown: dict[int, Features] = {}
    written: dict[tuple[int, str], torch.Tensor] = {}

    def keep(block: int, name: str):
        return lambda module, given: written.update({(block, name): given[0].detach()})

    with ExitStack() as stack:
        for block in {piece.block for piece in pieces if piece.kind == "head"}:
            for name in filter(None, (attention.project, attention.norm)):
                module = attrgetter(name)(model.base_model.blocks[block])
                stack.callback(module.register_forward_pre_hook(keep(block, name)).remove)
        answer = model(
            **inputs, explain=lambda block, features: shown.update({block: features.added()} if block in blocks else {})
        )
    added = []
    for piece in pieces:
        features, matrix = shown[piece.block], model.equivalent_matrix(piece.block).double()
        if piece.kind == "channels":
            part = slice(piece.start, piece.stop)
            share = features.p[:, part].double() @ matrix[:, part].mT
        else:
            block = model.base_model.blocks[piece.block]
            mean = pooled_head(block, attention, piece, written, features)
            share = mean.double() @ matrix.mT
        added.append(share.cpu())
    return Look(answer.logits.cpu().double(), answer.block_logits.cpu().double(), torch.stack(added, 1))


def pooled_head(block, attention: Attention, piece: Piece, written: dict, features: Features) -> torch.Tensor:
    """What a head puts into the pooled descriptor of its block, [B, C]."""
    project, context = attrgetter(attention.project)(block), written[piece.block, attention.project]
    alone = torch.zeros_like(context)
    alone[..., piece.start : piece.stop] = context[..., piece.start : piece.stop]
    output = project(alone) - project(torch.zeros_like(context[:1, :1]))  # without the bias
    if attention.scale is not None:
        output = attrgetter(attention.scale)(block)(output)
    if attention.norm is not None:
        norm, before = attrgetter(attention.norm)(block), written[piece.block, attention.norm]
        deviation = (before.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
        output = norm.weight * (output - output.mean(-1, keepdim=True)) / deviation
    read = features.summands[0]
    output = output.mT[:, :, output.shape[1] - read.shape[2] :].to(read.dtype)  # tokens without a place stand first
    if block.gate.rectified:
        output = output * (read > 0)
    if features.valid is None:
        mean = output.mean(-1)
    else:
        valid = features.valid[:, None].to(output.dtype)
        mean = (output * valid).sum(-1) / valid.sum(-1).clamp(min=1)
    return mean if block.gate.rectified else mean * (features.p > 0)


@contextmanager
def removed(model, pieces: Sequence[Piece]) -> Iterator[None]:
    """Run a model without some pieces: heads write 0, channels are 0 where the block's head, gate and successor read.

    Hooks stand on the model's own modules meanwhile; afterwards it is as it was.
    """
    attention, blocks = attention_of(model), blocks_of(model)
    with ExitStack() as stack:
        for number in {piece.block for piece in pieces}:
            block = blocks[number]
            heads = [piece for piece in pieces if piece.block == number and piece.kind == "head"]
            channels = [piece for piece in pieces if piece.block == number and piece.kind == "channels"]
            if heads:
                module = attrgetter(attention.project)(block)
                stack.callback(module.register_forward_pre_hook(without_inputs(heads)).remove)
            if channels:
                hook = without_channels(channels, channel_axis_of(model))
                for module in (block,) if is_plain(model) else (block.feature_map, block):
                    stack.callback(module.register_forward_hook(hook).remove)
        yield


def without_inputs(pieces: Sequence[Piece]):
    """A hook before a linear map that puts 0 in the place of the pieces' inputs."""

    def hook(module, given):
        changed = given[0].clone()
        for piece in pieces:
            changed[..., piece.start : piece.stop] = 0
        return (changed, *given[1:])

    return hook


def without_channels(pieces: Sequence[Piece], axis: int):
    """A hook after a module that puts 0 in the place of the pieces' channels, which lie on `axis`."""

    def hook(module, given, output):
        changed = output.clone()
        for piece in pieces:
            changed.narrow(axis, piece.start, piece.stop - piece.start).zero_()
        return changed

    return hook
