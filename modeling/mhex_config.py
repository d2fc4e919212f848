"""Configuration fields that all MHEX families share."""

import math
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import transformers
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

VERSION = "0.2.0"
RETIRED_FIELDS = ("head_std",)
PROBLEMS = (None, "single_label_classification", "multi_label_classification", "regression")
PREPROCESSING = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")  # of timm's data config
PIPELINES = {  # task: class in pipeline_mhex.py, Auto class of its model
    "image-saliency": ("ImageSaliencyPipeline", "AutoModelForImageClassification"),
    "text-saliency": ("TextSaliencyPipeline", "AutoModelForSequenceClassification"),
    "signal-saliency": ("SignalSaliencyPipeline", "AutoModelForAudioClassification"),
}


@dataclass(kw_only=True, init=False)  # releases before 5.4 make configurations without dataclasses
class MHEXConfigMixin:
    """Fields of every MHEX configuration.

    Args:
        gate_scale: factor on the sigmoid of the attention gate; with 2 a gate starts at exactly 1.
        head_decay: block b of B weighs `head_decay ** (B - 1 - b)` in the model's logits; 0 is the last block alone.
        deep_supervision_weight: factor on the sum of the blocks' own losses.
        label_smoothing: share of the target spread evenly over the labels, in [0, 1); classification only.
        class_weights: factor on the loss of each label, K numbers; with several labels, of present ones.
        rectified: gates, heads and maps read ReLU(x + f) instead of x + f.
        binary_share: share of the loss of single labels that is a binary cross-entropy over all labels.
        instance_share: share of an absent label's binary loss that is taken at every position (`absent_loss`).
        gate_rank: rank of W1 where `2 * gate_rank` is below the channels; None for a full W1; "auto" for a full one
            except in blocks to which it would add more than 15 % (ResNet's bottlenecks).
        mhex_version: version of the code that wrote the configuration.

    Raises TypeError or ValueError naming the field, and ImportError on a transformers that is too old for the family.
    """

    gate_scale: float | int = 2.0
    head_decay: float | int = 0.5
    deep_supervision_weight: float | int = 1.0
    label_smoothing: float | int = 0.0
    class_weights: list[float] | None = None
    rectified: bool = False
    binary_share: float | int = 0.0
    instance_share: float | int = 0.0
    gate_rank: int | str | None = "auto"
    mhex_version: str = VERSION

    keys_to_ignore_at_inference = ["block_logits", "block_losses", "hidden_states", "attentions"]
    saliency_task = ""
    oldest_transformers = "5.0.0"  # the first whose text models hand the arguments of a pass down to their layers
    _auto_class = "AutoConfig"

    @classmethod
    def paper(cls, **kwargs):
        """The paper's setting: gates start at 1/2, the last head decides, every head's loss has weight 1."""
        return cls(**{"gate_scale": 1.0, "head_decay": 0.0, "deep_supervision_weight": 1.0, **kwargs})

    def __post_init__(self, **kwargs):
        if not type(self).__module__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            kwargs.pop("custom_pipelines", None)  # an installed package registers its own
        kwargs.pop("model_type", None)  # a converted checkpoint names the type that it was
        retired = [name for name in RETIRED_FIELDS if kwargs.pop(name, None) is not None]
        super().__post_init__(**kwargs)
        if retired:
            warnings.warn(f"{self.model_type}: the fields {', '.join(retired)} are no longer used.", stacklevel=3)
        if version_tuple(self.mhex_version) > version_tuple(VERSION):
            warnings.warn(
                f"{self.model_type}: written by hf-mhex {self.mhex_version}, read by {VERSION}; fields that {VERSION} "
                "does not know have no effect.",
                stacklevel=3,
            )
        self.check_fields()

    def to_dict(self) -> dict:
        """The fields as saved; a classifier's name the pipeline and the body that travel with it."""
        found = super().to_dict() | {"mhex_version": VERSION}
        found.pop("custom_pipelines", None)  # `pipeline` puts classes there, which no JSON takes
        if self.saliency_task and any("For" in name for name in self.architectures or ()):
            pipeline, auto_class = PIPELINES[self.saliency_task]
            found["custom_pipelines"] = {self.saliency_task: {"impl": f"pipeline_mhex.{pipeline}", "pt": [auto_class]}}
            if found.get("auto_map"):
                body = type(self).__name__.removesuffix("Config") + "Model"
                found["auto_map"] = {**found["auto_map"], "AutoModel": f"modeling_{self.model_type}.{body}"}
        return found

    def check_fields(self) -> None:
        """Raise TypeError or ValueError for a field that cannot be. Models call it too, since loading sets fields."""
        if version_tuple(transformers.__version__) < version_tuple(self.oldest_transformers):
            raise ImportError(
                f"{self.model_type} needs transformers {self.oldest_transformers} or newer, "
                f"got {transformers.__version__}."
            )
        for name, low, high in (
            ("gate_scale", 1e-6, float("inf")),
            ("head_decay", 0, 1),
            ("deep_supervision_weight", 0, float("inf")),
            ("label_smoothing", 0, 1 - 1e-6),
            ("binary_share", 0, 1),
            ("instance_share", 0, 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, got {value!r}.")
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], got {value}.")
        if self.problem_type not in PROBLEMS:
            raise ValueError(
                f"problem_type must be one of {', '.join(map(repr, PROBLEMS))}; got {self.problem_type!r}."
            )
        if type(self.rectified) is not bool:
            raise TypeError(f"rectified must be True or False, got {self.rectified!r}.")
        if self.gate_rank not in (None, "auto") and (type(self.gate_rank) is not int or self.gate_rank < 1):
            raise ValueError(f'gate_rank must be None or an int of at least 1, or "auto", got {self.gate_rank!r}.')
        weights = self.class_weights
        if weights is not None and (len(weights) != self.num_labels or not all(weight >= 0 for weight in weights)):
            raise ValueError(f"class_weights must be {self.num_labels} numbers of at least 0, got {weights!r}.")


@dataclass(kw_only=True, init=False)  # releases before 5.4 make configurations without dataclasses
class TrunkConfigMixin:
    """Fields of a network that timm builds.

    Args:
        architecture: name under which timm registers it, with or without a tag.
        num_channels: channels of the input image.
        architecture_kwargs: arguments of timm's network class, as JSON values. `trunk_arguments` are known.
        preprocessing: how the source's images were made, in the fields of timm's data config (`PREPROCESSING`);
            `hf_mhex.image_processor_for` takes what is left out from `architecture`.

    Raises TypeError or ValueError naming the field; the name is looked up when a model is made.
    """

    architecture: str = ""
    num_channels: int = 3
    architecture_kwargs: dict[str, Any] | None = None
    preprocessing: dict[str, Any] | None = None

    trunk_arguments: tuple[str, ...] = ()
    oldest_transformers = "4.57.0"

    def check_fields(self) -> None:
        """Raise TypeError or ValueError for a field that cannot be."""
        super().check_fields()
        if type(self.architecture) is not str:
            raise TypeError(f"architecture must be the name of a timm network, got {self.architecture!r}.")
        if type(self.num_channels) is not int or self.num_channels < 1:
            raise ValueError(f"num_channels must be an int of at least 1, got {self.num_channels!r}.")
        unknown = sorted(set(self.architecture_kwargs or ()) - set(self.trunk_arguments))
        if unknown:
            raise ValueError(f"architecture_kwargs must be among {sorted(self.trunk_arguments)}; got {unknown}.")
        unknown = sorted(set(self.preprocessing or ()) - set(PREPROCESSING))
        if unknown:
            raise ValueError(f"preprocessing must be among {sorted(PREPROCESSING)}; got {unknown}.")
        size = (self.preprocessing or {}).get("input_size", [3, 1, 1])
        if not isinstance(size, (list, tuple)) or len(size) != 3:
            raise ValueError(f"preprocessing's input_size must be [channels, height, width], got {size!r}.")


def version_tuple(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (0, 2, 0) for "0.2.0.dev1"."""
    return tuple(int(part) for part in str(version).split(".")[:3] if part.isdecimal())


def check_axis(axis) -> None:
    """Raise ValueError unless an axis is None or at least two finite numbers that rise, or fall, throughout."""
    if axis is None:
        return
    if len(axis) < 2 or not all(math.isfinite(place) for place in axis):
        raise ValueError(f"axis must be at least two finite numbers, or None; got {list(axis)[:5]} ...")
    steps = [after - before for before, after in pairwise(axis)]
    if not (all(step > 0 for step in steps) or all(step < 0 for step in steps)):
        rising = axis[-1] > axis[0]
        place = next(number for number, step in enumerate(steps) if (step > 0) != rising or step == 0)
        raise ValueError(
            f"axis must rise or fall throughout, but goes from {axis[place]} to {axis[place + 1]} at point "
            f"{place}; sort the points and the signals' columns alike."
        )
