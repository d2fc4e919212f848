"""How does a timm ResNet become MHEX-ResNet? Its blocks get a gate on the shortcut, its classifier a head per block."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import can_return_tuple

from .configuration_mhex_resnet import MHEXResNetConfig
from .mhex import (
    AttentionGate,
    Head,
    MHEXClassifierMixin,
    MHEXClassifierOutput,
    MHEXModelOutput,
    WideLinear,
)
from .mhex_maps import Features, pooled_descriptor, position_sum


class MHEXBlock(GradientCheckpointingLayer):
    """A residual block of timm that ends in `act(g * x + f)`; `gate` is set when the trunk is made."""

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """f = F(x), just before it is added to the shortcut."""
        raise NotImplementedError("each kind of block says what its branch is")

    def forward(self, x: torch.Tensor, explain: Callable | None = None):
        """x [B, C', H', W'] to the block's output [B, C, H, W], a [B, C] and what `explain(Features)` returned."""
        identity = self.downsample is None
        # An identity shortcut is summed before the branch runs, while the cache still holds it.
        first_sum = position_sum(x) if identity and not self.gate.rectified else None
        branch = self.branch(x)
        if self.drop_path is not None:
            branch = self.drop_path(branch)
        shortcut = x if identity else self.downsample(x)
        read = self.gate.read(shortcut, branch)  # z = x + f, which is not formed, or ReLU(z)
        p, scores, gate = self.gate(read, first_sum=first_sum)
        explanation = explain(Features(read, p, gate=gate if len(read) == 2 else None)) if explain else None
        y = branch.addcmul_(gate[:, :, None, None], shortcut)  # in place, where timm too adds in place
        return self.last_act(y), scores, explanation


class MHEXBasicBlock(MHEXBlock, BasicBlock):
    """timm's BasicBlock with a gate."""

    def branch(self, x):
        x = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        x = self.bn2(self.conv2(x))
        return x if self.se is None else self.se(x)

    def last_act(self, y):
        return self.act2(y)


class MHEXBottleneck(MHEXBlock, Bottleneck):
    """timm's Bottleneck with a gate."""

    def branch(self, x):
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(x)))))
        x = self.bn3(self.conv3(x))
        return x if self.se is None else self.se(x)

    def last_act(self, y):
        return self.act3(y)


MHEX_BLOCKS = {BasicBlock: MHEXBasicBlock, Bottleneck: MHEXBottleneck}


def create_trunk(config: MHEXResNetConfig) -> ResNet:
    """timm's network for `config.architecture`, without its classifier and with a gate in every block.

    Raises ValueError for a name that timm does not register, and for a network that is no `ResNet` of BasicBlock or
    Bottleneck blocks. Nothing is downloaded.
    """
    name = config.architecture
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"architecture={name!r} is not registered in timm {timm.__version__}; close are {close}.")
    arguments = dict(config.architecture_kwargs or {}, in_chans=config.num_channels, num_classes=0, global_pool="")
    try:
        with torch.device("meta"):
            plain = timm.create_model(name, pretrained=False, **arguments)
    except (TypeError, AssertionError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(
            f"architecture={name!r} cannot be made with architecture_kwargs={config.architecture_kwargs}: {error}"
        ) from error
    if type(plain) is not ResNet:
        raise ValueError(f"architecture={name!r} is timm's {type(plain).__name__}; MHEX-ResNet takes its ResNet class.")
    kinds = {type(block) for stage in stages(plain) for block in stage}
    if not kinds <= set(MHEX_BLOCKS):
        found = ", ".join(sorted(kind.__name__ for kind in kinds - set(MHEX_BLOCKS)))
        raise ValueError(f"architecture={name!r} has {found} blocks; MHEX-ResNet takes BasicBlock and Bottleneck.")
    blocks = [MHEX_BLOCKS[type(stage[0])] for stage in stages(plain)]
    trunk = timm.create_model(name, pretrained=False, block=blocks, **arguments)
    for stage, info in zip(stages(trunk), trunk.feature_info[1:]):
        for block in stage:
            block.gate = AttentionGate(info["num_chs"], config)
    return trunk


def stages(trunk: ResNet) -> list[nn.Sequential]:
    """The four stages of a timm ResNet."""
    return [trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]


class MHEXResNetPreTrainedModel(PreTrainedModel):
    """Loading, saving and new weights: gates start at W1 = 0, heads large (`Head`), the trunk as timm's."""

    config: MHEXResNetConfig
    config_class = MHEXResNetConfig
    base_model_prefix = "resnet"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["MHEXBasicBlock", "MHEXBottleneck"]

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, WideLinear):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                bound = (module.weight[0].numel()) ** -0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, MHEXBlock):
            if (self.config.architecture_kwargs or {}).get("zero_init_last", True):
                last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                init.zeros_(last.weight)
        elif hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
        else:
            super()._init_weights(module)


