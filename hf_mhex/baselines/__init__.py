"""Other explainers to compare with, each as `method(model, inputs, target) -> maps`, through its own library.

`inputs` are pixel_values [B, C, H, W] for images; for texts a dict of input_ids and attention_mask [B, T] and of the
tokenizer's numbers mask_id, pad_id and special_ids. `target` is a LongTensor of B classes; all on the model's device.
Maps are float32 [B, H, W], or [B, T] with 0 on padding. Models answer with `.logits` (MHEX and plain ones alike) or
with logits themselves, and are left as they were. The libraries come with the extra "bench".

One more is a function and an entry in one of the lists METHODS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from hf_mhex.environment import missing_extra


@dataclass(frozen=True)
class Method:
    """A way to make maps.

    Args:
        name: as tables show it. call: `call(model, inputs, target, **settings) -> maps`.
        source: the library that computes it, "ours" where none does.
        settings: arguments of `call` to choose among on the validation part, each a dict; the first is the default.
        slow: takes many passes through the network a row, so that tables may give it fewer rows.
        fits: whether there is such a map of a model.
    """

    name: str
    call: Callable
    source: str = "ours"
    settings: tuple[dict, ...] = ()
    slow: bool = False
    fits: Callable = lambda model: True


def library(name: str):
    """A module of one of the optional libraries; RuntimeError naming the extra where it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise RuntimeError(missing_extra(error) or str(error)) from error


def image_methods() -> list[Method]:
    """Every baseline for images, cheap ones first."""
    from hf_mhex.baselines import cams, gradients, perturbations

    return [*cams.METHODS, *gradients.IMAGE_METHODS, *perturbations.METHODS]


def text_methods() -> list[Method]:
    """Every baseline for texts, cheap ones first."""
    from hf_mhex.baselines import attention, gradients, perturbations

    return [*attention.METHODS, *gradients.TEXT_METHODS, *perturbations.METHODS]
