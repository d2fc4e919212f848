"""Which methods stand in a table? MHEX in its settings, the baselines, and the controls."""

from __future__ import annotations

import torch

from hf_mhex.baselines import Method, image_methods, text_methods
from hf_mhex.baselines.cams import LAST_BLOCK_CAM, PLAIN_CAM
from hf_mhex.evaluation.controls import blurred_copy, centred_gaussian, constant_map, edge_map, random_map

MHEX = "MHEX"
DEFAULT, PAPER = "MHEX, defaults", "MHEX, the paper's CAM"
BLURRED = "blurred MHEX"
CONTROLS = ("constant", "centred Gaussian", "random", "input edges", BLURRED)


def mhex_map(model, inputs, target, **options) -> torch.Tensor:
    """The combined map of `generate_saliency`, [B, H, W] or [B, T]."""
    if isinstance(inputs, dict):
        given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    else:
        given = {"pixel_values": inputs}
    if "first_blocks" in options:
        count = options.pop("first_blocks")
        options["blocks"] = None if count is None else list(range(min(count, model.num_blocks)))
    return model.generate_saliency(**given, target=target, **options).saliency.float()


def paper_map(model, inputs, target) -> torch.Tensor:
    """The paper's: the CAMs of all blocks with 0.9 for each block from the last; of the first three for BERT, alike."""
    if isinstance(inputs, dict):
        return mhex_map(model, inputs, target, mode="cam", decay=1.0, first_blocks=3)
    return mhex_map(model, inputs, target, mode="cam", decay=0.9)


def methods_for(family: str, kind: str, several_classes: bool = True) -> list[Method]:
    """The methods of a table, MHEX first and controls last.

    Args:
        family: "images" or "texts". kind: "mhex", or "plain" for a network without gates and heads.
        several_classes: whether there is more than one class to contrast with.
    """
    found = []
    if kind == "mhex":
        contrasts = (None, "softmax", "mean") if several_classes else (None,)
        settings = {"contrast": contrasts, "decay": (None, 0.8, 1.0)}
        if family == "texts":
            settings["first_blocks"] = (None, 1, 3)
        found = [Method(MHEX, mhex_map, settings=settings), Method(DEFAULT, mhex_map), Method(PAPER, paper_map)]
    if family == "images":
        found.append(LAST_BLOCK_CAM if kind == "mhex" else PLAIN_CAM)
    found += image_methods() if family == "images" else text_methods()
    return found + controls_for(family)


def controls_for(family: str) -> list[Method]:
    """Maps that know nothing of the network; the blurred copy of MHEX is made where its settings are known."""
    found = [
        Method("constant", lambda model, inputs, target: constant_map(tensor_of(inputs))),
        Method("centred Gaussian", lambda model, inputs, target: centred_gaussian(tensor_of(inputs))),
        Method("random", lambda model, inputs, target: random_map(tensor_of(inputs))),
    ]
    if family == "images":
        found.append(Method("input edges", lambda model, inputs, target: edge_map(inputs)))
    return found


def blurred_mhex(options: dict) -> Method:
    """A blurred copy of MHEX with these settings."""
    return Method(BLURRED, lambda model, inputs, target: blurred_copy(mhex_map(model, inputs, target, **options)))


def tensor_of(inputs) -> torch.Tensor:
    """The tensor that gives a map its shape."""
    return inputs["input_ids"] if isinstance(inputs, dict) else inputs
