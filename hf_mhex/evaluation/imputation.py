"""What would stand at a removed pixel? ROAD's noisy linear imputation, solved for many masks of one image at once.

Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML 2022). Every removed
pixel is the weighed mean of its eight neighbours (1/6 for those at an edge, 1/12 for those at a corner, renormalised at
the image's border), which is one linear system for each mask; then a little noise is added, so that a network cannot
read the mask's outline from perfectly smooth patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

KERNEL = torch.tensor([[1 / 12, 1 / 6, 1 / 12], [1 / 6, 0, 1 / 6], [1 / 12, 1 / 6, 1 / 12]], dtype=torch.float64)


def impute(image: torch.Tensor, keep: torch.Tensor, noise: float = 0.01, seed: int = 0, tolerance: float = 1e-6):
    """Images [M, C, H, W] with the pixels where keep [M, H, W] is False filled in from the rest of image [C, H, W].

    Args:
        noise: standard deviation of the Gaussian noise on filled pixels, in units of the input; 0.01 is the default
            of the authors' code. The same noise serves every mask.
        tolerance: size of the residual at which the solver (conjugate gradients) stops, relative to the start.

    Raises ValueError for a mask that keeps nothing: there is nothing to fill from.
    """
    keep = keep.bool()
    if not keep.flatten(1).any(1).all():
        raise ValueError("keep must leave at least one pixel in every mask: nothing can be imputed from nothing.")
    kernel = KERNEL.to(torch.float32)[None, None]
    images = image.float().expand(len(keep), -1, -1, -1)
    channels = images.shape[1]
    missing = (~keep)[:, None].float()
    degree = F.conv2d(torch.ones(1, 1, *image.shape[-2:]), kernel, padding=1)

    def neighbours(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(values.flatten(0, 1)[:, None], kernel, padding=1).view_as(values)

    def system(values: torch.Tensor) -> torch.Tensor:  # the graph's Laplacian on missing pixels; symmetric, positive
        return missing * (degree * values - neighbours(values))

    known = images * (1 - missing)
    start = missing * (known.sum((2, 3), keepdim=True) / (1 - missing).sum((2, 3), keepdim=True))
    solution = solve(system, missing * neighbours(known), start, tolerance)
    generator = torch.Generator().manual_seed(seed)
    grain = noise * torch.randn(channels, *image.shape[-2:], generator=generator)
    return (known + missing * (solution + grain)).to(image.dtype)


def solve(system, right: torch.Tensor, start: torch.Tensor, tolerance: float, most: int = 2000) -> torch.Tensor:
    """Conjugate gradients for system(x) = right, [M, C, H, W], each image and channel a system of its own."""

    def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sum((2, 3), keepdim=True)

    solution = start
    residual = right - system(solution)
    direction = residual
    size = dot(residual, residual)
    goal = tolerance**2 * dot(right, right).clamp(min=1e-12)
    for _ in range(most):
        if (size <= goal).all():
            break
        image = system(direction)
        step = torch.where(size > goal, size / dot(direction, image).clamp(min=1e-30), 0)
        solution = solution + step * direction
        residual = residual - step * image
        renewed = dot(residual, residual)
        direction = residual + renewed / size.clamp(min=1e-30) * direction
        size = renewed
    return solution