class MHEXResNetModel(MHEXResNetPreTrainedModel):
    """A timm ResNet's body with a gate in every block (arXiv 2501.01311). With every W1 at 0 it is timm's, exactly."""

    def __init__(self, config: MHEXResNetConfig):
        super().__init__(config)
        config.check_fields()
        self.trunk = create_trunk(config)
        if self.trunk.conv1 is not None and next(self.trunk.parameters()).device.type != "meta":
            for module in self.trunk.modules():  # timm has initialised them; post_init would do it again
                module._is_hf_initialized = True
        self.post_init()

    def get_input_embeddings(self):
        """None: an image has no embedding table."""
        return None

    @property
    def gates(self) -> list[AttentionGate]:
        """The attention gates in block order."""
        return [block.gate for stage in stages(self.trunk) for block in stage]

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
        explain: Callable | None = None,
        **kwargs,
    ) -> MHEXModelOutput:
        """Features [B, C, h, w] of pixel_values [B, num_channels, H, W], any H and W that the trunk can take.

        Args:
            output_hidden_states: also return the stem's and each stage's output.
            explain: called as `explain(block, Features)` while each block passes; its answers come as `explanations`.

        Raises ValueError or TypeError for pixels that do not fit the model.
        """
        check_pixels(pixel_values, self.config)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        trunk = self.trunk
        x = pixel_values.to(next(trunk.parameters()).dtype)
        x = trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(x))))
        hidden_states = (x,) if output_hidden_states else None
        scores, explanations = [], []
        for stage in stages(trunk):
            for block in stage:
                explain_block = partial(explain, len(scores)) if explain else None
                x, a, explanation = block(x, explain_block)
                scores.append(a)
                explanations.append(explanation)
            if output_hidden_states:
                hidden_states += (x,)
        return MHEXModelOutput(
            last_hidden_state=x,
            pooler_output=x.mean((2, 3)),
            hidden_states=hidden_states,
            gate_scores=tuple(scores),
            explanations=tuple(explanations) if explain else None,
        )


class MHEXResNetForImageClassification(MHEXClassifierMixin, MHEXResNetPreTrainedModel):
    """Image classification by the heads of MHEX-ResNet, with `generate_saliency` over pixels."""

    accepts_loss_kwargs = True

    def __init__(self, config: MHEXResNetConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.resnet = MHEXResNetModel(config)
        self.heads = nn.ModuleList([Head(gate.out_features, config) for gate in self.resnet.gates])
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> MHEXClassifierOutput:
        """Logits [B, K] of pixel_values [B, num_channels, H, W] and, with `labels` ([B] or [B, K]), the loss.

        Args:
            labels: also a grid of them, [B, R, S] or [B, R, S, K], for images joined to mosaics: each part is then
                classified by the positions of its own, and the answer has B * R * S rows.
            num_items_in_batch: what the loss's sum is divided by (Trainer's count over accumulated batches).

        Raises ValueError or TypeError for pixels or labels that do not fit the model.
        """
        grid = labels.shape[1:3] if labels is not None and labels.ndim > 2 else None
        by_position = labels is not None and self.config.instance_share > 0
        explain = partial(self._teach_parts, grid or (1, 1)) if grid or by_position else None
        outputs = self.resnet(pixel_values, output_hidden_states, explain, return_dict=True)
        absent_losses = None
        if explain:
            outputs.gate_scores, absent_losses = zip(*outputs.explanations)
            absent_losses = torch.stack(absent_losses, dim=1) if by_position else None
        if grid:
            labels = labels.flatten(0, 2)
        return self._classify(outputs, labels, num_items_in_batch, absent_losses)

    def _teach_parts(self, grid: tuple[int, int], block: int, features: Features):
        """a = W1 p [B * R * S, C] of the parts of a grid of R x S, each pooled by itself, and their `_absent_loss`."""
        parts = parts_of(features.added().summands[0], grid)
        scores = self.resnet.gates[block].scores(torch.stack([part.p for part in parts], dim=1).flatten(0, 1))
        if not self.config.instance_share:
            return scores, None
        return scores, torch.stack([self._absent_loss(block, part) for part in parts], dim=1).flatten(0, 1)

    def _read_inputs(self, inputs: dict) -> tuple[int, tuple[int, int]]:
        pixel_values = inputs.get("pixel_values")
        check_pixels(pixel_values, self.config)
        if not torch.compiler.is_compiling() and not pixel_values.isfinite().all():
            raise ValueError("pixel_values must be finite, got NaN or infinity.")
        return pixel_values.shape[0], tuple(pixel_values.shape[-2:])


def parts_of(z: torch.Tensor, grid: tuple[int, int]) -> list[Features]:
    """The parts of z [B, C, H, W] in a grid of R x S, row by row; where sides do not divide, neighbours overlap."""

    def cuts(size: int, count: int) -> list[slice]:
        return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]

    rows, columns = (cuts(size, count) for size, count in zip(z.shape[2:], grid))
    parts = [(z[:, :, row, column],) for row in rows for column in columns]
    return [Features(part, pooled_descriptor(part)) for part in parts]


def check_pixels(pixel_values, config: MHEXResNetConfig) -> None:
    """Raise ValueError or TypeError unless pixel_values is a float tensor [B >= 1, num_channels, H >= 1, W >= 1]."""
    if pixel_values is None:
        raise ValueError("pixel_values must be given.")
    if pixel_values.ndim != 4 or pixel_values.shape[1] != config.num_channels:
        raise ValueError(
            f"pixel_values must be [batch, {config.num_channels}, height, width] for num_channels="
            f"{config.num_channels}, got shape {list(pixel_values.shape)}; use the model's image processor."
        )
    if not pixel_values.is_floating_point():
        raise TypeError(f"pixel_values must be floats, got {pixel_values.dtype}; use the model's image processor.")
    if 0 in pixel_values.shape:
        raise ValueError(f"pixel_values must hold at least one image, got shape {list(pixel_values.shape)}.")
