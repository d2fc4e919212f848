"""Configuration of MHEX-ResNet."""

from typing import TYPE_CHECKING

from transformers import PretrainedConfig

from .mhex_config import MHEXConfigMixin, TrunkConfigMixin

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXResNetConfig(TrunkConfigMixin, MHEXConfigMixin, PretrainedConfig):
    """Fields of `TrunkConfigMixin` and `MHEXConfigMixin`, for a network of timm's `ResNet` class.

    Raises TypeError or ValueError for a trunk that cannot be.
    """

    model_type = "mhex_resnet"
    saliency_task = "image-saliency"
    trunk_arguments: tuple[str, ...] = (
        "layers", "channels", "cardinality", "base_width", "stem_width", "stem_type", "replace_stem_pool",
        "output_stride", "block_reduce_first", "down_kernel_size", "avg_down", "act_layer", "norm_layer", "block_args",
        "drop_path_rate", "drop_block_rate", "zero_init_last",
    )  # fmt: skip

    architecture: str = "resnet18"

    def check_fields(self) -> None:
        """Raise TypeError or ValueError for a field that cannot be."""
        super().check_fields()
        for name in ("layers", "channels"):
            value = (self.architecture_kwargs or {}).get(name, (1, 1, 1, 1))
            if len(value) != 4 or not all(type(v) is int and v > 0 for v in value):
                raise ValueError(f"architecture_kwargs[{name!r}] must be four positive ints, one a stage; got {value}.")
