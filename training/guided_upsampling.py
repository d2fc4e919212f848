"""Do maps explain better where the image says which pixels of a cell its share falls on? Sums stay as they are."""

from __future__ import annotations

import torch

from hf_mhex.modeling.mhex_maps import decay_factors, upsampling_matrix
from hf_mhex.quality.methods import given_inputs


def guided_map(model, inputs: torch.Tensor, target, width: float = 0.5) -> torch.Tensor:
    """The map of all blocks as the model weighs them, upsampled by the image, [B, H, W]; it sums to the target's logit.

    A cell's share falls on the pixels that `upsampling_matrix` gives it, more on those that look like its mean colour:
    each weight is multiplied by exp(-distance^2 / (2 width^2)), distance in normalised pixel units, and every cell's
    weights are brought back to the sum 1 (after Kopf et al. 2007, joint bilateral upsampling).
    """
    found = model.generate_saliency(**given_inputs(inputs), target=target, upsample=False).block_saliency
    factors = decay_factors(list(range(len(found))), model.config.head_decay, found[0])
    sums: dict[tuple[int, int], torch.Tensor] = {}
    for factor, maps in zip(factors, found):
        size = tuple(maps.shape[1:])
        sums[size] = sums.get(size, 0) + factor * maps
    return sum(torch.stack([spread(one, image, width) for one, image in zip(maps, inputs)]) for maps in sums.values())


def spread(cells: torch.Tensor, image: torch.Tensor, width: float) -> torch.Tensor:
    """A map [h, w] on the pixels of its image [C, H, W], [H, W]."""
    rows, columns = (upsampling_matrix(old, new, cells) for old, new in zip(cells.shape, image.shape[1:]))
    weights = torch.einsum("pi,qj->ijpq", rows, columns).flatten(2).flatten(0, 1)  # [cells, pixels]
    pixels = image.flatten(1).mT
    means = weights @ pixels / weights.sum(1, keepdim=True)
    alike = weights * torch.exp(-torch.cdist(means, pixels).square() / (2 * width**2))
    return (cells.flatten() @ (alike / alike.sum(1, keepdim=True))).view(image.shape[1:])
