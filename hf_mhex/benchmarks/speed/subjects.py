"""Networks that are timed: each in its MHEX and its plain form with random weights, and random inputs for both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import timm
import torch
import transformers
from torch import nn
from transformers import AutoConfig

from hf_mhex.conversion import from_timm
from hf_mhex.families import family_for_source

MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
SHAPES = {"bert-base": ("bert", {}), "minilm": ("bert", MINILM)}  # names of transformers' configurations
RANK = "-rank"  # "resnet50-rank64" is resnet50 with `gate_rank=64`
SPECIAL = {"mask": 7, "first": 8, "last": 9}  # any token numbers do for random weights


@dataclass(frozen=True)
class Subject:
    """Two forms of a network, in eval mode, and a batch for both.

    Args:
        mhex, plain: the networks. inputs: what both take, by name. target: the classes to explain, [B].
    """

    mhex: nn.Module
    plain: nn.Module
    inputs: dict[str, torch.Tensor]
    target: torch.Tensor

    @property
    def is_image(self) -> bool:
        """Whether the rows are images."""
        return "pixel_values" in self.inputs


@cache
def find_source(network: str):
    """A network's plain form: timm's name (images), or transformers' configuration (texts).

    Args:
        network: a timm network, one of SHAPES, a model type of transformers, or a folder or Hub id with a config.json;
            with "-rank64" at its end for gates of rank 64.

    Raises ValueError for a name that is none of them, and for a network that MHEX is not made from.
    """
    name = network.partition(RANK)[0]
    if timm.is_model(name):
        return name
    model_type, shape = SHAPES.get(name, (name, {}))
    try:
        config = AutoConfig.for_model(model_type, **shape)
    except ValueError:
        try:
            config = AutoConfig.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"network {network!r} is no timm network, no model type of transformers ({', '.join(SHAPES)} are known "
                "too), and no folder or Hub id with a config.json."
            ) from error
    if family_for_source("transformers", config.model_type) is None:
        raise ValueError(f"network {network!r} is a {config.model_type!r} model, which MHEX is not made from.")
    return config


def is_image(network: str) -> bool:
    """Whether a network reads images."""
    return isinstance(find_source(network), str)


def make_networks(network: str, labels: int, seed: int, device: str = "cpu") -> tuple[nn.Module, nn.Module]:
    """The MHEX and the plain form of a network, named as in `find_source`."""
    torch.manual_seed(seed)
    source, rank = find_source(network), network.partition(RANK)[2]
    fields: dict = {"num_labels": labels, "gate_rank": int(rank) if rank else None}
    if isinstance(source, str):
        mhex, plain = from_timm(source, **fields), timm.create_model(source, num_classes=labels)
    else:
        family = family_for_source("transformers", source.model_type)
        assert family is not None  # find_source has looked
        mhex = family.classifier(family.config.from_dict(source.to_dict() | fields))
        config = type(source).from_dict(source.to_dict() | {"num_labels": labels})
        plain = getattr(transformers, family.input.auto_model).from_config(config)
    for gate in mhex.base_model.gates:
        nn.init.normal_(gate.weight, std=0.02)  # gates that are not all alike
    return mhex.eval().to(device), plain.eval().to(device)


def make_inputs(network: str, batch: int, size: int, seed: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Images [batch, 3, size, size], or texts [batch, size] of which seven in eight are padded by up to a tenth."""
    generator = torch.Generator().manual_seed(seed)
    source = find_source(network)
    if isinstance(source, str):
        return {"pixel_values": torch.randn(batch, 3, size, size, generator=generator).to(device)}
    ids = torch.randint(10, source.vocab_size, (batch, size), generator=generator)
    ids[:, 0], ids[:, -1] = SPECIAL["first"], SPECIAL["last"]
    kept = size - (torch.arange(batch) % 8) * size // 80
    mask = (torch.arange(size) < kept[:, None]).long()
    ids = ids.where(mask == 1, source.pad_token_id or 0)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def make_subject(
    networks: tuple[nn.Module, nn.Module], network: str, batch: int, size: int, labels: int, seed: int
) -> Subject:
    """Both networks with a batch."""
    device = next(networks[0].parameters()).device
    target = torch.arange(batch, device=device) % labels
    return Subject(*networks, make_inputs(network, batch, size, seed, str(device)), target)
