"""Which weights of the blocks point best? Those of least squares between a removal's cost and what the maps hold there.

The weights that serve the logits need not be those that serve the pointing. A block's contribution map times a weight
still adds up to that weight times the block's logit, so the weighed sum explains one known combination of the logits
exactly, not the model's own any more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hf_mhex.evaluation.faithfulness import changes, random_subsets
from hf_mhex.modeling.mhex_maps import combine_maps, upsample_map
from hf_mhex.quality.images import ImageMeasures, square_numbers
from hf_mhex.quality.methods import given_inputs
from hf_mhex.quality.texts import TextMeasures

Measures = ImageMeasures | TextMeasures


def fit_block_weights(measures: Measures, options: dict, samples: int = 64) -> torch.Tensor:
    """One weight a block, [blocks], float64, for the block maps of `generate_saliency` with these options.

    They minimise, over the rows of `measures` and `samples` random subsets S of each row's features (squares of an
    image, content tokens of a text), the mean of (logit(all) - logit(without S) - sum over S of the weighed map)^2: the
    infidelity of Yeh et al. (2019), unscaled, which is linear least squares in the weights.
    """
    claimed, real = [], []
    for row in range(len(measures.target)):
        terms, game = block_terms(measures, row, options)
        if terms.shape[1] == 0:
            continue
        generator = torch.Generator().manual_seed(measures.seed + row)
        sizes = torch.randint(1, terms.shape[1] + 1, (samples,), generator=generator).tolist()
        removed = random_subsets(terms.shape[1], sizes, measures.seed + row)
        claimed.append(removed.double() @ terms.mT)
        real.append(changes(game, removed))
    return torch.linalg.lstsq(torch.cat(claimed), torch.cat(real)[:, None]).solution[:, 0]


def block_terms(measures: Measures, row: int, options: dict) -> tuple[torch.Tensor, Callable]:
    """What each block's map holds of each feature of one row, [blocks, N], float64, and the logit's game over them."""
    target = measures.target[row : row + 1]
    if isinstance(measures, TextMeasures):
        ids = measures.part.ids[row]
        found = block_maps(measures.model, measures.part.inputs([row]), target, options)
        return torch.cat(found)[:, measures.content(ids)].double(), measures.games_of(row)["logit"]
    image = measures.part.pixels[row]
    found = block_maps(measures.model, image[None], target, options)
    maps = torch.cat([upsample_map(each, image.shape[-2:]) for each in found]).flatten(1).double()
    squares = square_numbers(*image.shape[-2:])
    terms = maps.new_zeros(len(maps), int(squares.max()) + 1).index_add_(1, squares, maps)
    return terms, measures.game_of_squares(row, image, squares, int(target))


def block_maps(model, inputs, target, options: dict) -> tuple[torch.Tensor, ...]:
    """The raw map of every block, each [B, ...]."""
    given = given_inputs(inputs)
    return model.generate_saliency(**given, target=target, upsample=False, **options).block_saliency


def weighed_map(model, inputs, target, weights: torch.Tensor, options: dict) -> torch.Tensor:
    """The sum of the blocks' maps by `weights` [blocks] at input size, [B, H, W] or [B, T]."""
    found = [each[:, None] for each in block_maps(model, inputs, target, options)]
    size = None if isinstance(inputs, dict) else inputs.shape[-2:]
    return combine_maps(found, weights.to(found[0].dtype), size)[:, 0]
