"""Descriptors and maps of a block as pure functions; the formulas stand at the top of mhex.py.

Shapes: B rows of a batch, K labels, R explained classes (1, or K for "all"), C channels, N positions.
"""

from contextlib import nullcontext
from difflib import get_close_matches
from typing import NamedTuple

import torch
import torch.nn.functional as F

LARGEST_MAPS = 2**28  # values of all classes' maps at input size: 1 GiB in float32


class Features(NamedTuple):
    """What a block shows while it passes. It goes on in place, so keep what `added` returns.

    Args:
        summands: z [B, C, N] is their sum. Means and maps are linear, so a block that needs no z forms none.
        p: pooled descriptor [B, C].
        shape: sides of the N positions, (h, w) or (N,).
        valid: positions that count [B, N]; None for all.
        gate: [B, C] where the paper's CAM reads y = gate * summands[0] + summands[1]; None where it reads z.
    """

    summands: tuple[torch.Tensor, ...]
    p: torch.Tensor
    shape: tuple[int, ...]
    valid: torch.Tensor | None = None
    gate: torch.Tensor | None = None

    def added(self, gated: bool = False) -> "Features":
        """The same with z, or with `gated` the y of the CAM, as one new tensor, float32 or wider."""
        x, *branch = self.summands
        if not branch:
            return self
        x = x.to(wide(x.dtype))
        if gated and self.gate is not None:
            x = x * self.gate[:, :, None]
        return self._replace(summands=(x + branch[0],), gate=None)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of descriptors, logits and maps: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def no_autocast(device: torch.device):
    """A context without autocast on the device."""
    active = device.type != "meta" and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if active else nullcontext()


def position_sum(features: torch.Tensor) -> torch.Tensor:
    """Sum over the positions of features [B, C, N]: [B, C], float32 or wider."""
    return features.sum(-1, dtype=wide(features.dtype))


def pooled_descriptor(
    summands: tuple[torch.Tensor, ...], valid: torch.Tensor | None = None, first_sum: torch.Tensor | None = None
) -> torch.Tensor:
    """p = ReLU(mean over valid positions of z), [B, C], for z [B, C, N] = sum of `summands`, which is not formed.

    A mean within rounding of 0 (16 eps of the row's largest) counts as 0, whatever the batch and the device. A row
    without a valid position has p = 0.

    Args:
        valid: True where a position counts [B, N]; None for everywhere.
        first_sum: `position_sum` of the first summand, where it is known already.
    """
    if valid is None:
        total = position_sum(summands[0]) if first_sum is None else first_sum
        for summand in summands[1:]:
            total = total + position_sum(summand)
        count = summands[0].shape[-1]
    else:
        weights = valid[:, None].to(wide(summands[0].dtype))  # a product with 0 and 1 costs less than a masked copy
        total = sum((weights @ summand.mT.to(weights.dtype))[:, 0] for summand in summands)
        count = weights.sum(-1).clamp(min=1)
    p = (total / count).relu()
    return p * (p > 16 * torch.finfo(p.dtype).eps * p.amax(-1, keepdim=True))


def decay_factors(depths: list[int], decay: float) -> list[float]:
    """Weights `decay ** (deepest - depth)` of the blocks at `depths`; 0 ** 0 is 1."""
    return [float(decay) ** (max(depths) - depth) for depth in depths]


def block_map(rows: torch.Tensor, features: Features) -> torch.Tensor:
    """Contribution maps [B, R, *shape] for `rows` [B or 1, R, C] of the equivalent matrix.

    rows * 1[mean z > 0] * z / N, which sums to rows @ p. Padding gets exactly 0.
    """
    positions = features.summands[0].shape[-1]
    count = positions if features.valid is None else features.valid.sum(-1).clamp(min=1)[:, None, None]
    return _laid_out(rows * (features.p > 0)[:, None] / count, features)


def cam(rows: torch.Tensor, features: Features) -> torch.Tensor:
    """The paper's CAM [B, R, *shape]: rows * y, without the indicator and without 1/N."""
    return _laid_out(rows, features.added(gated=True))


def _laid_out(rows: torch.Tensor, features: Features) -> torch.Tensor:
    """rows [B or 1, R, C] times the sum of the summands, laid out in the positions' shape."""
    batch = features.summands[0].shape[0]
    rows = rows.expand(batch, -1, -1)
    maps = rows @ features.summands[0].to(rows.dtype)
    for summand in features.summands[1:]:
        maps = maps + rows @ summand.to(rows.dtype)
    if features.valid is not None:
        maps = maps.masked_fill(~features.valid[:, None], 0)
    return maps.unflatten(2, features.shape)


