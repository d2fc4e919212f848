"""Calls that are timed: each method as `prepare(Subject) -> call()`, so that only the explanation itself is counted.

Other methods explain the same MHEX network through their own library, as its users call it; Grad-CAM also the plain
network. They work on a copy, since they hook into the network and leave gradients.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec

import torch

from hf_mhex.baselines import image_methods, library, text_methods
from hf_mhex.baselines.networks import EmbeddingsToLogits, PixelsToLogits, as_maps, target_layer
from hf_mhex.benchmarks.speed.subjects import SPECIAL, Subject

Prepare = Callable[[Subject], Callable[[], object]]

PLAIN, PREDICTION, GIVEN = "plain network", "MHEX prediction", "MHEX, given target"
PREDICTED, SOFTMAX, EVERY = "MHEX, predicted class", "MHEX, predicted class, softmax contrast", "MHEX, all classes"
ROLLOUT = "MHEX, given target, rollout"
PLAIN_STEP, STEP = "training step of the plain network", "training step of MHEX"
INT8 = ", int8"  # behind a method's name: weights in 8 bits, in ONNX Runtime
GRAD_CAM, GRAD_CAM_PLAIN = "Grad-CAM (grad-cam)", "Grad-CAM (grad-cam), plain network"
INTEGRATED, SHAP = "integrated gradients, 50 steps (captum)", "SHAP partition, 500 evaluations (shap)"


def plain_prediction(subject: Subject):
    """The plain network's forward."""
    if subject.kind == "text":
        return lambda: subject.plain(**subject.inputs)
    [values] = subject.inputs.values()
    return lambda: subject.plain(values)


def mhex_prediction(subject: Subject):
    """The MHEX network's forward."""
    return lambda: subject.mhex(**subject.inputs)


def mhex_saliency(**options) -> Prepare:
    """Maps of all blocks; `target="given"` stands for the subject's own."""

    def prepare(subject: Subject):
        given = options | ({"target": subject.target} if options.get("target") == "given" else {})
        return lambda: subject.mhex.generate_saliency(**subject.inputs, **given)

    return prepare


def grad_cam(plain: bool = False) -> Prepare:
    """Grad-CAM of grad-cam at the last stage."""

    def prepare(subject: Subject):
        classes, targets = library("pytorch_grad_cam"), library("pytorch_grad_cam.utils.model_targets")
        network = PixelsToLogits(copy.deepcopy(subject.plain if plain else subject.mhex))
        layer, pixels = target_layer(network), subject.inputs["pixel_values"]
        transform = as_maps(network, pixels)
        wanted = [targets.ClassifierOutputTarget(int(label)) for label in subject.target]

        def call():
            with classes.GradCAM(network, [layer], reshape_transform=transform) as cam:
                return cam(input_tensor=pixels, targets=wanted)

        return call

    return prepare


def torchcam(name: str) -> Prepare:
    """A method of torchcam at the last stage, its map brought to the input's size."""

    def prepare(subject: Subject):
        method = getattr(library("torchcam.methods"), name)
        network = PixelsToLogits(copy.deepcopy(subject.mhex))
        layer, pixels = target_layer(network), subject.inputs["pixel_values"]

        def call():
            with method(network, layer) as extractor:
                found = extractor(subject.target.tolist(), network(pixels))[0]
            return torch.nn.functional.interpolate(found[:, None], pixels.shape[-2:], mode="bilinear")

        return call

    return prepare


def input_gradient(subject: Subject):
    """captum's input x gradient, over pixels or word embeddings."""
    attr = library("captum.attr")
    if subject.kind == "image":
        rest: tuple = ()
        network = PixelsToLogits(copy.deepcopy(subject.mhex))
        inputs = subject.inputs["pixel_values"].clone()
    else:
        network, rest = EmbeddingsToLogits(copy.deepcopy(subject.mhex)), (subject.inputs["attention_mask"],)
        inputs = network.embed(subject.inputs["input_ids"]).detach()
    explainer = attr.InputXGradient(network)
    inputs.requires_grad_()
    return lambda: explainer.attribute(inputs, target=subject.target, additional_forward_args=rest)


def baseline(name: str, **settings) -> Prepare:
    """A method of `hf_mhex.baselines` by its name there, with its own copy of the network where it needs one."""

    def prepare(subject: Subject):
        methods = image_methods() if subject.kind == "image" else text_methods()
        call = next(method.call for method in methods if method.name == name)
        if subject.kind == "image":
            inputs, given = subject.inputs["pixel_values"], settings
        else:
            special = {"special_ids": [SPECIAL["first"], SPECIAL["last"]], "mask_id": SPECIAL["mask"]}
            inputs = subject.inputs | special
            given = {key: value for key, value in settings.items() if key != "cells"}
        return lambda: call(subject.mhex, inputs, subject.target, **given)

    return prepare


def training_step(plain: bool = False) -> Prepare:
    """Forward, cross-entropy (of every head in MHEX), backward and AdamW, on a copy in training mode."""

    def prepare(subject: Subject):
        model = copy.deepcopy(subject.plain if plain else subject.mhex).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        forward = plain_prediction(dataclasses.replace(subject, plain=model))

        def call():
            if plain:
                found = forward()
                loss = torch.nn.functional.cross_entropy(getattr(found, "logits", found), subject.target)
            else:
                loss = model(**subject.inputs, labels=subject.target).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return call

    return prepare


CLOSED = {  # no gradients
    PLAIN: plain_prediction,
    PREDICTION: mhex_prediction,
    GIVEN: mhex_saliency(target="given"),
    PREDICTED: mhex_saliency(),
    SOFTMAX: mhex_saliency(contrast="softmax"),
    EVERY: mhex_saliency(target="all"),
    ROLLOUT: mhex_saliency(target="given", rollout=True),
}
BACKWARD = {
    GRAD_CAM: grad_cam(),
    GRAD_CAM_PLAIN: grad_cam(plain=True),
    "Grad-CAM (torchcam)": torchcam("GradCAM"),
    "LayerCAM (torchcam)": torchcam("LayerCAM"),
    "input x gradient (captum)": input_gradient,
}
PASSES = {
    INTEGRATED: baseline("integrated gradients"),
    "occlusion, 14 x 14 (captum)": baseline("occlusion"),
    SHAP: baseline("SHAP partition", cells=14, evaluations=500),
}
STEPS = {PLAIN_STEP: training_step(plain=True), STEP: training_step()}
METHODS = CLOSED | BACKWARD | PASSES | STEPS
IMAGES_ALONE = {name for name in METHODS if "CAM" in name or name.startswith("occlusion")}


def available(name: str, mhex, kind: str) -> bool:
    """Whether a method exists for a network over images, texts or signals, and its library is installed (torchcam is
    not for Python 3.10).
    """
    if kind == "signal":
        return name in (CLOSED.keys() | STEPS.keys()) - {ROLLOUT}
    if name == ROLLOUT:
        return mhex.base_model.can_roll_out
    if "torchcam" in name and (find_spec("torchcam") is None or mhex.base_model.blocks[0].channel_axis != 1):
        return False  # torchcam takes features [B, C, h, w] alone
    return kind == "image" or name not in IMAGES_ALONE


def prepare(name: str, subject: Subject) -> Callable[[], object]:
    """The call of a method on a subject, under inference_mode where no gradient is needed."""
    call = METHODS[name](subject)

    def run():
        with torch.inference_mode() if name in CLOSED else nullcontext():
            return call()

    return run
