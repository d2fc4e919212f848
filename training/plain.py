"""Plain twins of MHEX models, for comparison by the same recipe: the network that each is made from, with its own
classifier, no gates, and the task loss of one head.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import timm
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

from hf_mhex.conversion import read_checkpoint
from hf_mhex.environment import downloading
from hf_mhex.families import FAMILIES, Family, family_for_source
from hf_mhex.modeling.mhex_config import MHEXConfigMixin
from hf_mhex.modeling.mhex_loss import deep_supervision_loss

LOSS_FIELDS = {"label_smoothing": 0.0, "binary_share": 0.0, "class_weights": None}  # that a plain loss has too
MHEX_FIELDS = {field.name for field in dataclasses.fields(MHEXConfigMixin)} - set(LOSS_FIELDS)


class PlainTwin:
    """Mixin of a plain network: the loss that every head of MHEX has, and its blocks."""

    config: Any
    base_model: Any

    accepts_loss_kwargs = True

    def loss_of(self, logits: torch.Tensor, labels: torch.Tensor | None, num_items_in_batch):
        """The task loss [] of logits [B, K]; None without labels."""
        if labels is None:
            return None
        return deep_supervision_loss(logits, logits[:, None][:, :0], labels, self.config, num_items_in_batch)[0]

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks that have a gate in the MHEX twin."""
        body = self.twin
        gated = {id(block) for block in body.blocks}
        names = [name.removeprefix("trunk.") for name, module in body.named_modules() if id(module) in gated]
        return [self.base_model.get_submodule(name) for name in names]

    @property
    def block_widths(self) -> list[int]:
        """The channels of each block."""
        return [gate.out_features for gate in self.twin.gates]

    @property
    def channel_axis(self) -> int:
        """The axis of a block's output that its channels lie on."""
        return self.twin.blocks[0].channel_axis

    @property
    def twin(self) -> Any:
        """The body of the MHEX twin, without weights."""
        family = family_of_plain(self.config)
        with torch.device("meta"):
            return family.body(family.config.from_dict(self.config.to_dict()))


class PlainTextMixin(PlainTwin):
    """A text classifier of transformers whose loss knows the accumulated batch's size and label smoothing."""

    def forward(self, input_ids=None, labels=None, num_items_in_batch=None, **inputs):
        """Logits [B, K] of input_ids [B, T] and, with labels ([B] ints or [B, K] floats), the loss."""
        answer = super().forward(input_ids=input_ids, **inputs)  # type: ignore[misc]  # transformers' class comes next
        answer.loss = self.loss_of(answer.logits, labels, num_items_in_batch)
        return answer


class PlainImageClassifier(PlainTwin, PreTrainedModel):
    """timm's network with its own classifier, under the configuration of its MHEX twin."""

    base_model_prefix = "network"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.network = timm.create_model(
            config.architecture,
            in_chans=config.num_channels,
            num_classes=config.num_labels,
            **(config.architecture_kwargs or {}),
        )
        for module in self.network.modules():  # timm has initialised them
            module._is_hf_initialized = True
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: timm initialises its network when it is made."""

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=None):
        self.network.set_grad_checkpointing(enable)

    def forward(self, pixel_values=None, labels=None, num_items_in_batch=None, **options):
        """Logits [B, K] of pixel_values [B, C, H, W] and, with labels, the loss.

        Labels [M, R, S] or [M, R, S, K] are those of mosaics: each part is classified by the positions of its own.
        """
        if labels is None or labels.ndim < 3:
            logits = self.network(pixel_values)
        else:
            logits, labels = self.logits_of_parts(pixel_values, labels.shape[1:3]), labels.flatten(0, 2)
        return ImageClassifierOutput(loss=self.loss_of(logits, labels, num_items_in_batch), logits=logits)

    def logits_of_parts(self, pixel_values: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Logits [M * R * S, K] of the parts of mosaics; ValueError for a network without a map of features."""
        features = self.network.forward_features(pixel_values)
        if features.ndim != 4:
            raise ValueError("processing.mosaics must be 0 for a plain network that classifies by a token.")
        last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        cells = nn.functional.adaptive_avg_pool2d(features.permute(0, 3, 1, 2) if last else features, tuple(grid))
        cells = cells.flatten(2).mT.flatten(0, 1)[:, :, None, None]
        return self.network.forward_head(cells.permute(0, 2, 3, 1) if last else cells)


