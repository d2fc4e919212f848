"""Networks that are timed: each in its MHEX and its plain form with random weights, and random inputs for both."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig

from hf_mhex.conversion import timm_family
from hf_mhex.families import FAMILIES, Family, family_for_source

MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
THREE = MINILM | {"num_hidden_layers": 3}
SHAPES: dict[str, tuple[str, dict]] = {  # families with fields of their configurations
    "bert-base": ("bert", {}),
    "minilm": ("bert", MINILM),
    "resnet-small": ("resnet", {"architecture": "resnet18"}),
    "convnext-small": ("convnext", {"architecture": "convnext_atto"}),
    "vit-small": ("vit", {"architecture": "vit_tiny_patch16_224", "architecture_kwargs": {"depth": 4}}),
    "swin-small": (
        "swin",
        {"architecture": "swin_tiny_patch4_window7_224", "architecture_kwargs": {"depths": [1, 1, 2, 1]}},
    ),
    "bert-small": ("bert", THREE),
    "roberta-small": ("roberta", THREE),
    "distilbert-small": ("distilbert", {"dim": 384, "n_layers": 3, "n_heads": 12, "hidden_dim": 1536}),
    "deberta_v2-small": (
        "deberta_v2",
        THREE | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True},
    ),
    "modernbert-small": ("modernbert", THREE),
    "signal-small": ("signal", {"widths": [32, 64, 128], "depths": [2, 2, 2], "position_waves": 16}),
}
NARROW = MINILM | {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512}
SHAPES |= {f"layers-{depth}": ("bert", NARROW | {"num_hidden_layers": depth}) for depth in (6, 12, 24, 48, 101)}
DEPTHS = tuple(name for name in SHAPES if name.startswith("layers-"))
FAMILY_NETWORKS = tuple(name for name in SHAPES if name.endswith("-small"))  # of real width, with few blocks
RANK, FULL = "-rank", "-full"  # "resnet50-rank64" is resnet50 with `gate_rank=64`, "resnet50-full" with None
SPECIAL = {"mask": 7, "first": 8, "last": 9}  # any token numbers do for random weights


@dataclass(frozen=True)
class Source:
    """What a network's two forms are made from: its family, and fields of the configuration."""

    family: Family
    fields: dict[str, Any]

    @property
    def kind(self) -> str:
        """ "image", "text" or "signal"."""
        return self.family.kind


@dataclass(frozen=True)
class Subject:
    """Two forms of a network, in eval mode, and a batch for both.

    Args:
        mhex, plain: the networks. inputs: what both take, by name. target: the classes to explain, [B].
        kind: "image", "text" or "signal".
    """

    mhex: nn.Module
    plain: nn.Module
    inputs: dict[str, torch.Tensor]
    target: torch.Tensor
    kind: str


class PlainSignalNetwork(nn.Module):
    """The network over signals without gates and heads: its pooled features through one linear map."""

    def __init__(self, family: Family, config):
        super().__init__()
        self.body = family.body(config)
        for block in self.body.blocks:
            del block.gate
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] of input_values [B, C, L]."""
        body, module = self.body, sys.modules[type(self.body).__module__]
        x = body.stem(input_values)
        x = x if body.places is None else x * (1 + body.places(module.waves(x, body.config.position_waves)))
        for block in body.blocks:
            f = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
            x = (f + (x if block.downsample is None else block.downsample(x))).relu()
        return self.classifier(x.mean(-1))


def without_rank(network: str) -> str:
    """A network's name without what it says of gates."""
    return network.partition(RANK)[0].removesuffix(FULL)


