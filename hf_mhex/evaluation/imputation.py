"""ROAD's noisy linear imputation of removed pixels, solved for many masks of one image at once.

Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML 2022). Every removed
pixel is the weighed mean of its eight neighbours (1/6 for those at an edge, 1/12 for those at a corner, renormalised at
the image's border), which is one linear system for each mask; then a little noise is added, so that a network cannot
read the mask's outline from perfectly smooth patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

KERNEL = torch.tensor([[1 / 12, 1 / 6, 1 / 12], [1 / 6, 0, 1 / 6], [1 / 12, 1 / 6, 1 / 12]], dtype=torch.float64)


def impute(image: torch.Tensor, keep: torch.Tensor, noise: float = 0.01, seed: int = 0) -> torch.Tensor:
    """Images [M, C, H, W] with the pixels where keep [M, H, W] is False filled in from the rest of image [C, H, W].

    Args:
        noise: standard deviation of the Gaussian noise on filled pixels, in units of the input; 0.01 is the default
            of the authors' code. The same noise serves every mask.

    Raises ValueError for a mask that keeps nothing: there is nothing to fill from.
    """
    keep = keep.bool()
    if not keep.flatten(1).any(1).all():
        raise ValueError("keep must leave at least one pixel in every mask: nothing can be imputed from nothing.")
    images = image.double().expand(len(keep), -1, -1, -1)
    known, missing = images * keep[:, None], ~keep
    kernel = KERNEL[None, None]
    from_known = F.conv2d(known.flatten(0, 1)[:, None], kernel, padding=1).view_as(known)
    solution = solve(missing, (from_known * missing[:, None]).movedim(1, -1)).movedim(-1, 1)
    generator = torch.Generator().manual_seed(seed)
    grain = noise * torch.randn(image.shape, generator=generator)
    return (known + missing[:, None] * (solution + grain)).to(image.dtype)


def solve(missing: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The missing pixels that are the weighed means of their neighbours, [M, H, W, C]; 0 at the others.

    A pixel is coupled with its own line and the next ones alone, so the system is block tridiagonal with a W x W block
    for each line, and elimination line by line is exact, in H steps for all masks together (an iterative solver needs
    hundreds where a large area is missing). Lines run along the shorter side.

    Args:
        missing: [M, H, W]. right: what the known neighbours give to each missing pixel, [M, H, W, C], 0 elsewhere.
    """
    height, width = missing.shape[1:]
    if width > height:  # lines as short as they can be: a signal is one of any length
        return solve(missing.mT, right.transpose(1, 2)).transpose(1, 2)
    degree = F.conv2d(torch.ones(1, 1, height, width, dtype=KERNEL.dtype), KERNEL[None, None], padding=1)[0, 0]
    free, eye = missing.to(KERNEL.dtype), torch.eye(width, dtype=KERNEL.dtype)
    beside, across = (line_weights(width, *weights) for weights in (KERNEL[1, :2], KERNEL[0, :2]))

    def coupling(weights: torch.Tensor, line: int, other: int) -> torch.Tensor:
        return -weights * free[:, line, :, None] * free[:, other, None, :]

    towards_next: list[torch.Tensor] = []
    eliminated: list[torch.Tensor] = []
    for line in range(height):
        own = torch.where(missing[:, line], degree[line], 1)[:, :, None] * eye + coupling(beside, line, line)
        value = right[:, line]
        if line:
            above = coupling(across, line, line - 1)
            own, value = own - above @ towards_next[-1], value - above @ eliminated[-1]
        below = coupling(across, line, min(line + 1, height - 1))  # the last line has none, and its own is not read
        solved = torch.cholesky_solve(torch.cat([below, value], -1), torch.linalg.cholesky(own))
        towards_next.append(solved[..., :width])
        eliminated.append(solved[..., width:])
    lines = [eliminated[-1]]
    for line in range(height - 2, -1, -1):
        lines.append(eliminated[line] - towards_next[line] @ lines[-1])
    return torch.stack(lines[::-1], 1)


def line_weights(width: int, side: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """Weights between the pixels of two lines, [W, W]: `middle` for the same column, `side` for its neighbours."""
    ones = torch.ones(width - 1, dtype=KERNEL.dtype)
    return torch.diag(ones, 1) * side + torch.diag(ones, -1) * side + torch.eye(width, dtype=KERNEL.dtype) * middle
