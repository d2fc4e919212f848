"""Configuration of MHEX-Swin."""

from typing import TYPE_CHECKING

from transformers import PretrainedConfig

from .mhex_config import MHEXConfigMixin, TrunkConfigMixin

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXSwinConfig(TrunkConfigMixin, MHEXConfigMixin, PretrainedConfig):
    """Fields of `TrunkConfigMixin` and `MHEXConfigMixin`, for a network of timm's `SwinTransformer` class."""

    model_type = "mhex_swin"
    saliency_task = "image-saliency"
    trunk_arguments: tuple[str, ...] = (
        "img_size", "patch_size", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "qkv_bias",
        "strict_img_size", "always_partition", "drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate",
    )  # fmt: skip

    architecture: str = "swin_tiny_patch4_window7_224"
