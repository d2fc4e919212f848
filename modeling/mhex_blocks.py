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
        rollout: whether layers give their `shares`.
        take: for a layer that is called again for them, and gives those of some rows in the
            tokens `near` them as `take(rows, near, shares)`.
    """

    def __init__(self, explain: Callable | None = None, valid=None, prefix=0, shape=None, rollout=False, take=None):
        self.explain, self.valid, self.prefix, self.shape = explain, valid, prefix, shape
        self.rollout, self.take = rollout, take
        self.scores: dict[int, torch.Tensor] = {}  # a = W1 p [B, C] by block
        self.explanations: dict[int, object] = {}
        self.shares: dict[int, torch.Tensor | Callable] = {}  # `attend`'s by block, or a call that takes `take`


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
            features = Features(views, p, tuple(trace.shape or sides), valid, scaled)
            trace.explanations[self.block] = trace.explain(self.block, features)
        ones = (1,) * (summands[0].ndim - 2)
        return gate.view(gate.shape[0], *ones, -1) if self.channel_axis == -1 else gate.view(*gate.shape, *ones)

    def shows_shares(self, x: torch.Tensor, trace: Trace, **context) -> bool:
        """Whether attention over x [B, T, C] is to go through `attend` now.

        Shares [B, T, T] larger than x are not kept: the trace keeps x, and the layer is called again, with `context`.
        """
        if not trace.rollout or torch.compiler.is_compiling() or x.shape[1] <= x.shape[2]:
            return trace.rollout or trace.take is not None

        def again(take: Callable) -> None:
            inner = Trace(valid=trace.valid, prefix=trace.prefix, take=take)
            self(x, trace=inner, **context)  # type: ignore[operator]  # a mixin: the layer's class comes next

        trace.shares[self.block] = again
        return False

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


def attend(
    trace: Trace, block: int, x, query, key, value, scaling: float, project, scale=None, valid=None, window=None
) -> torch.Tensor:
    """What an attention layer adds to x [B, T, C], computed plainly in float32 or wider; `trace` gets its shares.

    Rows go one group after the other, so that no tensor here is larger than [B, T, 4 C], and see the tokens of their
    window alone.

    Args:
        query, key, value: [B, H, T, D]. project: W_O. scale: what scales W_O's output channel by channel.
        valid: True where a token may be attended to [B, T]. window: tokens at least so far away may not.
    """
    dtype, step = wide(query.dtype), 4 * value.shape[-1]
    places = torch.arange(x.shape[1], device=x.device)
    keys, values = key.to(dtype).mT, value.to(dtype)
    added, shares = [], []

    def write(mixed: torch.Tensor) -> torch.Tensor:  # [B, H, rows, D] to [B, rows, C]
        found = project(mixed.transpose(1, 2).flatten(2).to(value.dtype))
        return found if scale is None else scale(found)

    bias = write(torch.zeros_like(values[:1, :, :1]))
    whole = torch.compiler.is_compiling()  # a loop would fix the length of a graph
    for rows in [slice(None)] if whole else [slice(n, n + step) for n in range(0, x.shape[1], step)]:
        near = slice(None)
        if window is not None and not whole:
            near = slice(max(0, rows.start - window), rows.stop + window)
        far = places[rows, None] - places[near]
        with no_autocast(x.device):
            scores = (scaling * query[:, :, rows].to(dtype)) @ keys[..., near]
            if window is not None:
                scores = scores.masked_fill(far.abs() >= window, torch.finfo(dtype).min)
            if valid is not None:
                scores = scores.masked_fill(~valid[:, None, None, near], torch.finfo(dtype).min)
            weights = scores.softmax(-1)
            mixed = weights @ values[:, :, near]
        part = write(mixed)
        alone = part.to(dtype) - bias.to(dtype)
        found = token_shares(x[:, rows], alone, far == 0, weights, value[:, :, near], project, write, bias, scale)
        added.append(part)
        if trace.take is not None:
            trace.take(rows, near, found)
        elif near.start is None:
            shares.append(found)
        else:
            shares.append(F.pad(found, (near.start, x.shape[1] - near.start - found.shape[-1])))
    if trace.take is None:
        trace.shares[block] = torch.cat(shares, 1)
    return torch.cat(added, 1)


@torch.no_grad()
def token_shares(x, added, own, weights, value, project, write, bias, scale) -> torch.Tensor:
    """Shares [B, rows, near] of the tokens near in rows of y = x + added, attention's output without biases.

    y_i has a part for each token j: W_O A_ij v_j over the heads, and x_i itself for j = i. A part's share is its
    projection on y_i over |y_i|^2, so that shares add up to 1.
    Source: after Abnar & Zuidema (arXiv 2005.00928) and Kobayashi et al. (2109.07152).

    Args:
        x, added: [B, rows, C]. own: True where a token is the row's own [rows, near].
        weights: attention [B, H, rows, near]. The rest as in `attend`.
    """
    dtype = wide(x.dtype)
    y = x.to(dtype) + added
    if type(project) is ReversibleLinear and type(project.weight) is nn.Parameter:
        with no_autocast(x.device):
            back = project(y if scale is None else scale(y.clone()), back=True)
            back = back.unflatten(-1, (value.shape[1], -1)).transpose(1, 2)
            parts = (weights * (back @ value.to(dtype).mT)).sum(1)  # <W_O v, y> = <v, W_O^T y>, by heads
    else:  # quantised, adapted or spread weights can only be applied as they are, head by head
        parts = 0
        for head in range(value.shape[1]):
            alone = torch.zeros_like(value)
            alone[:, head] = value[:, head]
            written = write(alone) - bias
            with no_autocast(x.device):
                parts = parts + weights[:, head] * (y @ written.to(dtype).mT)
    with no_autocast(x.device):
        parts = parts + own * (x.to(dtype) * y).sum(-1, keepdim=True)
        return parts / parts.sum(-1, keepdim=True)


@torch.no_grad()
def carried_back(maps: list[torch.Tensor], blocks: list[int], shares: tuple, prefix: int) -> list[torch.Tensor]:
    """The maps [B, R, *shape] of `blocks`, carried back through attention to the input's positions; sums stay.

    Maps are vectors that pass one layer after the other, so that no product of layers is formed. What leading tokens
    without a place have a share in stays where it arrived.

    Args:
        shares: `Trace.shares` of every layer. prefix: number of leading tokens without a place.
    """
    flat = dict(zip(blocks, (found.flatten(2) for found in maps)))
    order = sorted(flat, reverse=True)
    carried = F.pad(flat[order[0]], (prefix, 0))
    for block in range(order[0], -1, -1):
        if block in order[1:]:
            placed = F.pad(flat[block], (prefix, 0))
            carried = torch.cat([carried.to(placed.device), placed], 1)
        carried = through(shares[block], carried)
    parts = carried[..., prefix:].chunk(len(order), 1)
    found = {block: part.to(flat[block].device) for block, part in zip(order, parts)}
    if prefix:
        staying = torch.zeros_like(carried[:, :1])
        staying[..., :prefix] = 1
        for block in range(order[0] + 1):
            staying = through(shares[block], staying, back=False)
            if block in flat:
                found[block] = found[block] + flat[block] * staying[..., prefix:].to(flat[block].device)
    return [found[block].view_as(given) for block, given in zip(blocks, maps)]


def through(shares, vectors: torch.Tensor, back: bool = True) -> torch.Tensor:
    """vectors [B, R, T] times a layer's shares; without `back`, its shares times the vectors."""
    if isinstance(shares, torch.Tensor):
        return vectors.to(shares.device) @ (shares if back else shares.mT)
    found = torch.zeros_like(vectors)

    def take(rows: slice, near: slice, part: torch.Tensor) -> None:
        if back:
            found[..., near] += (vectors[..., rows].to(part.device) @ part).to(found.device)
        else:
            found[..., rows] = (vectors[..., near].to(part.device) @ part.mT).to(found.device)

    shares(take)
    return found