def upsampling_matrix(cells: int, pixels: int, like: torch.Tensor) -> torch.Tensor:
    """U [pixels, cells]: the integral of the bilinear interpolant (edges continued) over each output pixel.

    Columns sum to 1 and rows to cells / pixels, so sums and flat maps both survive, at any two sizes.
    """
    place = "cpu" if like.device.type == "mps" else like.device  # Apple's GPUs have no float64
    edges = torch.arange(pixels + 1, dtype=torch.float64, device=place) * (cells / pixels) - 0.5
    centres = torch.arange(-1, cells + 1, dtype=torch.float64, device=place)
    v = (edges[:, None] - centres).clamp(-1, 1)
    integral = (0.5 + v - 0.5 * v * v.abs()).diff(dim=0)  # of the hat functions, one beyond each edge
    inner = integral[:, 1:-1].clone()
    inner[:, 0] += integral[:, 0]
    inner[:, -1] += integral[:, -1]
    return inner.to(like.dtype).to(like.device)


def upsample_map(maps: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Bring maps [B, R, *cells] of one or two dimensions to `size`; every map keeps its sum."""
    maps = maps @ upsampling_matrix(maps.shape[-1], size[-1], maps).mT
    return upsampling_matrix(maps.shape[-2], size[0], maps) @ maps if len(size) == 2 else maps


def refined_map(maps: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """Maps [B, R, *size] whose shares are handed out again by the pixels' `evidence` [B, 1, *size]; sums stay.

    What speaks for a class, the total of a map's positive part, goes to pixels by map times evidence where both are
    positive; what speaks against it likewise where both are negative. Evidence counts net of what its surroundings, a
    49th of the input, say to the contrary, so that noise cancels. A hundredth of the mean share goes by evidence alone,
    and a thousandth of every share stays, so that without evidence a map is as it was.
    """
    size = maps.shape[2:]
    window = tuple(2 * (side // (49 if len(size) == 1 else 7) // 2) + 1 for side in size)
    refined = torch.zeros_like(maps)
    for sign in (1, -1):
        share, own = (sign * maps).clamp(min=0), (sign * evidence).clamp(min=0)
        net = own * over(nearby_mean(sign * evidence, window).clamp(min=0), nearby_mean(own, window))
        weight = (share + 0.01 * position_mean(share)) * over(net, position_mean(net)) + 1e-3 * share
        refined += sign * weight * over(position_mean(share), position_mean(weight))
    return refined


def refined_tokens(maps: torch.Tensor, evidence: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """The mean of maps [B, R, T] and the tokens' `evidence` [B, 1, T], which is in logits too; sums stay.

    What then lacks of a sum, half of what the absent words would be answered with, goes to the `valid` tokens [B, T]
    (None for all) alike.
    """
    kept = torch.ones_like(evidence) if valid is None else valid[:, None].to(evidence.dtype)
    mean = kept * (maps + evidence) / 2
    rest = (maps - mean).sum(-1, keepdim=True)
    return mean + kept * rest / kept.sum(-1, keepdim=True).clamp(min=1)


def over(value: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
    """value / divisor for divisors of at least 0; 0 where both are."""
    return value / divisor.clamp(min=torch.finfo(divisor.dtype).tiny)


def position_mean(maps: torch.Tensor) -> torch.Tensor:
    """The mean of each map [B, R, *size] over its positions, with sides of 1."""
    return maps.mean(tuple(range(2, maps.ndim)), keepdim=True)


def nearby_mean(maps: torch.Tensor, window: tuple[int, ...]) -> torch.Tensor:
    """The mean of maps [B, 1, *size] over a window of odd sides around each position, inside the map."""
    if len(window) == 1:
        return F.avg_pool1d(maps, window[0], 1, window[0] // 2, count_include_pad=False)
    height, width = window  # one side after the other: a window of 33 x 33 costs 66
    maps = F.avg_pool2d(maps, (height, 1), 1, (height // 2, 0), count_include_pad=False)
    return F.avg_pool2d(maps, (1, width), 1, (0, width // 2), count_include_pad=False)


def combine_maps(maps: list[torch.Tensor], factors: list[float], size: tuple[int, ...] | None) -> torch.Tensor:
    """Sum of factor * map over blocks, [B, R, *size]; neighbours of one resolution are added, then upsampled once."""
    sums: list[torch.Tensor] = []
    for factor, found in zip(factors, maps):
        if sums and sums[-1].shape == found.shape:  # compared, not hashed: shapes may be symbols while compiling
            sums[-1] = sums[-1] + factor * found.to(sums[-1].device)
        else:
            sums.append(factor * found)
    parts = sums if size is None else [upsample_map(found, size) for found in sums]
    return sum((part.to(parts[0].device) for part in parts[1:]), parts[0])


def resize_maps(maps: list[torch.Tensor], factors: list[float], size: tuple[int, ...] | None) -> torch.Tensor:
    """The paper's combination: each map resized bilinearly, values kept, times its factor, added up: [B, R, *size]."""
    if size is not None:
        mode = "bilinear" if len(size) == 2 else "linear"
        maps = [F.interpolate(found, size=size, mode=mode, align_corners=False) for found in maps]
    return sum(factor * found.to(maps[0].device) for factor, found in zip(factors, maps))


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
    """The explained combination of classes: targets [B or 1, R], and `chosen` (one-hot) and `chosen - reference`, both
    [B or 1, R, K]. None where that depends on `logits` not known yet.
    """
    if logits is None:
        if target is None or contrast in ("runner_up", "softmax"):
            return None
        logits = like  # not read below
    if target is None:
        targets = logits.argmax(-1, keepdim=True)
    elif isinstance(target, str):
        targets = torch.arange(num_labels, device=like.device)[None]
    else:
        targets = target.to(like.device).view(-1, 1)
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


def sharpened(
    chosen: torch.Tensor, rows: torch.Tensor, matrix: torch.Tensor, sign: str, sharpness: tuple[float, float]
) -> torch.Tensor:
    """The paper's sharpness and non-negativity on `rows` [B or 1, R, C] of the equivalent `matrix` [K, C].

    An entry stays where its share of its channel's entries of the same sign, over all classes, reaches the threshold
    for that sign. The other classes' entries are those of the matrix itself.
    """
    kept = torch.zeros_like(rows)
    for direction, threshold in zip((1,) if sign == "positive" else (1, -1), sharpness):
        part = (direction * rows).clamp(min=0)
        total = part + (1 - chosen) @ (direction * matrix).clamp(min=0)
        kept = kept + direction * part.where(part >= threshold * total, 0)
    return kept


def check_names(given, known, what: str) -> None:
    """Raise TypeError for a name in `given` that is not `known`, with the closest ones."""
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(sorted(known))}."
            raise TypeError(f"{name!r} is no argument of {what}; {hint}")


