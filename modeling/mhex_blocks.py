"""Attention gate, head, and the base of a residual block that has them; what one pass shows of its blocks."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from .mhex_maps import Features, no_autocast, pooled_descriptor, position_sum, wide

LARGEST_SHARE, LOW_SHARE = 0.15, 0.125  # of a block's parameters that its gate adds; heads need some of the rest
HEAD_STD = 16.0  # new heads are normal with HEAD_STD / sqrt(C): a large W2 asks for a small a, at which gates stay open


class WideLinear(nn.Module):
    """A linear map without bias in its input's dtype (float32 or wider), under autocast too.

    Not an `nn.Linear`, which quantisers would replace.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as `nn.Linear` does."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: torch.Tensor, rows: bool = False) -> torch.Tensor:
        """W x for x [..., in]; with `rows`, x W for x [..., out]: all that reads the weight is a call of the module."""
        with no_autocast(x.device):
            weight = self.weight.to(x.dtype)
            return x @ weight if rows else F.linear(x, weight)


class AttentionGate(WideLinear):
    """W1 of the attention gate g = gate_scale * sigmoid(W1 p). It starts at 0, where every gate is gate_scale / 2.

    W1 [C, C] is `weight`, or `weight @ reduce.weight`, [C, rank] and [rank, C], where that has fewer parameters.
    """

    def __init__(self, channels: int, config, rank: int | None = None):
        rank = None if rank is not None and 2 * rank >= channels else rank
        super().__init__(channels if rank is None else rank, channels)
        self.reduce = None if rank is None else WideLinear(channels, rank)
        self.scale, self.rectified = config.gate_scale, config.rectified

    def reset_parameters(self) -> None:
        """Start at 0."""
        nn.init.zeros_(self.weight)

    def forward(self, x: torch.Tensor, rows: bool = False) -> torch.Tensor:
        """a = W1 p for p [B, C]; with `rows`, x W1 for x [..., C]."""
        if self.reduce is None:
            return super().forward(x, rows)
        return self.reduce(super().forward(x, True), True) if rows else super().forward(self.reduce(x))


class Head(WideLinear):
    """W2 [K, C] of a block's head, logits = W2 a."""

    def __init__(self, channels: int, config):
        super().__init__(channels, config.num_labels)

    def reset_parameters(self) -> None:
        """Start large: see HEAD_STD."""
        nn.init.normal_(self.weight, std=HEAD_STD / self.in_features**0.5)


class Trace:
    """What one pass shows of its blocks.

    Args:
        explain: called as `explain(block, Features)` while each block passes; its answers become `explanations`.
        valid: positions that count [B, N]; None for all.
        prefix: leading tokens that are no positions (class and register tokens).
        shape: sides of the positions (h, w); None for those of the features.
        shares: shares of the input's tokens in each token [B, T, T], which attention updates; None to do without.
    """

    def __init__(self, explain: Callable | None = None, valid=None, prefix: int = 0, shape=None, shares=None):
        self.explain, self.valid, self.prefix, self.shape, self.shares = explain, valid, prefix, shape, shares
        self.scores: dict[int, torch.Tensor] = {}  # a = W1 p [B, C] by block
        self.explanations: dict[int, object] = {}

    def rollout(self) -> torch.Tensor | None:
        """Shares of the input's positions in each position [B, N, N]; those of tokens without a place stay where they
        arrived, so that every row adds up to 1.
        """
        if self.shares is None or self.prefix == 0:
            return self.shares
        rows = self.shares[:, self.prefix :]
        return rows[:, :, self.prefix :] + torch.diag_embed(rows[:, :, : self.prefix].sum(-1))


class GatedBlock:
    """Mixin of a residual block with an attention gate; `add_gates` gives it its `gate` and its number `block`.

    A forward hook on `feature_map` sees what gate, head and map read: z, or ReLU(z) where `rectified`, laid out as the
    block's features. Methods that read a layer (Grad-CAM) take it for the last block, whose output no head reads.
    """

    channel_axis = 1  # of the features: 1 for [B, C, ...], -1 for [B, ..., C]

    def positions(self, features: torch.Tensor, prefix: int = 0) -> torch.Tensor:
        """Features as [B, C, N], a view."""
        if self.channel_axis == 1:
            return features.flatten(2)
        return features.flatten(1, -2).mT[:, :, prefix:]

    def gated(self, *summands: torch.Tensor, trace: Trace, first_sum=None, cam_gated: bool = False) -> torch.Tensor:
        """The gate of z = sum of `summands`, shaped to scale them, after z was shown to `trace`.

        Args:
            first_sum: sum of the first summand over its positions [B, C], where it is known already.
            cam_gated: the paper's CAM reads gate * summands[0] + summands[1] (CNN) instead of z.
        """
        read, rectified, shown = summands, self.gate.rectified, self.feature_map
        as_one = bool(rectified or len(shown._forward_hooks) or len(shown._backward_hooks))
        if as_one:
            z = sum(summands[1:], summands[0])
            read = (shown(z.relu() if rectified else z),)
        views = tuple(self.positions(summand, trace.prefix) for summand in read)
        valid = None if trace.valid is None else trace.valid.to(summands[0].device)
        with no_autocast(summands[0].device):
            p = pooled_descriptor(views, valid, None if as_one else first_sum)
        scores = trace.scores[self.block] = self.gate(p)
        gate = (self.gate.scale * scores.sigmoid()).to(summands[0].dtype)
        if trace.explain:
            sides = summands[0].shape[2:] if self.channel_axis == 1 else summands[0].shape[1:-1]
            scaled = gate if cam_gated and not as_one else None
            features = Features(views, p, tuple(trace.shape or sides), valid, scaled, trace.rollout())
            trace.explanations[self.block] = trace.explain(self.block, features)
        ones = (1,) * (summands[0].ndim - 2)
        return gate.view(gate.shape[0], *ones, -1) if self.channel_axis == -1 else gate.view(*gate.shape, *ones)

    def first_sum(self, x: torch.Tensor) -> torch.Tensor | None:
        """Sum of x over its positions, for a shortcut that is summed while the cache still holds it."""
        return None if self.gate.rectified else position_sum(self.positions(x))


