"""MHEX-ViT: timm's vision transformers (ViT, DeiT, DINOv2) with a gate on every block's second shortcut, and a head a
block. Class and register tokens are scaled like the patches; they are not pooled and not in the map.
"""

from typing import TYPE_CHECKING

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mhex_vit import MHEXViTConfig
from .mhex_blocks import GatedBlock, Trace, attend, carry_shares, make_reversible
from .mhex_images import MHEXImageBody, MHEXImageClassifier, MHEXImagePreTrainedModel
from .mhex_maps import wide

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex import MHEXPreTrainedMixin  # noqa: F401
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXViTBlock(GatedBlock, GradientCheckpointingLayer, Block):
    """timm's transformer block that ends in g * x + f: x the stream after attention, f the feed-forward branch."""

    channel_axis = -1

    def attention_with_shares(self, x: torch.Tensor, trace: Trace) -> torch.Tensor:
        """`ls1(attn(norm1(x)))` in eval mode, computed plainly, with the trace's shares carried through it."""
        attn = self.attn
        parts = attn.qkv(self.norm1(x)).unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        context, weights = attend(attn.q_norm(query), attn.k_norm(key), value, attn.scale)
        mixed = self.ls1(attn.proj(context))
        carry_shares(trace, x, mixed, weights, value, attn.proj, self.ls1)
        return mixed

    def forward(self, x: torch.Tensor, trace: Trace | None = None) -> torch.Tensor:
        """x [B, T, C] to the block's output [B, T, C]."""
        trace = Trace() if trace is None else trace
        if trace.shares is None:
            x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        else:
            x = x + self.attention_with_shares(x, trace)
        f = self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return torch.addcmul(f, self.gated(x, f, trace=trace, cam_gated=True), x)


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

    @classmethod
    def create_trunk(cls, config) -> nn.Module:
        """timm's network; what its classifier alone reads (a pooling by attention, `fc_norm`) is left out."""
        trunk = super().create_trunk(config)
        trunk.attn_pool, trunk.fc_norm = None, nn.Identity()
        for block in trunk.blocks:
            if type(block) is Block:
                make_reversible(block.attn.proj)
        return trunk

    def stages(self) -> list[tuple[nn.Module | None, list[nn.Module]]]:
        """Every block is a stage of its own."""
        return [(None, [block]) for block in self.trunk.blocks]

    def width(self, block: nn.Module) -> int:
        """Channels of a block's features."""
        return block.attn.proj.out_features

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels [B, num_channels, H, W] to tokens [B, T, C] with their positions."""
        trunk = self.trunk
        return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(x))))

    def trace(self, x: torch.Tensor, pixels: torch.Tensor, explain, rollout: bool) -> Trace:
        """The trace of a pass: class and register tokens first, then patches line by line."""
        attn = self.trunk.blocks[0].attn
        if rollout and not (isinstance(attn.norm, nn.Identity) and getattr(attn, "gate", None) is None):
            raise ValueError("rollout=True is not written for attention with a norm or a gate at its end; use False.")
        shape = self.trunk.patch_embed.dynamic_feat_size(tuple(pixels.shape[-2:]))
        shares = None
        if rollout:
            shares = torch.eye(x.shape[1], dtype=wide(x.dtype), device=x.device).expand(x.shape[0], -1, -1)
        return Trace(explain, prefix=self.trunk.num_prefix_tokens, shape=shape, shares=shares)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """The last block's output to timm's features [B, T, C]."""
        return self.trunk.norm(x)


class MHEXViTForImageClassification(MHEXImageClassifier, MHEXViTPreTrainedModel):
    """Image classification by the heads of MHEX-ViT, with `generate_saliency` over pixels."""

    body_class = MHEXViTModel
