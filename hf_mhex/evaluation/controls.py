"""Controls that any explanation must beat: maps that know nothing of the model, or only its map's rough place.

Each table carries them: a measure on which one of them does well measures something else.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hf_mhex.modeling.mhex_maps import wide


def constant_map(inputs: torch.Tensor) -> torch.Tensor:
    """Ones, [B, H, W] for images [B, C, H, W], [B, T] for tokens [B, T]. Its order is a random one."""
    return torch.ones_like(shape_of(inputs))


def random_map(inputs: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Uniform numbers in [0, 1], independent over pixels or tokens."""
    like = shape_of(inputs)
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)).to(like.device)


def centred_gaussian(inputs: torch.Tensor, width: float = 0.25) -> torch.Tensor:
    """A Gaussian about the middle; its standard deviation is `width` of each side. Objects stand in the middle."""
    like = shape_of(inputs)
    axes = [((torch.arange(n) + 0.5) / n - 0.5) / width for n in like.shape[1:]]
    squares = sum(axis.square() for axis in torch.meshgrid(*axes, indexing="ij"))
    return torch.exp(-0.5 * squares).expand(like.shape).clone().to(like.device)


def edge_map(inputs: torch.Tensor) -> torch.Tensor:
    """Strength of the input's edges: the norm of Sobel differences, added over channels, of images [B, C, H, W]."""
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).to(inputs)
    kernels = torch.stack([across, across.T])[:, None]
    rows, channels = inputs.shape[:2]
    padded = F.pad(inputs.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernels).norm(dim=1).view(rows, channels, *inputs.shape[-2:]).sum(1)


def blurred_copy(maps: torch.Tensor, width: float = 0.1) -> torch.Tensor:
    """A method's own maps [B, H, W] or [B, T], blurred by a Gaussian of `width` of the longer side.

    It shows what a map's rough place is worth without its detail.
    """
    return gaussian_blur(maps, width * max(maps.shape[1:]))


def gaussian_blur(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Maps [B, H, W] or [B, T] convolved with a Gaussian cut at 3 sigma (pixels); edges are continued.

    Every value is as exact as the largest one of its map is rounded. Values must be finite.
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be above 0, got {sigma}.")
    reach = max(1, round(3 * sigma))
    places = torch.arange(-reach, reach + 1, dtype=wide(maps.dtype), device=maps.device)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    blurred = maps.to(kernel.dtype)
    for axis in range(1, maps.ndim):
        lines = blurred.movedim(axis, -1)
        padded = F.pad(lines.reshape(1, -1, lines.shape[-1]), (reach, reach), mode="replicate")
        waves = torch.fft.rfft(padded) * torch.fft.rfft(kernel, padded.shape[-1])  # ten times faster than a convolution
        blurred = torch.fft.irfft(waves, padded.shape[-1])[..., 2 * reach :].view(lines.shape).movedim(-1, axis)
    return blurred.to(maps.dtype)


def shape_of(inputs: torch.Tensor) -> torch.Tensor:
    """A float tensor of the shape that a map of these inputs has."""
    return inputs[:, 0].float() if inputs.ndim == 4 else inputs.float()
