"""How does a plain checkpoint become an MHEX model? timm ResNets and BERTs, with a report of every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

import timm
import torch
from timm.models import adapt_input_conv, load_state_dict

from hf_mhex.loading import model_type_of
from hf_mhex.modeling.configuration_mhex_bert import MHEXBertConfig
from hf_mhex.modeling.configuration_mhex_resnet import MHEXResNetConfig
from hf_mhex.modeling.modeling_mhex_bert import MHEXBertForSequenceClassification
from hf_mhex.modeling.modeling_mhex_resnet import MHEXResNetForImageClassification

TRUNK = "resnet.trunk."


@dataclass(frozen=True)
class ConversionReport:
    """What became of the keys: `used` and `new` (fresh weights) are the model's, `unused` the source's."""

    used: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        gates = sum(".gate." in key for key in self.new)
        heads = sum(key.startswith("heads.") for key in self.new)
        others = len(self.new) - gates - heads
        parts = [f"{len(self.used)} used", f"{len(self.new)} new ({gates} gates, {heads} heads, {others} others)"]
        unused = f"{len(self.unused)} unused" + (f": {', '.join(self.unused)}" if self.unused else "")
        return "keys: " + "; ".join([*parts, unused])


def from_timm(
    architecture: str,
    pretrained: bool = False,
    checkpoint_path: str | PathLike | None = None,
    num_labels: int | None = None,
    output_loading_info: bool = False,
    **config_fields,
) -> MHEXResNetForImageClassification | tuple[MHEXResNetForImageClassification, ConversionReport]:
    """MHEX-ResNet from a timm architecture: fresh, with timm's published weights, or with those of a local file.

    Args:
        architecture: a name that timm registers, with or without a tag ("resnet50", "resnet50.a1_in1k").
        pretrained: load the weights that timm publishes for the name (over the network or from the cache).
        checkpoint_path: a local `.safetensors` or PyTorch file (read with `weights_only=True`) of the same network in
            timm's or torchvision's naming; prefixes such as "module." are taken off, its classifier is left out, and a
            first convolution for another number of input channels is adapted as timm does.
        num_labels: number of labels; `id2label` (from which `label2id` follows) sets it too.
        output_loading_info: also return the `ConversionReport`.
        config_fields: fields of `MHEXResNetConfig`.

    Raises ValueError for an architecture that does not fit, for weights that are not its own, and for `pretrained`
    together with `checkpoint_path`; FileNotFoundError for a missing file.
    """
    if pretrained and checkpoint_path is not None:
        raise ValueError("pretrained=True and checkpoint_path exclude each other; give one of them.")
    fields = label_fields(num_labels, config_fields)
    model = MHEXResNetForImageClassification(MHEXResNetConfig(architecture=architecture, **fields))
    state: Mapping[str, torch.Tensor] = {}
    source = f"checkpoint_path={checkpoint_path!r}"
    if checkpoint_path is not None:
        state = read_checkpoint(checkpoint_path)
    elif pretrained:
        source = f"timm's {architecture!r}"
        state = timm.create_model(architecture, pretrained=True).state_dict()
    report = load_trunk(model, state, source)
    return (model, report) if output_loading_info else model


def read_checkpoint(path: str | PathLike) -> Mapping[str, torch.Tensor]:
    """The state dict of a local weights file; ValueError where it holds anything but tensors, or none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint_path={fspath(path)!r} is no file; give a local weights file.")
    try:
        state = load_state_dict(fspath(path), weights_only=True)
    except Exception as error:
        raise ValueError(
            f"checkpoint_path={fspath(path)!r} cannot be read as weights (safetensors, or a PyTorch file of tensors): "
            + ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        ) from error
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(f"checkpoint_path={fspath(path)!r} holds no tensors by name; give a state dict.")
    return tensors


