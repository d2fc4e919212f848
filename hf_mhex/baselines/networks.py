"""Networks as foreign libraries look at them: plain modules from one tensor to logits, and their layers."""

from __future__ import annotations

import copy

import torch
from torch import nn


def logits_of(answer) -> torch.Tensor:
    """The logits [B, K] in a model's answer: its `.logits`, or the answer itself."""
    return getattr(answer, "logits", answer)


def device_of(model: nn.Module) -> torch.device:
    """The device that a network's weights are on."""
    return next(model.parameters()).device


class PixelsToLogits(nn.Module):
    """pixel_values [B, C, H, W] to logits [B, K], for libraries that call a module with one tensor."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return logits_of(self.model(pixel_values))


class Strip(nn.Module):
    """A network of signals as one of images [B, C, 1, L], so that every method for images explains it.

    Args:
        model: a classifier of input_values [B, C, L], MHEX or plain.
    """

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, pixel_values: torch.Tensor):
        """The network's answer to strips [B, C, 1, L]."""
        return self.model(input_values=pixel_values[:, :, 0])

    @property
    def base_model(self):
        """The body of the network."""
        return self.model.base_model

    @property
    def num_blocks(self) -> int:
        """Number of residual blocks of an MHEX network."""
        return self.model.num_blocks

    def generate_saliency(self, pixel_values: torch.Tensor, **options):
        """The network's own, with `saliency` [B, 1, L]."""
        return self._laid_flat(self.model.generate_saliency, pixel_values, options)

    def paper_saliency(self, pixel_values: torch.Tensor, **options):
        """The network's own, with `saliency` [B, 1, L]."""
        return self._laid_flat(self.model.paper_saliency, pixel_values, options)

    def _laid_flat(self, explain, pixel_values: torch.Tensor, options: dict):
        answer = explain(input_values=pixel_values[:, :, 0], **options)
        if answer.saliency is not None:
            answer.saliency = answer.saliency.unsqueeze(-2)
        return answer


def reads_strips(model: nn.Module) -> bool:
    """Whether a network of signals lies in this one as a `Strip`."""
    return any(isinstance(module, Strip) for module in model.modules())


def grid_of(sides: tuple[int, ...], cells: int) -> tuple[int, int]:
    """Lines and columns of the grid over an image of sides (H, W): at most `cells` each, or of a strip as many in all.

    A strip is one pixel high.
    """
    height, width = sides
    return (1, min(cells**2, width)) if height == 1 else (min(cells, height), min(cells, width))


class EmbeddingsToLogits(nn.Module):
    """inputs_embeds [B, T, C] and attention_mask [B, T] to logits [B, K]; `embed` gives the word embeddings."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Word embeddings [B, T, C], before positions are added."""
        return self.model.get_input_embeddings()(input_ids)

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return logits_of(self.model(inputs_embeds=inputs_embeds, attention_mask=attention_mask))


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose activations do not work in place, so that hooks see what a layer gave."""
    changed = copy.deepcopy(model).eval()
    for module in changed.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
    return changed.requires_grad_(True)


def trunk_of(model: nn.Module) -> nn.Module:
    """timm's network in an MHEX model, a plain twin or a timm network; ValueError where there is none."""
    for module in model.modules():
        if hasattr(module, "feature_info"):
            return module
    raise ValueError(f"model must hold a timm network, this {type(model).__name__} does not.")


def target_layer(model: nn.Module, stage: int = -1) -> nn.Module:
    """The module of a private copy whose output is that of a stage (-1: the last); `as_maps` lays it out.

    In a network of fewer stages it is the first.

    Of an MHEX network that is the stage's last block. Nothing reads the output of the very last one: its head reads
    z (or ReLU(z)) before it, so that is what its layer gives. Where a plain network classifies by a token, nothing
    reads the last block's patches either, and stages are counted from the one before.
    """
    gated = next((module for module in model.modules() if hasattr(module, "gates")), None)
    if gated is None:
        trunk = trunk_of(model)
        stage -= getattr(trunk, "global_pool", None) == "token"
        return trunk.get_submodule(trunk.feature_info[max(stage, -len(trunk.feature_info))]["module"])
    stages = gated.stages()
    stage = max(stage, -len(stages))
    block = stages[stage][1][-1]
    has_head = hasattr(block.gate, "weight")  # the plain twin of a network of signals has the same body, open gates
    return block.feature_map if stage == -1 and has_head else block


def as_maps(model: nn.Module, pixel_values: torch.Tensor):
    """`transform(features) -> [B, C, h, w]` for a network's features of these pixels.

    Features are [B, C, h, w], [B, h, w, C] or tokens [B, T, C], as timm lays them out; class and register tokens are
    left out. Those of a `Strip` are [B, C, L'].
    """
    if reads_strips(model):
        return lambda features: features[:, :, None]
    trunk = trunk_of(model)

    def transform(features: torch.Tensor) -> torch.Tensor:
        if features.ndim == 3:
            sides = trunk.patch_embed.dynamic_feat_size(tuple(pixel_values.shape[-2:]))
            return features[:, trunk.num_prefix_tokens :].mT.unflatten(2, sides)
        return features.permute(0, 3, 1, 2) if getattr(trunk, "output_fmt", "NCHW") == "NHWC" else features

    return transform
