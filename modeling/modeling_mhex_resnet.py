"""MHEX-ResNet: timm's ResNets with a gate on every block's shortcut, and a head a block."""

from typing import TYPE_CHECKING

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mhex_resnet import MHEXResNetConfig
from .mhex_blocks import GatedBlock, Trace
from .mhex_images import MHEXImageBody, MHEXImageClassifier, MHEXImagePreTrainedModel

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex import MHEXPreTrainedMixin  # noqa: F401
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXResNetBlock(GatedBlock, GradientCheckpointingLayer):
    """A residual block of timm that ends in `act(g * x + f)`."""

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """f = F(x), just before it is added to the shortcut."""
        raise NotImplementedError("a subclass says what its branch is")

    def forward(self, x: torch.Tensor, trace: Trace | None = None) -> torch.Tensor:
        """x [B, C', H', W'] to the block's output [B, C, H, W]."""
        trace = Trace() if trace is None else trace
        first_sum = self.first_sum(x) if self.downsample is None else None
        f = self.branch(x)
        if self.drop_path is not None:
            f = self.drop_path(f)
        shortcut = x if self.downsample is None else self.downsample(x)
        gate = self.gated(shortcut, f, trace=trace, first_sum=first_sum, cam_gated=True)
        return self.last_act(f.addcmul_(gate, shortcut))  # in place, where timm too adds in place


class MHEXBasicBlock(MHEXResNetBlock, BasicBlock):
    """timm's BasicBlock with a gate."""

    def branch(self, x):
        x = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        x = self.bn2(self.conv2(x))
        return x if self.se is None else self.se(x)

    def last_act(self, y):
        return self.act2(y)


class MHEXBottleneck(MHEXResNetBlock, Bottleneck):
    """timm's Bottleneck with a gate."""

    def branch(self, x):
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(x)))))
        x = self.bn3(self.conv3(x))
        return x if self.se is None else self.se(x)

    def last_act(self, y):
        return self.act3(y)


class MHEXResNetPreTrainedModel(MHEXImagePreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXResNetConfig
    config_class = MHEXResNetConfig
    base_model_prefix = "resnet"
    _no_split_modules = ["MHEXBasicBlock", "MHEXBottleneck"]

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Conv2d):  # weights that a file lacks start as timm draws them
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, MHEXResNetBlock):
            if (self.config.architecture_kwargs or {}).get("zero_init_last", True):
                module.zero_init_last()
        else:
            super()._init_weights(module)


class MHEXResNetModel(MHEXImageBody, MHEXResNetPreTrainedModel):
    """A timm ResNet's body with a gate in every block (arXiv 2501.01311). With every W1 at 0 it is timm's, exactly."""

    trunk_class = ResNet
    trunk_options = {"global_pool": ""}
    gated = {BasicBlock: MHEXBasicBlock, Bottleneck: MHEXBottleneck}

    def stages(self) -> list[tuple[nn.Module | None, list[nn.Module]]]:
        """The blocks of the four stages."""
        layers = (self.trunk.layer1, self.trunk.layer2, self.trunk.layer3, self.trunk.layer4)
        return [(None, list(layer)) for layer in layers]

    def width(self, block: nn.Module) -> int:
        """Channels of a block's features."""
        last = block.conv2 if type(block) is BasicBlock else block.conv3
        return last.out_channels

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels [B, num_channels, H, W] to the first block's input."""
        trunk = self.trunk
        return trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(x))))


class MHEXResNetForImageClassification(MHEXImageClassifier, MHEXResNetPreTrainedModel):
    """Image classification by the heads of MHEX-ResNet, with `generate_saliency` over pixels."""

    body_class = MHEXResNetModel
