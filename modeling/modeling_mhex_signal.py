"""MHEX-Signal: a residual network of 1-D convolutions with a gate on every block's shortcut, and a head a block."""

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mhex_signal import MHEXSignalConfig
from .mhex import MHEXClassifierMixin, MHEXPreTrainedMixin, MHEXStagedBody
from .mhex_blocks import GatedBlock, Trace, add_gates
from .mhex_maps import check_names

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXSignalBlock(GatedBlock, GradientCheckpointingLayer):
    """A residual block of two convolutions that ends in `ReLU(g * x + f)`."""

    def __init__(self, before: int, width: int, kernel_size: int, stride: int):
        super().__init__()
        around = kernel_size // 2
        self.conv1 = nn.Conv1d(before, width, kernel_size, stride, around, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, width, kernel_size, 1, around, bias=False)
        self.bn2 = nn.BatchNorm1d(width)
        self.downsample = None
        if before != width or stride > 1:
            self.downsample = nn.Sequential(nn.Conv1d(before, width, 1, stride, bias=False), nn.BatchNorm1d(width))

    def forward(self, x: torch.Tensor, trace: Trace | None = None) -> torch.Tensor:
        """x [B, C', L'] to the block's output [B, C, L]."""
        trace = Trace() if trace is None else trace
        first_sum = self.first_sum(x) if self.downsample is None else None
        f = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        shortcut = x if self.downsample is None else self.downsample(x)
        gate = self.gated(shortcut, f, trace=trace, first_sum=first_sum, cam_gated=True)
        return f.addcmul(gate, shortcut).relu()


class MHEXSignalPreTrainedModel(MHEXPreTrainedMixin, PreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXSignalConfig
    config_class = MHEXSignalConfig
    base_model_prefix = "signal"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["MHEXSignalBlock"]

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            super()._init_weights(module)

    def get_input_embeddings(self):
        """None: a signal has no embedding table."""
        return


class MHEXSignalModel(MHEXStagedBody, MHEXSignalPreTrainedModel):
    """A residual network over signals with a gate in every block. With every W1 at 0 it is the plain network."""

    _auto_class = "AutoModel"

    def __init__(self, config: MHEXSignalConfig):
        super().__init__(config)
        config.check_fields()
        around = config.stem_kernel_size // 2
        self.stem = nn.Sequential(
            nn.Conv1d(
                config.num_channels, config.widths[0], config.stem_kernel_size, config.stem_stride, around, bias=False
            ),
            nn.BatchNorm1d(config.widths[0]),
            nn.ReLU(),
        )
        self.places = None
        if config.position_waves:
            self.places = nn.Conv1d(2 * config.position_waves, config.widths[0], 1, bias=False)
        self.layers, before, widths = nn.ModuleList(), config.widths[0], []
        for width, depth, stride in zip(config.widths, config.depths, config.strides):
            stage = nn.ModuleList()
            for number in range(depth):
                stage.append(MHEXSignalBlock(before, width, config.kernel_size, stride if number == 0 else 1))
                before = width
            self.layers.append(stage)
            widths += [width] * depth
        add_gates(dict.fromkeys(self.blocks, MHEXSignalBlock), widths, config)
        self.post_init()

    def stages(self) -> list[tuple[None, list[nn.Module]]]:
        """Each stage's downsampling (None: its first block strides) and its residual blocks."""
        return [(None, list(stage)) for stage in self.layers]

    def forward(
        self,
        input_values: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
        explain=None,
        rollout: bool = False,
        return_dict: bool | None = None,
        **options,
    ):
        """Features [B, C, L'] of input_values [B, num_channels, L], or [B, L] of one channel.

        Args:
            output_hidden_states: also return the stem's and each stage's output.
            explain: called as `explain(block, Features)` while each block passes; its answers come as `explanations`.
            rollout: False; there is no attention to go back through.

        Raises ValueError or TypeError for signals that do not fit the model.
        """
        check_names(options, ("output_attentions",), f"{type(self).__name__}.forward")
        input_values = check_signals(input_values, self.config)
        self.check_rollout(rollout)
        x = input_values if input_values.ndim == 3 else input_values[:, None]
        x = self.stem(x.to(next(self.stem.parameters()).dtype))
        x = x if self.places is None else x * (1 + self.places(waves(x, self.config.position_waves)))
        return self.walk(x, Trace(explain), output_hidden_states, return_dict)


class MHEXSignalForClassification(MHEXClassifierMixin, MHEXSignalPreTrainedModel):
    """Classification of signals by the heads of MHEX-Signal, with `generate_saliency` over their points, [B, L]."""

    _auto_class = "AutoModelForAudioClassification"
    input_names = ("input_values",)
    body_class = MHEXSignalModel

    def forward(
        self,
        input_values: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **options,
    ):
        """Logits [B, K] of input_values [B, num_channels, L] or [B, L] and, with `labels` ([B] ints or [B, K] floats),
        the deep-supervision loss.

        Args:
            num_items_in_batch: what the loss's sum is divided by (Trainer's count over accumulated batches).
            options: `output_hidden_states`, `return_dict`, and `explain`, called as `explain(block, Features)` while
                each block passes.

        Raises ValueError or TypeError for signals or labels that do not fit the model.
        """
        return super().forward(labels, num_items_in_batch, input_values=input_values, **options)

    def _read_inputs(self, inputs: dict) -> tuple[int, tuple[int]]:
        values = check_signals(inputs.get("input_values"), self.config)
        if not torch.compiler.is_compiling() and not values.isfinite().all():
            raise ValueError("input_values must be finite, got NaN or infinity; leave such signals out or fill them.")
        return values.shape[0], (values.shape[-1],)


def waves(x: torch.Tensor, count: int) -> torch.Tensor:
    """sin and cos of k pi t for k = 1 ... count, t in [0, 1) along the last axis of x [..., L]: [1, 2 count, L]."""
    places = torch.arange(x.shape[-1], device=x.device, dtype=torch.float32) / x.shape[-1]
    angles = torch.arange(1, count + 1, device=x.device, dtype=torch.float32)[:, None] * torch.pi * places
    return torch.cat([angles.sin(), angles.cos()])[None].to(x.dtype)


def check_signals(values, config) -> torch.Tensor:
    """The values; ValueError or TypeError unless they are a float tensor [B >= 1, num_channels, L >= 1], or [B, L]."""
    if values is None:
        raise ValueError("input_values must be given.")
    if not isinstance(values, torch.Tensor):
        cure = "use the feature extractor with return_tensors='pt'"
        raise TypeError(f"input_values must be a tensor, got {type(values).__name__}; {cure}.")
    channels = values.shape[1] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or channels != config.num_channels:
        raise ValueError(
            f"input_values must be [batch, {config.num_channels}, length] for num_channels={config.num_channels}"
            f"{' (or [batch, length])' if config.num_channels == 1 else ''}, got shape {list(values.shape)}."
        )
    if not values.is_floating_point():
        raise TypeError(f"input_values must be floats, got {values.dtype}; use the model's feature extractor.")
    if 0 in values.shape:
        raise ValueError(f"input_values must hold at least one signal, got shape {list(values.shape)}.")
    if config.axis is not None and values.shape[-1] != len(config.axis):
        raise ValueError(
            f"input_values must have the {len(config.axis)} points of the model's axis, got {values.shape[-1]}; "
            "interpolate the signals to it."
        )
    return values
