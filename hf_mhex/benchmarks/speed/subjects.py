"""What is measured? A network of random weights in its MHEX and its plain form, and random inputs."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from hf_mhex.modeling.configuration_mhex_bert import MHEXBertConfig
from hf_mhex.modeling.configuration_mhex_resnet import MHEXResNetConfig
from hf_mhex.modeling.modeling_mhex_bert import MHEXBertForSequenceClassification
from hf_mhex.modeling.modeling_mhex_resnet import MHEXResNetForImageClassification

MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
SHAPES = {"bert-base": {}, "minilm": MINILM}
RANKS = {"resnet50-rank64": ("resnet50", 64)}  # a network and the rank of its gates
SPECIAL = {"cls": 101, "sep": 102, "mask": 103}  # BERT's own numbers


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


def make_networks(network: str, labels: int, seed: int, device: str = "cpu") -> tuple[nn.Module, nn.Module]:
    """The MHEX and the plain form of a timm ResNet ("resnet50") or of a BERT's shape ("bert-base", "minilm").

    "resnet50-rank64" is ResNet-50 with `gate_rank=64`.
    """
    torch.manual_seed(seed)
    if network in SHAPES:
        shape = SHAPES[network]
        mhex = MHEXBertForSequenceClassification(MHEXBertConfig(num_labels=labels, **shape))
        plain = BertForSequenceClassification(BertConfig(num_labels=labels, **shape))
    else:
        architecture, rank = RANKS.get(network, (network, None))
        config = MHEXResNetConfig(architecture=architecture, num_labels=labels, gate_rank=rank)
        mhex = MHEXResNetForImageClassification(config)
        plain = timm.create_model(architecture, num_classes=labels)
    for gate in mhex.base_model.gates:
        nn.init.normal_(gate.weight, std=0.02)  # gates that are not all alike
    return mhex.eval().to(device), plain.eval().to(device)


def make_inputs(network: str, batch: int, size: int, seed: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Images [batch, 3, size, size], or texts [batch, size] of which seven in eight are padded by up to a tenth."""
    generator = torch.Generator().manual_seed(seed)
    if network not in SHAPES:
        return {"pixel_values": torch.randn(batch, 3, size, size, generator=generator).to(device)}
    ids = torch.randint(1000, 20000, (batch, size), generator=generator)
    ids[:, 0], ids[:, -1] = SPECIAL["cls"], SPECIAL["sep"]
    kept = size - (torch.arange(batch) % 8) * size // 80
    mask = (torch.arange(size) < kept[:, None]).long()
    return {"input_ids": (ids * mask).to(device), "attention_mask": mask.to(device)}


def make_subject(
    networks: tuple[nn.Module, nn.Module], network: str, batch: int, size: int, labels: int, seed: int
) -> Subject:
    """Both networks with a batch."""
    device = next(networks[0].parameters()).device
    target = torch.arange(batch, device=device) % labels
    return Subject(*networks, make_inputs(network, batch, size, seed, str(device)), target)
