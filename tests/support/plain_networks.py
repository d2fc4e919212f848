"""Plain networks to convert, saved by transformers and timm, with weights that say something."""

import functools

import timm
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModel

import hf_mhex
from networks import FIELDS, TEXTS, VIT, batch_for, family_named, image_batch

SMALL = {"layers": [1, 2, 1, 2], "channels": [8, 16, 24, 32]}  # of any ResNet: its blocks, stem and norms
DROP_PATH = {"drop_path_rate": 0.2}
NETWORKS = {  # by name: timm's architecture and its arguments
    "resnet": ("resnet18", SMALL),
    "convnext": (FIELDS["convnext"]["architecture"], FIELDS["convnext"]["architecture_kwargs"] | DROP_PATH),
    "vit": (FIELDS["vit"]["architecture"], VIT | DROP_PATH),
    "swin": (FIELDS["swin"]["architecture"], FIELDS["swin"]["architecture_kwargs"] | DROP_PATH),
    "torchvision's size": ("resnet18", {}),
    "deep stem": ("resnet10t", SMALL),
    "bottlenecks": ("resnet26d", SMALL),
    "wide stem": ("resnet50s", SMALL),
    "ResNeXt": ("resnext50_32x4d", {"layers": [1, 1, 1, 2], "channels": [16, 16, 32, 32]}),
    "wide": ("wide_resnet50_2", SMALL),
    "group norm": ("resnet50_gn", {"layers": [1, 1, 1, 2], "channels": [32, 32, 32, 64]}),
    "squeeze and excitation": ("seresnext26d_32x4d", {**SMALL, "channels": [16, 16, 32, 32]}),
    "senet": ("senet154", {**SMALL, "cardinality": 4, "base_width": 16}),
    "replaced stem pool": ("resnetrs50", SMALL),
    "efficient channel attention": ("ecaresnet26t", SMALL),
    "pruned": ("ecaresnet50d_pruned", {}),
    "blur pool": ("resnetblur18", SMALL),
    "average pool": ("resnetaa50d", SMALL),
    "output stride 8": ("resnet26d", {**SMALL, "output_stride": 8}),
    "output stride 16": ("resnet18", {**SMALL, "output_stride": 16}),
    "drop block": ("resnet18", {**SMALL, "drop_block_rate": 0.1}),
    "drop block in bottlenecks": ("resnet50d", {**SMALL, "drop_block_rate": 0.1, "drop_path_rate": 0.3}),
    "response normalisation": ("convnextv2_atto", {"depths": [1, 2, 1, 1], "dims": [8, 12, 16, 24]}),
    "attention pool": ("vit_base_patch16_siglip_224", VIT | {"reg_tokens": 0} | DROP_PATH),
    "no class token": ("vit_medium_patch16_gap_240", {**VIT, "reg_tokens": 0}),
}
DROPOUT = {"modernbert": {"embedding_dropout": 0.1, "mlp_dropout": 0.1, "attention_dropout": 0.1}}  # by default none


@torch.no_grad()
def scatter(model, seed=0):
    """Random weights that say something: no norm's weight is 0, statistics are not 0 and 1, tokens differ."""
    torch.manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.ndim == 1:
            value.normal_(std=0.3)
        elif value.ndim == 2:
            value.normal_(std=1.0 if "embeddings" in name else 0.15)
    return model


def save_text(name, folder, auto_class=AutoModel, **fields):
    """A plain text model of the family's first source, saved by transformers."""
    config = CONFIG_MAPPING[family_named(name).sources[0]](**FIELDS[name] | DROPOUT.get(name, {}) | fields)
    scatter(auto_class.from_config(config)).save_pretrained(folder)


@functools.cache
def image_state(name):
    """The random weights of timm's network of that name, with its classifier."""
    architecture, arguments = NETWORKS[name]
    return scatter(timm.create_model(architecture, **arguments)).state_dict()


def pair(name, folder):
    """The plain network, loaded by its own library, and ours converted from the same files, in eval mode."""
    if name in TEXTS:
        save_text(name, folder)
        return AutoModel.from_pretrained(folder).eval(), hf_mhex.convert(folder, num_labels=4)
    architecture, arguments = NETWORKS[name]
    plain = timm.create_model(architecture, **arguments)
    plain.load_state_dict(image_state(name))
    path = folder / "plain.safetensors"
    save_file(image_state(name), path)
    model = hf_mhex.convert(path, 4, architecture=architecture, architecture_kwargs=arguments or None)
    return plain.eval(), model


def inputs_for(name):
    """Four rows that the network of that name takes."""
    return batch_for(name, batch=4) if name in TEXTS else image_batch(batch=4, size=(64, 96))


def features(model, inputs):
    """Features of a plain network or of ours, under one seed."""
    torch.manual_seed(3)
    model = model.base_model if hasattr(model, "heads") else model
    if hasattr(model, "forward_features"):
        return model.forward_features(inputs["pixel_values"])
    return model(**inputs).last_hidden_state


def plain_part(model):
    """The part of a converted model that has its source's names."""
    return getattr(model.base_model, "trunk", model.base_model)