def add_gates(blocks: dict[nn.Module, type], channels: list[int], config) -> None:
    """Make plain blocks into gated ones: each gets its gated class, a gate of its channels and its number.

    A gated class changes the forward of its plain class and nothing else, so the block's weights stay where they are.
    """
    for number, ((block, gated_class), width) in enumerate(zip(blocks.items(), channels)):
        rank = rank_of(block, width, config)
        block.__class__ = gated_class
        block.block, block.gate, block.feature_map = number, AttentionGate(width, config, rank), nn.Identity()


def rank_of(block: nn.Module, channels: int, config) -> int | None:
    """Rank of a plain block's gate, None for a full one.

    `gate_rank="auto"`: full, unless that adds more than `LARGEST_SHARE` to the block; then what adds `LOW_SHARE`.
    """
    if config.gate_rank != "auto":
        return config.gate_rank
    size = sum(weight.numel() for weight in block.parameters())
    return None if channels**2 <= LARGEST_SHARE * size else max(1, int(LOW_SHARE * size / (2 * channels)))


class ReversibleLinear(nn.Linear):
    """An `nn.Linear` that can also be applied backwards."""

    def forward(self, x: torch.Tensor, back: bool = False) -> torch.Tensor:
        """x W^T + b; with `back`, x W."""
        return x @ self.weight.to(x.dtype) if back else super().forward(x)


def make_reversible(linear: nn.Module) -> None:
    """Let a plain `nn.Linear` be applied backwards; others are left as they are."""
    if type(linear) is nn.Linear:
        linear.__class__ = ReversibleLinear


def attend(query, key, value, scaling: float, mask: torch.Tensor | None = None):
    """Attention computed plainly in float32 or wider: the mixed values [B, T, H * D] and the weights [B, H, T, T].

    query, key, value: [B, H, T, D]. mask: True where a key may be attended to, or a number to add; broadcast to
    [B, H, T, T].
    """
    dtype = wide(query.dtype)
    with no_autocast(query.device):
        scores = (scaling * query.to(dtype)) @ key.to(dtype).mT
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(dtype).min)
        elif mask is not None:
            scores = scores + mask
        weights = scores.softmax(-1)
        mixed = (weights @ value.to(dtype)).transpose(1, 2).flatten(2)
    return mixed.to(value.dtype), weights


def carry_shares(
    trace: Trace, x: torch.Tensor, mixed: torch.Tensor, weights, value, project: nn.Module, scale=lambda values: values
) -> None:
    """Update the trace's shares of the input's tokens by one attention layer, y = x + mixed (biases left out).

    y_i has a part for each token j: W_O A_ij v_j over the heads, and x_i itself for j = i. A part's share is its
    projection on y_i over |y_i|^2, so that shares add up to 1; they multiply the shares that x had.
    Source: after Abnar & Zuidema (arXiv 2005.00928) and Kobayashi et al. (2109.07152).

    Args:
        x: the shortcut [B, T, C]. mixed: what attention adds to it [B, T, C].
        weights: attention [B, H, T, T]. value: [B, H, T, D]. project: W_O.
        scale: what scales W_O's output channel by channel.
    """
    heads, width = value.shape[1], value.shape[-1]
    dtype = wide(x.dtype)
    bias = scale(project(value.new_zeros(1, 1, heads * width)))
    y = x.to(dtype) + (mixed.to(dtype) - bias.to(dtype))
    if type(project) is ReversibleLinear and type(project.weight) is nn.Parameter:
        with no_autocast(x.device):
            back = project(scale(y.clone()), back=True).unflatten(-1, (heads, width)).transpose(1, 2)
            parts = (weights * (back @ value.to(dtype).mT)).sum(1)  # <W_O v, y> = <v, W_O^T y>, by heads
    else:  # quantised, adapted or spread weights can only be applied as they are, head by head
        parts = 0
        for head in range(heads):
            alone = torch.zeros_like(value)
            alone[:, head] = value[:, head]
            written = scale(project(alone.transpose(1, 2).flatten(2))) - bias
            with no_autocast(x.device):
                parts = parts + weights[:, head] * (y @ written.to(dtype).mT)
    parts = parts + torch.diag_embed((x.to(dtype) * y).sum(-1))
    with no_autocast(x.device):
        trace.shares = parts / parts.sum(-1, keepdim=True) @ trace.shares.to(dtype)