def load_trunk(model: MHEXResNetForImageClassification, state: Mapping[str, torch.Tensor], source: str):
    """Load plain weights into the trunk of `model` and report; an empty `state` leaves every key new.

    Raises ValueError where weights of the trunk are missing from `state` or have another shape.
    """
    trunk = model.resnet.trunk
    own = trunk.state_dict()
    state = dict(state)
    first = trunk.pretrained_cfg["first_conv"] + ".weight"
    channels = model.config.num_channels
    if first in state and first in own and state[first].shape[1] != channels:
        state[first] = adapt_input_conv(channels, state[first])
    fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    new = [key for key in own if key not in fits]
    foreign = [key for key in new if "gate" not in key and not key.endswith("num_batches_tracked")]
    if state and foreign:
        raise ValueError(
            f"{source} does not fit architecture={model.config.architecture!r}: {len(foreign)} of its weights are "
            f"missing there or have another shape, among them {', '.join(foreign[:3])}. Name the architecture that the "
            "weights come from."
        )
    trunk.load_state_dict(fits, strict=False)
    return ConversionReport(
        used=tuple(TRUNK + key for key in fits),
        new=tuple(key for key in model.state_dict() if key.removeprefix(TRUNK) not in fits),
        unused=tuple(key for key in state if key not in fits),
    )


def from_bert(
    source: str | PathLike,
    num_labels: int | None = None,
    output_loading_info: bool = False,
    revision: str | None = None,
    **config_fields,
) -> MHEXBertForSequenceClassification | tuple[MHEXBertForSequenceClassification, ConversionReport]:
    """MHEX-BERT from any BERT checkpoint, `MHEXBertForSequenceClassification.from_pretrained` with a report.

    Args:
        source: a local folder or a Hub id of a BERT (with or without any of its heads: those are left out).
        num_labels: number of labels; `id2label` (from which `label2id` follows) sets it too.
        output_loading_info: also return the `ConversionReport`.
        revision: branch, tag or commit of the Hub repository.
        config_fields: fields of `MHEXBertConfig`.

    Raises ValueError for a model of another type, and where weights of the body are missing.
    """
    found = model_type_of(source, revision)
    if found not in ("bert", MHEXBertConfig.model_type):
        raise ValueError(f"source={fspath(source)!r} is a {found!r} model; MHEX-BERT starts from a 'bert'.")
    fields = label_fields(num_labels, config_fields)
    model, info = MHEXBertForSequenceClassification.from_pretrained(
        source, revision=revision, output_loading_info=True, ignore_mismatched_sizes=True, **fields
    )
    new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    foreign = sorted(key for key in new if ".gate." not in key and not key.startswith("heads."))
    if foreign:
        raise ValueError(
            f"source={fspath(source)!r} lacks {len(foreign)} of the body's weights or has them in another shape, among "
            f"them {', '.join(foreign[:3])}."
        )
    keys = list(model.state_dict())
    report = ConversionReport(
        used=tuple(key for key in keys if key not in new),
        new=tuple(key for key in keys if key in new),
        unused=tuple(sorted(info["unexpected_keys"])),
    )
    return (model, report) if output_loading_info else model


def label_fields(num_labels: int | None, fields: dict) -> dict:
    """Config fields with `num_labels`, `id2label` and `label2id` in agreement; ValueError where they contradict."""
    names = fields.get("id2label")
    if names is None:
        return fields if num_labels is None else {**fields, "num_labels": num_labels}
    names = {int(index): str(name) for index, name in names.items()}
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"id2label must name the labels 0 to {len(names) - 1}, got {sorted(names)}.")
    if len(set(names.values())) < len(names):
        raise ValueError(f"id2label must give every label a name of its own, got {list(names.values())}.")
    if num_labels not in (None, len(names)):
        raise ValueError(f"num_labels={num_labels} contradicts id2label, which names {len(names)} labels.")
    return {**fields, "id2label": names, "label2id": {name: index for index, name in names.items()}}
