"""How do a block's features become a descriptor and, with rows of its equivalent matrix, maps? Pure functions.

Shapes: B rows of a batch, K labels, R explained classes (1, or K for "all"), C channels, N positions. The formulas
stand at the top of mhex.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

LARGEST_MAPS = 2**28  # values of all classes' maps at input size: 1 GiB in float32


class Features(NamedTuple):
    """What a block shows of itself while it passes; it goes on in place, so what is to be kept is `added` up first.

    Args:
        summands: what z [B, C, ...] is the sum of. Mean and map are linear, so a block that needs no z forms none.
        p: pooled descriptor [B, C]. valid: positions that count [B, N], None for all.
        gate: [B, C] where the CAM reads y = gate * summands[0] + summands[1]; None where it reads z.
        rollout: [B, N, N], in row n the input positions' shares in position n, which maps are carried back by.
    """

    summands: tuple[torch.Tensor, ...]
    p: torch.Tensor
    valid: torch.Tensor | None = None
    gate: torch.Tensor | None = None
    rollout: torch.Tensor | None = None

    def added(self, mode: str = "contribution") -> "Features":
        """The same with z, or y for the mode "cam", as one tensor of its own, unrounded."""
        x, *branch = self.summands
        if not branch:
            return self
        x = x.to(wide(x.dtype))
        if mode == "cam":
            x = x * self.gate.view(*self.gate.shape, *[1] * (x.ndim - 2))
        return self._replace(summands=(x + branch[0],), gate=None)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that descriptors, logits and maps are computed in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def position_sum(features: torch.Tensor) -> torch.Tensor:
    """The sum over all positions of features [B, C, ...], [B, C], float32 or wider."""
    return features.flatten(2).sum(-1, dtype=wide(features.dtype))


def pooled_descriptor(
    summands: tuple[torch.Tensor, ...], valid: torch.Tensor | None = None, first_sum: torch.Tensor | None = None
) -> torch.Tensor:
    """p = ReLU(mean over valid positions of z), [B, C], for z [B, C, ...] = the sum of `summands`, which is not formed.

    valid [B, N] is True where a position counts, None for everywhere; p = 0 for a row without such a position.
    first_sum: `position_sum` of the first summand, where it is known already.
    """
    if valid is None:
        first = position_sum(summands[0]) if first_sum is None else first_sum
        return (sum(map(position_sum, summands[1:]), first) / summands[0].flatten(2).shape[-1]).relu()
    positions = [summand.flatten(2) for summand in summands]
    dtype = wide(positions[0].dtype)
    weights = valid[:, None].to(dtype)  # a product with 0 and 1 costs less than a copy with zeros in it
    total = sum((weights @ part.mT.to(dtype))[:, 0] for part in positions)
    return (total / weights.sum(-1).clamp(min=1)).relu()


def decay_factors(depths: list[int], decay: float, like: torch.Tensor) -> torch.Tensor:
    """Weights `decay ** (deepest - depth)` of the blocks at `depths`, [len(depths)]; 0 ** 0 is 1."""
    distance = torch.tensor([max(depths) - depth for depth in depths], dtype=like.dtype, device=like.device)
    return torch.pow(float(decay), distance)


def block_map(rows: torch.Tensor, features: Features, mode: str) -> torch.Tensor:
    """Maps [B, R, ...] of one block for `rows` [B or 1, R, C] of its equivalent matrix; padding gets exactly 0.

    "contribution": rows * 1[mean z > 0] * z / N, which sums to rows @ p. "cam": rows * y (the paper's CAM). A channel
    whose mean is 0 to rounding may fall on either side, which changes the map, not its sum.
    """
    x, *branch = (summand.flatten(2).to(rows.dtype) for summand in features.summands)
    if mode == "contribution":
        count = x.shape[-1] if features.valid is None else features.valid.sum(-1).clamp(min=1)[:, None, None]
        rows = rows * (features.p > 0)[:, None] / count
    rows = rows.expand(x.shape[0], -1, -1)
    gated = rows if mode == "contribution" or features.gate is None else rows * features.gate[:, None]
    maps = gated @ x
    for f in branch:
        maps = maps + rows @ f
    if features.valid is not None:
        maps = maps.masked_fill(~features.valid[:, None], 0)
    if features.rollout is not None:
        maps = maps @ features.rollout
    return maps.unflatten(2, features.summands[0].shape[2:])


def upsampling_matrix(cells: int, pixels: int, like: torch.Tensor) -> torch.Tensor:
    """U [pixels, cells]: the integral of the bilinear interpolant (edges continued) over each output pixel.

    Every column sums to 1 and every row to cells / pixels, so sums and flat maps both survive, at any two sizes.
    """
    edges = torch.arange(pixels + 1, dtype=torch.float64, device=like.device) * (cells / pixels) - 0.5
    centres = torch.arange(-1, cells + 1, dtype=torch.float64, device=like.device)
    v = (edges[:, None] - centres).clamp(-1, 1)
    integral = (0.5 + v - 0.5 * v * v.abs()).diff(dim=0)  # of the hat functions, one beyond each edge
    inner = integral[:, 1:-1].clone()
    inner[:, 0] += integral[:, 0]
    inner[:, -1] += integral[:, -1]
    return inner.to(like.dtype)


def upsample_map(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bring maps [..., h, w] to [..., H, W] = `size` as U_h S U_w^T: every map keeps its sum."""
    rows, columns = (upsampling_matrix(old, new, maps) for old, new in zip(maps.shape[-2:], size))
    return rows @ maps @ columns.mT


def normalize_map(maps: torch.Tensor, how: str, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Scale each map of [B, R, ...] to [0, 1] over its valid positions; flat maps (to 1e-6 of their size) give zeros.

    "minmax" takes smallest and largest value, "percentile" the 1st and 99th percentile, clipping beyond them.
    """
    flat = maps.flatten(2)
    inside = torch.ones_like(flat, dtype=torch.bool) if valid is None else valid[:, None].expand_as(flat)
    count = inside.sum(-1, keepdim=True).clamp(min=1)
    ordered = flat.masked_fill(~inside, torch.inf).sort(-1).values

    def quantile(q: float) -> torch.Tensor:
        place = q * (count - 1).to(flat.dtype)
        below = place.floor()
        low, high = ordered.gather(-1, below.long()), ordered.gather(-1, place.ceil().long())
        return low + (high - low) * (place - below)

    margin = 0.01 if how == "percentile" else 0.0
    low, high = quantile(margin), quantile(1 - margin)
    size = flat.masked_fill(~inside, 0).abs().amax(-1, keepdim=True)
    scaled = ((flat - low) / (high - low)).clamp(0, 1)
    return torch.where(inside & (high - low > 1e-6 * size), scaled, 0).view_as(maps)


def select_classes(target, contrast, num_labels: int, like: torch.Tensor, logits: torch.Tensor | None = None):
    """Which combination of classes is explained: targets [B or 1, R] and, over the K classes, `chosen` (one-hot) and
    `coefficients` = chosen - reference, both [B or 1, R, K]. None where that depends on `logits` not known yet.
    """
    if logits is None and (target is None or contrast in ("runner_up", "softmax")):
        return None
    if target is None:
        targets = logits.argmax(-1, keepdim=True)
    elif isinstance(target, str):
        targets = torch.arange(num_labels, device=like.device)[None]
    else:
        targets = torch.as_tensor(target, device=like.device).view(-1, 1)
    chosen = F.one_hot(targets, num_labels).to(like.dtype)
    if contrast is None:
        return targets, chosen, chosen
    if contrast == "mean":
        reference = (1 - chosen) / (num_labels - 1)
    elif contrast in ("runner_up", "softmax"):
        others = logits[:, None].masked_fill(chosen.bool(), -torch.inf)
        best = F.one_hot(others.argmax(-1), num_labels).to(like.dtype)
        reference = others.softmax(-1) if contrast == "softmax" else best
    else:
        reference = F.one_hot(torch.tensor(contrast, device=like.device), num_labels).to(like.dtype)
    return targets, chosen, chosen - reference


def class_rows(
    chosen, coefficients, head, equivalent: Callable, sign: str, sharpness: tuple[float, float]
) -> torch.Tensor:
    """The rows `coefficients @ W_eq` [B or 1, R, C] after contrast, then sharpness, then non-negativity.

    head is W2 [K, C]; `equivalent(rows)` is rows @ W1, so that only the rows asked for are multiplied out.

    Sharpness keeps an entry whose share of its channel's entries of the same sign, over all classes, reaches the
    threshold; the other classes' entries are those of W_eq itself.
    """
    if sign == "signed" and sharpness == (0.0, 0.0):
        return equivalent(coefficients @ head)
    matrix = equivalent(head)
    rows = coefficients @ matrix
    kept = torch.zeros_like(rows)
    for direction, threshold in zip((1,) if sign == "positive" else (1, -1), sharpness):
        part = (direction * rows).clamp(min=0)
        total = part + (1 - chosen) @ (direction * matrix).clamp(min=0)
        kept = kept + direction * part.where(part >= threshold * total, 0)
    return kept


def combine_maps(maps: list[torch.Tensor], factors: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    """The sum of factor * map over blocks, [B, R, ...]; neighbours of one resolution are added, then upsampled once."""
    sums: list[torch.Tensor] = []
    for factor, found in zip(factors, maps):
        if sums and sums[-1].shape == found.shape:  # compared, not hashed: shapes may be symbols while compiling
            sums[-1] = sums[-1] + factor * found
        else:
            sums.append(factor * found)
    return sum(found if size is None else upsample_map(found, size) for found in sums)


def check_blocks(blocks, num_blocks: int) -> list[int]:
    """Indices in [0, num_blocks) for `blocks` (None for all); raises ValueError or TypeError."""
    if blocks is None:
        return list(range(num_blocks))
    if not isinstance(blocks, (list, tuple)) or not all(type(block) is int for block in blocks):
        raise TypeError(f"blocks must be None or a list of ints, got {blocks!r}.")
    if not blocks or any(not -num_blocks <= block < num_blocks for block in blocks):
        raise ValueError(
            f"blocks must name blocks of {num_blocks}, from {-num_blocks} to {num_blocks - 1}; got {blocks}."
        )
    indices = [block % num_blocks for block in blocks]
    if len(set(indices)) < len(indices):
        raise ValueError(f"blocks must not name a block twice, got {blocks}.")
    return indices


def check_target(target, batch: int, num_labels: int, size: tuple[int, int] | None = None):
    """None, "all" or a LongTensor [1] or [B] for `target`, given the size that maps are upsampled to, if they are.

    Raises ValueError or TypeError.
    """
    if target is None:
        return None
    if isinstance(target, str) and target == "all":
        check_map_size(batch, num_labels, size)
        return target
    if isinstance(target, (str, bool)):
        raise TypeError(f"target must be None, a class index, {batch} of them or 'all', got {target!r}.")
    classes = torch.as_tensor(target)
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise TypeError(f"target must be integers, got {classes.dtype}; use target.long().")
    if classes.ndim and tuple(classes.shape) != (batch,):
        raise ValueError(f"target must be one class index or {batch}, one a row; got shape {list(classes.shape)}.")
    if not torch.compiler.is_compiling() and ((classes < 0) | (classes >= num_labels)).any():
        raise ValueError(f"target must lie in [0, {num_labels - 1}], got {classes.tolist()}.")
    return classes.long().view(-1)


def check_map_size(batch: int, num_labels: int, size: tuple[int, int] | None) -> None:
    """Raise ValueError where all classes' combined maps at input size are more than `LARGEST_MAPS` values."""
    if size is None or torch.compiler.is_compiling():
        return
    values = batch * num_labels * size[0] * size[1]
    if values > LARGEST_MAPS:
        raise ValueError(
            f"target='all' would make {batch} x {num_labels} maps of {size[0]} x {size[1]}, {values / 2**28:.1f} GiB, "
            "and at most 1 GiB is made at once; pass fewer rows, or upsample=False for maps at block resolution."
        )


def check_options(mode, sign, contrast, decay, sharpness, normalize, num_labels: int) -> tuple[float, float]:
    """Raise ValueError or TypeError for an option of `generate_saliency` out of range; return the sharpness pair."""
    for name, value, allowed in (
        ("mode", mode, ("contribution", "cam")),
        ("sign", sign, ("signed", "positive")),
        ("normalize", normalize, (None, "minmax", "percentile")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
    if contrast is not None:
        if num_labels == 1:
            raise ValueError(f"contrast={contrast!r} needs another class, but the model has one label; use None.")
        index = type(contrast) is int and 0 <= contrast < num_labels
        if not index and contrast not in ("mean", "runner_up", "softmax"):
            cure = f"None, 'mean', 'runner_up', 'softmax' or a class index in [0, {num_labels - 1}]"
            raise ValueError(f"contrast must be {cure}; got {contrast!r}.")
    if decay is not None and not 0 <= decay <= 1:
        raise ValueError(f"decay must be None or lie in [0, 1], got {decay!r}.")
    pair = tuple(sharpness) if isinstance(sharpness, (list, tuple)) else (sharpness, sharpness)
    if len(pair) != 2 or not all(isinstance(share, (int, float)) and 0 <= share <= 1 for share in pair):
        raise ValueError(f"sharpness must be a number or a (positive, negative) pair in [0, 1], got {sharpness!r}.")
    return (float(pair[0]), float(pair[1]))


def check_rollout(rollout, size: tuple[int, int] | None) -> None:
    """Raise TypeError or ValueError unless `rollout` is False, or True for a text, whose maps have no size."""
    if type(rollout) is not bool:
        raise TypeError(f"rollout must be True or False, got {rollout!r}.")
    if rollout and size is not None:
        raise ValueError("rollout=True goes back through a text model's attention; an image model has none, use False.")
