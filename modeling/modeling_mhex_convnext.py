"""MHEX-ConvNeXt: timm's ConvNeXt (V1 and V2) with a gate on every block's shortcut, and a head a block."""

from typing import TYPE_CHECKING

import torch
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mhex_convnext import MHEXConvNeXtConfig
from .mhex_blocks import GatedBlock, Trace
from .mhex_images import MHEXImageBody, MHEXImageClassifier, MHEXImagePreTrainedModel

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex import MHEXPreTrainedMixin  # noqa: F401
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXConvNeXtBlock(GatedBlock, GradientCheckpointingLayer, ConvNeXtBlock):
    """timm's ConvNeXt block that ends in g * x + f: x the shortcut, f the scaled branch."""

    def forward(self, x: torch.Tensor, trace: Trace | None = None) -> torch.Tensor:
        """x [B, C', H', W'] to the block's output [B, C, H, W]."""
        trace = Trace() if trace is None else trace
        f = self.conv_dw(x)
        if self.use_conv_mlp:
            f = self.mlp(self.norm(f))
        else:
            f = self.mlp(self.norm(f.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        if self.gamma is not None:
            f = f.mul(self.gamma.reshape(1, -1, 1, 1))
        f, shortcut = self.drop_path(f), self.shortcut(x)
        return torch.addcmul(f, self.gated(shortcut, f, trace=trace, cam_gated=True), shortcut)


class MHEXConvNeXtPreTrainedModel(MHEXImagePreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXConvNeXtConfig
    config_class = MHEXConvNeXtConfig
    base_model_prefix = "convnext"
    _no_split_modules = ["MHEXConvNeXtBlock"]


class MHEXConvNeXtModel(MHEXImageBody, MHEXConvNeXtPreTrainedModel):
    """A timm ConvNeXt's body with a gate in every block. With every W1 at 0 it is timm's, exactly."""

    trunk_class = ConvNeXt
    gated = {ConvNeXtBlock: MHEXConvNeXtBlock}

    def stages(self) -> list[tuple[nn.Module | None, list[nn.Module]]]:
        """Each stage's downsampling and blocks."""
        return [(stage.downsample, list(stage.blocks)) for stage in self.trunk.stages]

    def width(self, block: nn.Module) -> int:
        """Channels of a block's features."""
        return block.conv_dw.out_channels

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels [B, num_channels, H, W] to the first stage's input."""
        return self.trunk.stem(x)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """The last block's output to timm's features."""
        return self.trunk.norm_pre(x)


class MHEXConvNeXtForImageClassification(MHEXImageClassifier, MHEXConvNeXtPreTrainedModel):
    """Image classification by the heads of MHEX-ConvNeXt, with `generate_saliency` over pixels."""

    body_class = MHEXConvNeXtModel
