"""The methods of a table: MHEX in its settings, the baselines, and the controls."""

from __future__ import annotations

from functools import partial

import torch

from hf_mhex.baselines import Method, image_methods, text_methods
from hf_mhex.baselines.cams import LAST_BLOCK_CAM, PLAIN_CAM
from hf_mhex.evaluation.controls import blurred_copy, centred_gaussian, constant_map, edge_map, random_map

MHEX = "MHEX"
DEFAULT, PAPER, ROLLOUT = "MHEX, defaults", "MHEX, the paper's CAM", "MHEX, rollout"
REFINED, REFINED_MORE = "MHEX, refined", "MHEX, refined by 4 passes"
BLURRED = "blurred MHEX"
REBUILT = (PAPER, "T-Explainer")  # rows that do not name their implementation were made by one that is replaced
CONTROLS = ("constant", "centred Gaussian", "random", "input edges", BLURRED)


def mhex_map(model, inputs, target, **options) -> torch.Tensor:
    """The combined map of `generate_saliency`, [B, H, W] or [B, T]."""
    if "part" in options:
        options["blocks"] = blocks_of(options.pop("part"), model.num_blocks)
    if options.get("refine") and isinstance(inputs, dict):
        options["mask_token_id"] = inputs["mask_id"]
    return model.generate_saliency(**given_inputs(inputs), target=target, **options).saliency.float()


def given_inputs(inputs) -> dict[str, torch.Tensor]:
    """What a model takes by name, of a method's inputs: images [B, C, H, W], or a dict of a text's."""
    if isinstance(inputs, dict):
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}
    return {"pixel_values": inputs}


def paper_map(model, inputs, target) -> torch.Tensor:
    """The paper's own map, raw, [B, H, W] or [B, T]: CAMs resized bilinearly, weighed and added up."""
    return model.paper_saliency(**given_inputs(inputs), target=target, **paper_options(inputs, model)).saliency.float()


def paper_options(inputs, model) -> dict:
    """The authors' settings of `paper_saliency`.

    Images: all blocks with decay 0.9, positive entries with a share of at least 1/K + 0.1 and negative ones with 0.1.
    Texts: the first three blocks alike, with no sharpness.
    """
    if isinstance(inputs, dict):
        return {"normalize": None, "decay": 1.0, "blocks": blocks_of("first three", model.num_blocks)}
    return {"normalize": None, "decay": 0.9, "sharpness": (min(1.0, 1 / model.config.num_labels + 0.1), 0.1)}


def can_roll_out(model) -> bool:
    """Whether an MHEX network's maps can be carried back through attention."""
    return model.base_model.can_roll_out


PAPER_METHOD = Method(PAPER, paper_map, detail="CAMs resized bilinearly with values kept")


def methods_for(inputs: str, kind: str, several_classes: bool = True, rollout: bool = True) -> list[Method]:
    """The methods of a table, MHEX first and controls last.

    Args:
        inputs: "images" or "texts". kind: "mhex", or "plain" for a network without gates and heads.
        several_classes: whether there is more than one class to contrast with.
        rollout: whether settings with rollout are tried.
    """
    found = []
    if kind == "mhex":
        settings = candidates(inputs, several_classes, rollout)
        found = [Method(MHEX, mhex_map, settings=settings), Method(DEFAULT, mhex_map), PAPER_METHOD]
        found.append(Method(ROLLOUT, partial(mhex_map, rollout=True), fits=can_roll_out))
        if inputs == "images":
            settings = candidates(inputs, several_classes, rollout=False)
        for name, passes in ((REFINED, 1), (REFINED_MORE, 4)):
            detail = f"{passes} {'passes' if passes > 1 else 'pass'} with a gradient"
            found.append(Method(name, partial(mhex_map, refine=passes), settings=settings, detail=detail))
    if inputs == "images":
        found.append(LAST_BLOCK_CAM if kind == "mhex" else PLAIN_CAM)
    found += image_methods() if inputs == "images" else text_methods()
    return found + controls_for(inputs)


def candidates(inputs: str, several_classes: bool, rollout: bool) -> tuple[dict, ...]:
    """The settings of MHEX that the validation part chooses among, the defaults first.

    Each contrast with each weighing of blocks: all as the logits weigh them, all with milder decay or alike, and some
    alone (the last half or the last of an image network, where maps are of classes; the first one or three of a text
    network, where a position is still a token). All blocks also with their maps carried back by `rollout`.
    """
    weighings: list[dict] = [{}, {"decay": 0.8}, {"decay": 1.0}]
    carried = [weighing | {"rollout": True} for weighing in weighings] if rollout else []
    if inputs == "images":
        weighings += [{"part": "last half", "decay": 1.0}, {"part": "last"}]
    else:
        weighings += [{"part": "first"}, {"part": "first three", "decay": 1.0}]
    weighings += carried
    contrasts = ({}, {"contrast": "softmax"}, {"contrast": "mean"}) if several_classes else ({},)
    return tuple(contrast | weighing for contrast in contrasts for weighing in weighings)


def blocks_of(part: str, count: int) -> list[int]:
    """The numbers of the blocks that a part of a network's `count` blocks names."""
    first = {"last half": count // 2, "last": count - 1}.get(part, 0)
    last = {"first": 1, "first three": min(3, count)}.get(part, count)
    return list(range(first, last))


def controls_for(inputs: str) -> list[Method]:
    """Maps that know nothing of the network; the blurred copy of MHEX is made where its settings are known."""
    found = [
        Method("constant", lambda model, inputs, target: constant_map(tensor_of(inputs))),
        Method("centred Gaussian", lambda model, inputs, target: centred_gaussian(tensor_of(inputs))),
        Method("random", lambda model, inputs, target: random_maps(tensor_of(inputs))),
    ]
    if inputs == "images":
        found.append(Method("input edges", lambda model, inputs, target: edge_map(inputs)))
    return found


def blurred_mhex(options: dict) -> Method:
    """A blurred copy of MHEX with these settings."""
    return Method(BLURRED, lambda model, inputs, target: blurred_copy(mhex_map(model, inputs, target, **options)))


def random_maps(inputs: torch.Tensor) -> torch.Tensor:
    """A random map for each row, drawn from the row itself: the same in every batch, another for every row."""
    return torch.cat([random_map(row[None], seed=int(row.double().abs().sum())) for row in inputs])


def tensor_of(inputs) -> torch.Tensor:
    """The tensor that gives a map its shape."""
    return inputs["input_ids"] if isinstance(inputs, dict) else inputs
