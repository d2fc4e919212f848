"""Faithfulness over one row's game: the network loses what the map names, and keeps its answer without the rest.

Every function takes a game `v(keep) -> [M]` (see removal.py), a map [N] over its features (for an image, the map
flattened) and gives one number for that row; the measure is the mean over rows. The map is used as it is, signed:
features that speak against the class come last. Ties are broken at random, so that a constant map removes at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hf_mhex.evaluation.ordering import removal_order, top_count

Game = Callable[[torch.Tensor], torch.Tensor]
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
MARKED = (0.1, 0.2, 0.3, 0.4, 0.5)


def kept_top(values: torch.Tensor, counts: Sequence[int], seed: int = 0) -> torch.BoolTensor:
    """For each count, which features are among the highest so many, [len(counts), N]."""
    order = removal_order(values.flatten(), torch.Generator().manual_seed(seed))
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    return place < torch.tensor(list(counts))[:, None]


def curve_counts(features: int, steps: int) -> list[int]:
    """Numbers of features at steps + 1 equal distances from none to all (fewer where there are fewer features)."""
    steps = min(steps, features)
    return [round(step * features / steps) for step in range(steps + 1)]


def area_under(shares: torch.Tensor, values: torch.Tensor) -> float:
    """Area by trapezoids of a curve over shares in [0, 1]."""
    return float(torch.trapezoid(values.double(), shares.double()))


def deletion_auc(game: Game, values: torch.Tensor, steps: int = 28, seed: int = 0) -> float:
    """Deletion: area under p(class) while features go, highest first, from the whole input to none. Lower is better.

    Source: Petsiuk et al., "RISE" (2018), who take 1 / H of the pixels at a step and fill with 0 of the normalised
    input. Probability of the explained class (not of the label), trapezoids. 1 feature in N / steps goes at a step.
    """
    counts = curve_counts(values.numel(), steps)
    shares = torch.tensor(counts) / values.numel()
    return area_under(shares, game(~kept_top(values, counts, seed)))


def insertion_auc(game: Game, values: torch.Tensor, steps: int = 28, seed: int = 0) -> float:
    """Insertion: area under p(class) while features come, highest first, onto the empty input. Higher is better.

    Source: as deletion. RISE starts from the blurred image ("blur"); starting from 0 gives other numbers.
    """
    counts = curve_counts(values.numel(), steps)
    shares = torch.tensor(counts) / values.numel()
    return area_under(shares, game(kept_top(values, counts, seed)))


def remove_and_debias(
    game: Game, values: torch.Tensor, shares: Sequence[float] = (0.2, 0.4, 0.6, 0.8), seed: int = 0
) -> dict[str, float]:
    """ROAD over a game that imputes (`fill="impute"`): p(class), the mean over shares of removed features.

    "morf": the most relevant are removed (lower is better). "lerf": the least relevant are (higher is better).
    "combined" is (lerf - morf) / 2, higher is better, in which the unchanged input's probability cancels. Source: Rong
    et al. (2022), who report accuracy at each share; the package grad-cam reports differences of logits or
    probabilities from the unchanged input, at percentiles of the map, where ties fall together.
    """
    counts = [top_count(share, values.numel()) for share in shares]
    removed = torch.cat([kept_top(values, counts, seed), kept_top(-values, counts, seed)])
    morf, lerf = (float(half.mean()) for half in game(~removed).chunk(2))
    return {"morf": morf, "lerf": lerf, "combined": (lerf - morf) / 2}


def comprehensiveness(game: Game, values: torch.Tensor, shares: Sequence[float] = SHARES, seed: int = 0) -> float:
    """ERASER: p(whole) - p(without the top share), mean over the shares (AOPC). Higher is better.

    Source: DeYoung et al., "ERASER" (2020). The class is the explained one; a share is rounded up to whole tokens, at
    least one, of the content tokens. The paper's AOPC also counts the empty rationale, whose term is 0, and divides by
    one more: 5/6 of ours for five shares. A row without features gives 0.
    """
    return _mean_change(game, values, shares, seed, keep_top=False)


def sufficiency(game: Game, values: torch.Tensor, shares: Sequence[float] = SHARES, seed: int = 0) -> float:
    """ERASER: p(whole) - p(the top share alone), mean over the shares (AOPC). Lower is better; it may be negative."""
    return _mean_change(game, values, shares, seed, keep_top=True)


def _mean_change(game: Game, values: torch.Tensor, shares: Sequence[float], seed: int, keep_top: bool) -> float:
    if values.numel() == 0:
        return 0.0
    top = kept_top(values, [top_count(share, values.numel()) for share in shares], seed)
    whole = torch.ones(1, values.numel(), dtype=torch.bool)
    found = game(torch.cat([whole, top if keep_top else ~top]))
    return float((found[0] - found[1:]).mean())


def f_fidelity(
    game: Game,
    values: torch.Tensor,
    shares: Sequence[float] = MARKED,
    alpha: float = 0.5,
    beta: float = 0.1,
    samples: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """F-Fidelity: v(all) - v(without some), where never more than a share `beta` of the features goes at once.

    "plus": at random some of the marked features go (higher is better); "minus": some of the others (lower is better).
    Marked are the highest `share` of the map. A share `alpha` of them goes, or `beta` of all features where that is
    less, at least one. Means over shares and samples. Source: Zheng et al., "F-Fidelity" (2024), who also fine-tune the
    network on inputs without a share `beta`, so that such removals are nothing new to it. This function does not: a
    network that was taught with `part_consistency` has seen them. A row with fewer than two features gives 0.
    """
    values = values.flatten()
    count, generator = len(values), torch.Generator().manual_seed(seed)
    if count < 2:
        return {"plus": 0.0, "minus": 0.0}
    marked = kept_top(values, [min(top_count(share, count), count - 1) for share in shares], seed)
    found = {}
    for name, regions in (("plus", marked), ("minus", ~marked)):
        removed = []
        for region in regions.repeat_interleave(samples, 0):
            gone = max(1, round(min(alpha * int(region.sum()), beta * count)))
            place = torch.rand(count, generator=generator).masked_fill(~region, 2.0).argsort().argsort()
            removed.append(place < gone)
        found[name] = float(changes(game, torch.stack(removed)).mean())
    return found


def sensitivity_n(game: Game, values: torch.Tensor, size: int, samples: int = 100, seed: int = 0) -> float:
    """Sensitivity-n: Pearson correlation of v(all) - v(without S) with the sum of the map over S, |S| = size.

    Over random S. 1 is best: an additive game with its own terms as map has it for every size. 0 where either side
    does not vary (a constant map; and size = N, where there is one S only). Source: Ancona et al., "Towards better
    understanding of gradient-based attribution methods" (2018), on the logit and with 0 for a removed feature.

    Raises ValueError for a size outside [1, N].
    """
    values = values.flatten().double()
    if not 1 <= size <= len(values):
        raise ValueError(f"size must lie in [1, {len(values)}], got {size}.")
    removed = random_subsets(len(values), [size] * samples, seed)
    return pearson(removed.double() @ values, changes(game, removed))


def infidelity(game: Game, values: torch.Tensor, samples: int = 100, seed: int = 0, scaled: bool = True) -> float:
    """Infidelity: mean of (I . map - (v(all) - v(without S)))^2 over random S, I the indicator of S. 0 is best.

    S has a random size from 1 to N. The map must be in attribution units: what a feature adds. `scaled` first
    multiplies the map by the one factor that serves it best over these S, as maps in other units need; unscaled, a map
    of normalised range is judged by its range. Source: Yeh et al., "On the (In)fidelity and Sensitivity of
    Explanations" (2019), here with removal as the perturbation; captum's `infidelity` takes the perturbation from its
    caller, and its `normalize` is our `scaled`.
    """
    values = values.flatten().double()
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, len(values) + 1, (samples,), generator=generator).tolist()
    removed = random_subsets(len(values), sizes, seed)
    claimed, real = removed.double() @ values, changes(game, removed)
    if scaled:
        claimed = claimed * ((claimed @ real) / (claimed @ claimed) if claimed.any() else 0.0)
    return float((claimed - real).square().mean())


def random_subsets(features: int, sizes: Sequence[int], seed: int) -> torch.BoolTensor:
    """A random subset of each size, as indicators [len(sizes), N]."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(len(sizes), features, generator=generator).argsort(1).argsort(1)
    return place < torch.tensor(list(sizes))[:, None]


def changes(game: Game, removed: torch.BoolTensor) -> torch.Tensor:
    """v(all) - v(without S) for the subsets removed [M, N], [M]."""
    whole = torch.ones(1, removed.shape[1], dtype=torch.bool)
    found = game(torch.cat([whole, ~removed]))
    return found[0] - found[1:]


def pearson(left: torch.Tensor, right: torch.Tensor) -> float:
    """Pearson correlation; 0 where a side does not vary beyond rounding."""
    left, right = left - left.mean(), right - right.mean()
    size = left.norm() * right.norm()
    varies = left.abs().max() > 1e-12 and right.abs().max() > 1e-12
    return float(left @ right / size) if varies else 0.0
