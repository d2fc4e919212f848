"""Maps from gradients at the input, captum's: over pixels and over word embeddings.

Pixel attributions are added over colour channels, embedding attributions over the embedding's entries, signed; saliency
(the size of the gradient) has no sign. The explained quantity is the class's logit.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import torch

from hf_mhex.baselines import Method, library
from hf_mhex.baselines.networks import EmbeddingsToLogits, PixelsToLogits, grid_of, private_copy


def on_pixels(name: str, fixed: dict | None = None, baselines: bool = False):
    """A method of captum.attr over pixels; its baseline is 0, the data's mean colour."""

    def method(model, inputs, target, **settings) -> torch.Tensor:
        attr = library("captum.attr")
        explainer = getattr(attr, name)(PixelsToLogits(private_copy(model)))
        given = {**(fixed or {}), **settings}
        if baselines:
            given["baselines"] = torch.zeros_like(inputs)
        with quiet(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = explainer.attribute(inputs.clone().requires_grad_(), target=target, **given)
        return found.detach().sum(1).float()

    return method


@contextmanager
def quiet():
    """Leave out captum's warning that DeepLift uses hooks; they are on a copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="captum")
        warnings.filterwarnings("ignore", message=".*forward, backward hooks.*")
        yield


def occlusion(model, inputs, target, cells: int = 14) -> torch.Tensor:
    """captum's Occlusion with a square of a grid (`grid_of`) that moves by its own size; 0 stands for what is hidden.

    What hiding a square changes is spread over its pixels, so that the square's values add up to it.
    """
    explainer = library("captum.attr").Occlusion(PixelsToLogits(model))
    grid = grid_of(inputs.shape[-2:], cells)
    height, width = (side // count for side, count in zip(inputs.shape[-2:], grid))
    window = (inputs.shape[1], height, width)
    with torch.no_grad():
        found = explainer.attribute(
            inputs, window, strides=window, baselines=0, target=target, perturbations_per_eval=4
        )
    return found.detach().mean(1).float() / (height * width)


def on_embeddings(name: str, fixed: dict | None = None, baselines: bool = False):
    """A method of captum.attr over word embeddings; `baseline` names what stands for a word that is not there."""

    def method(model, inputs, target, baseline: str = "mask", **settings) -> torch.Tensor:
        attr = library("captum.attr")
        network = EmbeddingsToLogits(model)  # no hooks, and no text network works in place
        mask = inputs["attention_mask"]
        embedded = network.embed(inputs["input_ids"]).detach()
        given = {**(fixed or {}), **settings}
        if baselines:
            given["baselines"] = baseline_embeddings(network, inputs, embedded, baseline)
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            explainer = getattr(attr, name)(network)
            found = explainer.attribute(
                embedded.requires_grad_(), target=target, additional_forward_args=(mask,), **given
            )
        return found.detach().sum(-1).float().masked_fill(mask == 0, 0)

    return method


def baseline_embeddings(network, inputs, embedded: torch.Tensor, baseline: str) -> torch.Tensor:
    """Embeddings [B, T, C] of the empty text: [MASK], [PAD] or zeros in place of each token but the special ones.

    Raises ValueError for another name and for inputs that do not carry the ids that are needed.
    """
    if baseline not in ("mask", "pad", "zero"):
        raise ValueError(f"baseline must be 'mask', 'pad' or 'zero', got {baseline!r}.")
    special = torch.isin(inputs["input_ids"], inputs["input_ids"].new_tensor(list(inputs["special_ids"])))
    if baseline == "zero":
        empty = torch.zeros_like(embedded)
    else:
        number = inputs[f"{baseline}_id"]
        empty = network.embed(torch.full_like(inputs["input_ids"], number)).detach()
    return torch.where(special[..., None], embedded.detach(), empty)


STEPS = {"n_steps": 50, "internal_batch_size": 64}  # by Gauss-Legendre quadrature, captum's default
IMAGE_METHODS = [
    Method("saliency", on_pixels("Saliency"), "captum"),
    Method("input x gradient", on_pixels("InputXGradient"), "captum"),
    Method("DeepLift", on_pixels("DeepLift", baselines=True), "captum"),
    Method("integrated gradients", on_pixels("IntegratedGradients", STEPS, baselines=True), "captum"),
    Method(
        "GradientSHAP",
        on_pixels("GradientShap", {"n_samples": 20, "stdevs": 0.1}, baselines=True),
        "captum",
        slow=True,
    ),
    Method("occlusion", occlusion, "captum", ({"cells": 7}, {"cells": 14}), slow=True),
]
BASELINES = ({"baseline": "mask"}, {"baseline": "pad"}, {"baseline": "zero"})
TEXT_METHODS = [
    Method("saliency", on_embeddings("Saliency"), "captum"),
    Method("input x gradient", on_embeddings("InputXGradient"), "captum"),
    Method(
        "integrated gradients",
        on_embeddings("IntegratedGradients", STEPS, baselines=True),
        "captum",
        BASELINES,
    ),
    Method(
        "GradientSHAP",
        on_embeddings("GradientShap", {"n_samples": 20}, baselines=True),
        "captum",
        BASELINES,
        slow=True,
    ),
]
