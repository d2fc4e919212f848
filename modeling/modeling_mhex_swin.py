"""MHEX-Swin: timm's Swin transformers with a gate on every block's second shortcut, and a head a block."""

from typing import TYPE_CHECKING

import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mhex_swin import MHEXSwinConfig
from .mhex_blocks import GatedBlock, Trace
from .mhex_images import MHEXImageBody, MHEXImageClassifier, MHEXImagePreTrainedModel

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex import MHEXPreTrainedMixin  # noqa: F401
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXSwinBlock(GatedBlock, GradientCheckpointingLayer, SwinTransformerBlock):
    """timm's Swin block that ends in g * x + f: x the stream after attention, f the feed-forward branch."""

    channel_axis = -1

    def forward(self, x: torch.Tensor, trace: Trace | None = None) -> torch.Tensor:
        """x [B, H, W, C] to the block's output [B, H, W, C]."""
        trace = Trace() if trace is None else trace
        x = x + self.drop_path1(self._attn(self.norm1(x)))
        f = self.drop_path2(self.mlp(self.norm2(x.flatten(1, 2)))).view_as(x)
        return torch.addcmul(f, self.gated(x, f, trace=trace, cam_gated=True), x)


class MHEXSwinPreTrainedModel(MHEXImagePreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXSwinConfig
    config_class = MHEXSwinConfig
    base_model_prefix = "swin"
    _no_split_modules = ["MHEXSwinBlock"]


class MHEXSwinModel(MHEXImageBody, MHEXSwinPreTrainedModel):
    """A timm Swin's body with a gate in every block. With every W1 at 0 it is timm's, exactly."""

    trunk_class = SwinTransformer
    gated = {SwinTransformerBlock: MHEXSwinBlock}

    def stages(self) -> list[tuple[nn.Module | None, list[nn.Module]]]:
        """Each stage's downsampling and blocks."""
        return [(stage.downsample, list(stage.blocks)) for stage in self.trunk.layers]

    def width(self, block: nn.Module) -> int:
        """Channels of a block's features."""
        return block.dim

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels [B, num_channels, H, W] to patches [B, H', W', C]."""
        return self.trunk.patch_embed(x)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """The last block's output to timm's features [B, h, w, C]."""
        return self.trunk.norm(x)


class MHEXSwinForImageClassification(MHEXImageClassifier, MHEXSwinPreTrainedModel):
    """Image classification by the heads of MHEX-Swin, with `generate_saliency` over pixels."""

    body_class = MHEXSwinModel
