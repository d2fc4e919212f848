"""Configuration of MHEX-ViT."""

from typing import TYPE_CHECKING

from transformers import PretrainedConfig

from .mhex_config import MHEXConfigMixin, TrunkConfigMixin

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXViTConfig(TrunkConfigMixin, MHEXConfigMixin, PretrainedConfig):
    """Fields of `TrunkConfigMixin` and `MHEXConfigMixin`, for a network of timm's `VisionTransformer` class."""

    model_type = "mhex_vit"
    saliency_task = "image-saliency"
    trunk_arguments = (
        "img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm", "init_values",
        "class_token", "reg_tokens", "no_embed_class", "pre_norm", "dynamic_img_size", "drop_rate", "drop_path_rate",
        "proj_drop_rate", "attn_drop_rate", "pos_drop_rate",
    )  # fmt: skip

    architecture: str = "vit_small_patch16_224"
