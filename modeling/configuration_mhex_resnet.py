"""Which settings does an MHEX-ResNet have? A timm architecture by name, its arguments, and the shared fields."""

from typing import Any

from transformers import PreTrainedConfig

from .mhex import MHEXConfigMixin
from .mhex_saving import CarriesPipelineMixin

ARCHITECTURE_KWARGS = {
    "layers", "channels", "cardinality", "base_width", "stem_width", "stem_type", "replace_stem_pool", "output_stride",
    "block_reduce_first", "down_kernel_size", "avg_down", "act_layer", "norm_layer", "block_args", "drop_path_rate",
    "drop_block_rate", "zero_init_last",
}  # fmt: skip


class MHEXResNetConfig(CarriesPipelineMixin, MHEXConfigMixin, PreTrainedConfig):
    """Configuration of MHEX-ResNet: the fields of `MHEXConfigMixin` and the trunk's.

    Args:
        architecture: name under which timm registers a network of its `ResNet` class ("resnet18", "resnet50d", ...).
        num_channels: channels of the input image.
        architecture_kwargs: arguments of timm's `ResNet` that change the registered architecture, as JSON values:
            `layers`, `channels`, `stem_type`, `output_stride`, `drop_path_rate` and others. Keys outside the known
            ones raise ValueError (what timm would take as a path, a class or a head is none of them).

    Raises TypeError or ValueError for a trunk that cannot be; the name itself is looked up when a model is made.
    """

    model_type = "mhex_resnet"
    saliency_task = "image-saliency"
    saliency_pipeline = "ImageSaliencyPipeline"
    saliency_body = "MHEXResNetModel"
    saliency_model = "AutoModelForImageClassification"

    architecture: str = "resnet18"
    num_channels: int = 3
    architecture_kwargs: dict[str, Any] | None = None

    def check_fields(self):
        """Raise TypeError or ValueError for a field that cannot be."""
        super().check_fields()
        if type(self.architecture) is not str:
            raise TypeError(f"architecture must be the name of a timm network, got {self.architecture!r}.")
        if type(self.num_channels) is not int or self.num_channels < 1:
            raise ValueError(f"num_channels must be an int of at least 1, got {self.num_channels!r}.")
        arguments = self.architecture_kwargs or {}
        unknown = sorted(set(arguments) - ARCHITECTURE_KWARGS)
        if unknown:
            raise ValueError(f"architecture_kwargs must be among {sorted(ARCHITECTURE_KWARGS)}; got {unknown}.")
        for name in ("layers", "channels"):
            value = arguments.get(name, (1, 1, 1, 1))
            if len(value) != 4 or not all(type(v) is int and v > 0 for v in value):
                raise ValueError(f"architecture_kwargs[{name!r}] must be four positive ints, one a stage; got {value}.")