def check_blocks(blocks, num_blocks: int) -> list[int]:
    """Indices in [0, num_blocks) for `blocks` (None for all); raises ValueError or TypeError."""
    if blocks is None:
        return list(range(num_blocks))
    given = [blocks] if isinstance(blocks, (str, bytes)) or not hasattr(blocks, "__iter__") else list(blocks)
    if any(isinstance(block, bool) or not hasattr(block, "__index__") for block in given):
        raise TypeError(f"blocks must be None or integers, got {blocks!r}.")
    numbers = [block.__index__() for block in given]
    if not numbers or any(not -num_blocks <= block < num_blocks for block in numbers):
        raise ValueError(f"blocks must lie in [{-num_blocks}, {num_blocks - 1}], at least one; got {blocks}.")
    indices = [block % num_blocks for block in numbers]
    if len(set(indices)) < len(indices):
        raise ValueError(f"blocks must not name a block twice, got {blocks}.")
    return indices


def check_target(target, batch: int, num_labels: int, size: tuple[int, ...] | None = None):
    """None, "all" or a LongTensor [1] or [B] for `target`; `size` is what maps are upsampled to, None if they are not.

    Raises ValueError or TypeError.
    """
    if target is None:
        return None
    if isinstance(target, str) and target == "all":
        check_map_size(batch, num_labels, size)
        return target
    if isinstance(target, (str, bool)):
        raise TypeError(f"target must be None, a class index, {batch} of them or 'all', got {target!r}.")
    classes = torch.as_tensor(list(target) if isinstance(target, range) else target)
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise TypeError(f"target must be integers, got {classes.dtype}; use target.long().")
    if classes.ndim and tuple(classes.shape) != (batch,):
        raise ValueError(f"target must be one class index or {batch}, one a row; got shape {list(classes.shape)}.")
    if not torch.compiler.is_compiling() and ((classes < 0) | (classes >= num_labels)).any():
        raise ValueError(f"target must lie in [0, {num_labels - 1}], got {classes.tolist()}.")
    return classes.long().view(-1)


