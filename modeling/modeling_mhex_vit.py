"""MHEX-ViT: timm's vision transformers (ViT, DeiT, DINOv2) with a gate on every block's second shortcut, and a head a
block. Class and register tokens are scaled like the patches; they are not pooled and not in the map.
"""

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mhex_vit import MHEXViTConfig
from .mhex_blocks import GatedBlock, Trace, attend, make_reversible
from .mhex_images import MHEXImageBody, MHEXImageClassifier, MHEXImagePreTrainedModel

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex import MHEXPreTrainedMixin  # noqa: F401
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXViTBlock(GatedBlock, GradientCheckpointingLayer, Block):
    """timm's transformer block that ends in g * x + f: x the stream after attention, f the feed-forward branch."""

    channel_axis = -1

    def attention_with_shares(self, x: torch.Tensor, trace: Trace) -> torch.Tensor:
        """`ls1(attn(norm1(x)))` in eval mode, computed plainly, with its shares given to the trace."""
        attn = self.attn
        parts = attn.qkv(self.norm1(x)).unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        query, key = attn.q_norm(query), attn.k_norm(key)
        return attend(trace, self.block, x, query, key, value, attn.scale, attn.proj, self.ls1, self.keys(trace))

    def keys(self, trace: Trace) -> torch.Tensor | None:
        """Tokens that may be attended to [B, T]; all of a row that has neither patches nor other tokens."""
        if trace.valid is None:
            return None
        kept = F.pad(trace.valid, (trace.prefix, 0), value=True)
        return kept | ~kept.any(-1, keepdim=True)

    def forward(self, x: torch.Tensor, trace: Trace | None = None) -> torch.Tensor:
        """x [B, T, C] to the block's output [B, T, C]."""
        trace = Trace() if trace is None else trace
        if self.shows_shares(x, trace):
            x = x + self.attention_with_shares(x, trace)
        else:
            keys = self.keys(trace)
            mask = {} if keys is None else {"attn_mask": keys[:, None, None]}  # from timm 1.0.16 on
            x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), **mask)))
        if trace.take:
            return x
        f = self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return torch.addcmul(f, self.gated(x, f, trace=trace, cam_gated=True), x)


class MHEXViTTrunk(VisionTransformer):
    """timm's network whose call is its stem alone, so that its tokens and positions are read in a call of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels [B, num_channels, H, W] to tokens [B, T, C] with their positions."""
        return self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(x))))


class MHEXViTPreTrainedModel(MHEXImagePreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXViTConfig
    config_class = MHEXViTConfig
    base_model_prefix = "vit"
    _no_split_modules = ["MHEXViTBlock"]


class MHEXViTModel(MHEXImageBody, MHEXViTPreTrainedModel):
    """A timm vision transformer's body with a gate in every block. With every W1 at 0 it is timm's, exactly."""

    trunk_class = VisionTransformer
    gated = {Block: MHEXViTBlock}
    can_roll_out = True
    takes_mask = True

    @classmethod
    def create_trunk(cls, config) -> nn.Module:
        """timm's network; what its classifier alone reads (a pooling by attention, `fc_norm`) is left out."""
        arguments = config.architecture_kwargs or {}
        if arguments.get("class_token") is False and "global_pool" not in arguments:
            config = copy.copy(config)  # timm pools the class token where nothing else is said
            config.architecture_kwargs = {**arguments, "global_pool": "avg"}
        trunk = super().create_trunk(config)
        if config.layer_norm_eps is not None:
            for module in trunk.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = config.layer_norm_eps
        trunk.attn_pool, trunk.fc_norm = None, nn.Identity()
        trunk.__class__ = MHEXViTTrunk
        for block in trunk.blocks:
            if type(block) is Block:
                make_reversible(block.attn.proj)
        return trunk

    @property
    def prefix_tokens(self) -> int:
        """Class and register tokens."""
        return self.trunk.num_prefix_tokens

    def stages(self) -> list[tuple[nn.Module | None, list[nn.Module]]]:
        """Every block is a stage of its own."""
        return [(None, [block]) for block in self.trunk.blocks]

    def width(self, block: nn.Module) -> int:
        """Channels of a block's features."""
        return block.attn.proj.out_features

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels [B, num_channels, H, W] to tokens [B, T, C] with their positions."""
        return self.trunk(x)

    def trace(self, x: torch.Tensor, pixels: torch.Tensor, explain, rollout: bool, attention_mask=None) -> Trace:
        """The trace of a pass: class and register tokens first, then patches line by line."""
        attn = self.trunk.blocks[0].attn
        if rollout and not (isinstance(attn.norm, nn.Identity) and getattr(attn, "gate", None) is None):
            raise ValueError("rollout=True is not written for attention with a norm or a gate at its end; use False.")
        shape = self.trunk.patch_embed.dynamic_feat_size(tuple(pixels.shape[-2:]))
        valid = None if attention_mask is None else valid_patches(attention_mask, len(x), shape).to(x.device)
        return Trace(explain, valid, self.prefix_tokens, shape, rollout)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """The last block's output to timm's features [B, T, C]."""
        return self.trunk.norm(x)


class MHEXViTForImageClassification(MHEXImageClassifier, MHEXViTPreTrainedModel):
    """Image classification by the heads of MHEX-ViT, with `generate_saliency` over pixels.

    `attention_mask` [B, patches] (or [B, h, w]) takes patches away inside attention: nothing attends to a patch where
    it is 0, no gate pools it, and the blocks' maps are 0 there.
    """

    body_class = MHEXViTModel
    input_names = ("pixel_values", "attention_mask")


def valid_patches(attention_mask, batch: int, shape: tuple[int, int]) -> torch.BoolTensor:
    """The patches [B, N] that stay: non-zero in a mask [B, N] or [B, h, w]; TypeError or ValueError for another."""
    if not isinstance(attention_mask, torch.Tensor):
        raise TypeError(f"attention_mask must be a tensor, got {type(attention_mask).__name__}.")
    height, width = shape
    if tuple(attention_mask.shape) not in ((batch, height * width), (batch, height, width)):
        raise ValueError(
            f"attention_mask must be [batch, patches] = {[batch, height * width]} or [batch, height, width] = "
            f"{[batch, height, width]}, one value a patch; got shape {list(attention_mask.shape)}."
        )
    return attention_mask.flatten(1) != 0
