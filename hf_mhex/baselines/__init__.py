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
from importlib.metadata import version

import hf_mhex
from hf_mhex.environment import missing_extra


@dataclass(frozen=True)
class Method:
    """A way to make maps.

    Args:
        name: as tables show it. call: `call(model, inputs, target, **settings) -> maps`.
        source: the library that computes it, "ours" where none does. detail: what tells our own from others.
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
    detail: str = ""


def implementation_of(method: Method) -> str:
    """What computes a method's maps, with its version: "captum 0.8.0", "hf-mhex 0.2.0, after the authors' notebook"."""
    package = "hf-mhex" if method.source == "ours" else method.source
    release = hf_mhex.__version__ if package == "hf-mhex" else version(package)
    return f"{package} {release}" + (f", {method.detail}" if method.detail else "")


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


def smx(model, data, zones, processor=None, target=None, **options):
    """Zones of signals by SMX (arXiv 2605.02684), computed by the package spectral-model-explainer (extra "signals").

    The model is asked in one batched call for the signals as they are, and one for each zone at its medians.

    Args:
        model: a classifier of signals of one channel, in eval mode.
        data: signals [N, L], of more than one predicted class.
        zones: `hf_mhex.explaining.zones.Zones`.
        processor: the model's feature extractor; None for data that are standardised already.
        target: class whose probability the predicates go with; None for the one that is predicted most often.
        options: of the package's `SMX` (quantiles, n_repetitions, n_bags, ...).

    Returns `hf_mhex.baselines.spectral.SMXAnswer`. Raises ValueError for data that do not fit, RuntimeError without the
    package.
    """
    from hf_mhex.baselines.spectral import explain_zones

    return explain_zones(model, data, zones, processor, target, **options)