class OpenGate(nn.Module):
    """A gate without weights that is 1 everywhere: gate_scale * sigmoid(0)."""

    scale, rectified = 2.0, False

    def forward(self, p: torch.Tensor) -> torch.Tensor:
        """0 for p [B, C]."""
        return torch.zeros_like(p)


class PlainSignalClassifier(PlainTwin, PreTrainedModel):
    """The residual network of MHEX-Signal without gates, under one linear classifier of its pooled features."""

    base_model_prefix = "signal"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.signal = family_of_plain(config).body(config)
        for block in self.signal.blocks:
            block.gate = OpenGate()
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Start as MHEX-Signal does."""
        self.signal._init_weights(module)

    def forward(self, input_values=None, labels=None, num_items_in_batch=None, **options):
        """Logits [B, K] of input_values [B, C, L] or [B, L] and, with labels, the loss."""
        logits = self.classifier(self.signal(input_values=input_values).pooler_output)
        return SequenceClassifierOutput(loss=self.loss_of(logits, labels, num_items_in_batch), logits=logits)


def family_of_plain(config: PreTrainedConfig) -> Family:
    """The family whose models are made from a plain network; a timm network bears its MHEX twin's configuration.

    Raises ValueError where there is none.
    """
    family = FAMILIES.get(config.model_type) or family_for_source("transformers", config.model_type)
    if family is None:
        raise ValueError(f"model_type={config.model_type!r} is a plain network that no MHEX model is made from.")
    return family


def plain_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of the plain twin with this configuration."""
    family = family_of_plain(config)
    if family.kind == "signal":
        return PlainSignalClassifier
    if family.library == "timm":
        return PlainImageClassifier
    stock = AutoModelForSequenceClassification._model_mapping[type(config)]
    return type(f"Plain{stock.__name__}", (PlainTextMixin, stock), {"__module__": __name__})


def load_plain(folder) -> PreTrainedModel:
    """A saved plain twin, in eval mode."""
    config = AutoConfig.from_pretrained(folder)
    return plain_class(config).from_pretrained(folder, config=config).eval()


def without_blocks(fields: dict) -> dict:
    """Fields of an MHEX configuration without those of gates and heads."""
    return {name: value for name, value in fields.items() if name not in MHEX_FIELDS}


def plain_text(source, fields: dict) -> PreTrainedModel:
    """The text classifier of transformers from a checkpoint, with a fresh classifier.

    Args:
        fields: of the configuration of its MHEX twin; those of gates and heads are left out.
    """
    fields = without_blocks(fields)
    loss = LOSS_FIELDS | {name: fields.pop(name) for name in LOSS_FIELDS if name in fields}
    with downloading(f"source={source!r}"):
        config = AutoConfig.from_pretrained(source, **fields)
    for name, value in (loss | {"deep_supervision_weight": 0.0, "instance_share": 0.0}).items():
        setattr(config, name, value)
    with downloading(f"source={source!r}"):
        return plain_class(config).from_pretrained(source, config=config, ignore_mismatched_sizes=True)


def plain_image(config: PreTrainedConfig, weights=None, pretrained: bool = False) -> PreTrainedModel:
    """timm's network under a fresh classifier, with the same weights as its MHEX twin starts from.

    Args:
        config: that of the MHEX twin, whose fields for gates and heads have no effect.
        weights: a local file. pretrained: take the weights that timm publishes.

    Raises ValueError for weights that do not fit.
    """
    model = PlainImageClassifier(config)
    if not weights and not pretrained:
        return model
    if weights:
        state = read_checkpoint(weights)
    else:
        with downloading(f"timm's weights of {config.architecture!r}"):
            state = timm.create_model(config.architecture, pretrained=True).state_dict()
    new = {id(parameter) for parameter in model.network.get_classifier().parameters()}
    own = {name: value for name, value in model.network.state_dict(keep_vars=True).items() if id(value) not in new}
    fits = {name: state[name] for name, value in own.items() if name in state and state[name].shape == value.shape}
    missing = [name for name in own if name not in fits and "num_batches" not in name]
    if missing:
        raise ValueError(f"model.weights={weights!r} lacks {len(missing)} weights, among them {missing[0]}.")
    model.network.load_state_dict(fits, strict=False)
    return model
