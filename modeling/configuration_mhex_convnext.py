"""Configuration of MHEX-ConvNeXt."""

from typing import TYPE_CHECKING

from transformers import PretrainedConfig

from .mhex_config import MHEXConfigMixin, TrunkConfigMixin

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXConvNeXtConfig(TrunkConfigMixin, MHEXConfigMixin, PretrainedConfig):
    """Fields of `TrunkConfigMixin` and `MHEXConfigMixin`, for a network of timm's `ConvNeXt` class."""

    model_type = "mhex_convnext"
    saliency_task = "image-saliency"
    trunk_arguments: tuple[str, ...] = (
        "depths", "dims", "kernel_sizes", "ls_init_value", "stem_type", "patch_size", "output_stride", "conv_mlp",
        "use_grn", "act_layer", "norm_layer", "drop_path_rate",
    )  # fmt: skip

    architecture: str = "convnext_tiny"