@cache
def find_source(network: str) -> Source:
    """What a network is made from.

    Args:
        network: a timm network, one of SHAPES, a model type of transformers, or a folder or Hub id with a config.json;
            with "-rank64" at its end for gates of rank 64, with "-full" for full ones.

    Raises ValueError for a name that is none of them, and for a network that MHEX is not made from.
    """
    name = without_rank(network)
    if name in SHAPES:
        known, fields = SHAPES[name]
        return Source(FAMILIES[f"mhex_{known}"], fields)
    if timm.is_model(name):
        return Source(timm_family(name, {}), {"architecture": name})
    try:
        config = AutoConfig.for_model(name)
    except ValueError:
        try:
            config = AutoConfig.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"network {network!r} is no timm network, no model type of transformers ({', '.join(SHAPES)} are known "
                "too), and no folder or Hub id with a config.json."
            ) from error
    family = family_for_source("transformers", config.model_type)
    if family is None:
        raise ValueError(f"network {network!r} is a {config.model_type!r} model, which MHEX is not made from.")
    return Source(family, config.to_dict())


def kind_of(network: str) -> str:
    """The kind of a network's input: "image", "text" or "signal"."""
    return find_source(network).kind


def make_networks(network: str, labels: int, seed: int, device: str = "cpu") -> tuple[nn.Module, nn.Module]:
    """The MHEX and the plain form of a network, named as in `find_source`; gates are of the library's default rank."""
    torch.manual_seed(seed)
    source, rank = find_source(network), network.partition(RANK)[2]
    family, fields = source.family, source.fields | {"num_labels": labels}
    gates: dict = {"gate_rank": int(rank)} if rank else {"gate_rank": None} if network.endswith(FULL) else {}
    config = family.config(**{name: value for name, value in (fields | gates).items() if name != "model_type"})
    mhex = family.classifier(config)
    plain: nn.Module
    if family.library == "timm":
        arguments = fields.get("architecture_kwargs", {})
        plain = timm.create_model(fields["architecture"], num_classes=labels, **arguments)
    elif family.library == "transformers":
        own = CONFIG_MAPPING[fields.get("model_type", family.sources[0])].from_dict(fields)
        plain = getattr(transformers, family.input.auto_model).from_config(own)
    else:
        plain = PlainSignalNetwork(family, config)
    for gate in mhex.base_model.gates:
        nn.init.normal_(gate.weight, std=0.02)  # gates that are not all alike
    return mhex.eval().to(device), plain.eval().to(device)


def compile_networks(subject: Subject, **options) -> None:
    """Make one graph of each network's forward and one of the maps, at their first calls and for their shapes.

    Args:
        options: of `torch.compile`.
    """
    torch.compiler.reset()  # graphs of one function are limited in number, whatever network they are of
    for network in (subject.plain, subject.mhex):
        network.compile(**options)
    subject.mhex.generate_saliency = torch.compile(subject.mhex.generate_saliency, **options)


def make_inputs(network: str, config, batch: int, size: int, seed: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Images [batch, 3, size, size], signals [batch, channels, size], or texts [batch, size] of which seven in eight
    are padded by up to a tenth.

    Args:
        config: that of the MHEX form.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = kind_of(network)
    if kind != "text":
        name, sides = ("pixel_values", (size, size)) if kind == "image" else ("input_values", (size,))
        return {name: torch.randn(batch, config.num_channels, *sides, generator=generator).to(device)}
    ids = torch.randint(10, config.vocab_size, (batch, size), generator=generator)
    ids[:, 0], ids[:, -1] = SPECIAL["first"], SPECIAL["last"]
    kept = size - (torch.arange(batch) % 8) * size // 80
    mask = (torch.arange(size) < kept[:, None]).long()
    ids = ids.where(mask == 1, config.pad_token_id or 0)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def make_subject(
    networks: tuple[nn.Module, nn.Module], network: str, batch: int, size: int, labels: int, seed: int
) -> Subject:
    """Both networks with a batch."""
    device = next(networks[0].parameters()).device
    target = torch.arange(batch, device=device) % labels
    inputs = make_inputs(network, networks[0].config, batch, size, seed, str(device))
    return Subject(*networks, inputs, target, kind_of(network))