def check_map_size(batch: int, num_labels: int, size: tuple[int, ...] | None) -> None:
    """Raise ValueError where all classes' combined maps at input size are more than `LARGEST_MAPS` values."""
    if size is None or torch.compiler.is_compiling():
        return
    values = batch * num_labels
    for side in size:
        values *= side
    if values > LARGEST_MAPS:
        raise ValueError(
            f"target='all' would make {batch} x {num_labels} maps of {' x '.join(map(str, size))}, "
            f"{values / 2**28:.1f} GiB, and at most 1 GiB is made at once; pass fewer rows, or upsample=False for maps "
            "at block resolution."
        )


def check_options(contrast, decay, normalize, num_labels: int, target=None) -> None:
    """Raise ValueError for a contrast, decay or normalisation that cannot be, and for an int target's own contrast."""
    if normalize not in (None, "minmax", "percentile"):
        raise ValueError(f"normalize must be None, 'minmax' or 'percentile'; got {normalize!r}.")
    if contrast is not None:
        if num_labels == 1:
            raise ValueError(f"contrast={contrast!r} needs another class, but the model has one label; use None.")
        index = type(contrast) is int or (
            hasattr(contrast, "__index__") and not isinstance(contrast, bool) and not hasattr(contrast, "__len__")
        )
        index = index and 0 <= contrast < num_labels
        if not index and contrast not in ("mean", "runner_up", "softmax"):
            cure = f"None, 'mean', 'runner_up', 'softmax' or a class index in [0, {num_labels - 1}]"
            raise ValueError(f"contrast must be {cure}; got {contrast!r}.")
        if index and type(target) is int:
            check_contrast(contrast, target)
    if decay is not None and (not hasattr(decay, "__float__") or not 0 <= decay <= 1):
        raise ValueError(f"decay must be None or lie in [0, 1], got {decay!r}.")


def check_refine(refine) -> None:
    """Raise TypeError or ValueError for a number of passes that cannot be."""
    if not hasattr(refine, "__index__"):
        raise TypeError(f"refine must be True, False or a number of passes, got {refine!r}.")
    if refine.__index__() < 0:
        raise ValueError(f"refine must be at least 1 pass with a gradient, or 0 for none, got {refine}.")


def check_mask_token(token, vocabulary: int) -> None:
    """Raise ValueError unless `token` is the number of one in a vocabulary of that size."""
    if not hasattr(token, "__index__") or isinstance(token, bool) or not 0 <= token.__index__() < vocabulary:
        raise ValueError(
            f"refine takes words away, and needs the token that stands for an absent one in [0, {vocabulary - 1}]; got "
            f"mask_token_id={token!r}. Pass mask_token_id=tokenizer.mask_token_id, another token where the tokenizer "
            "has none, or leave refine out."
        )


def check_one_map(model, target, upsample: bool) -> None:
    """Raise ValueError where a map cannot be refined: of several targets, without its size, or without a gradient."""
    packed = next((module for module in model.modules() if "ao.nn.quantized" in type(module).__module__), None)
    if packed is not None:
        raise ValueError(
            f"refine=True needs a gradient, which {type(packed).__name__} of torch.ao.quantization does not give; use "
            "the model before quantization, or refine=False."
        )
    if isinstance(target, str) or not upsample:
        raise ValueError(
            f"refine=True refines one map at input size; got target={target!r}, upsample={upsample}. Ask for one "
            "target at a time, with upsample=True."
        )
    if torch.is_inference_mode_enabled() or torch.compiler.is_compiling():
        raise ValueError(
            "refine=True needs a gradient, which inference_mode, compile and export do not give; use "
            "torch.no_grad() and the model as it is, or refine=False."
        )


def check_contrast(contrast, target) -> None:
    """Raise ValueError where a label, by index or name, would be explained against itself."""
    if contrast == target:
        cure = "name another label, or None for the logit"
        raise ValueError(f"contrast={contrast!r} is the target {target!r} itself, and the map would be 0; {cure}.")


def check_sharpness(sharpness) -> tuple[float, float]:
    """The (positive, negative) thresholds; raises ValueError."""
    pair = tuple(sharpness) if isinstance(sharpness, (list, tuple)) else (sharpness, sharpness)
    if len(pair) != 2 or not all(isinstance(share, (int, float)) and 0 <= share <= 1 for share in pair):
        raise ValueError(f"sharpness must be a number or a (positive, negative) pair in [0, 1], got {sharpness!r}.")
    return (float(pair[0]), float(pair[1]))


def choose(name: str, value, allowed: tuple) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
