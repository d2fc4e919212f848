"""Configuration of MHEX-ViT."""

from typing import TYPE_CHECKING

from transformers import PretrainedConfig

from .mhex_config import MHEXConfigMixin, TrunkConfigMixin

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXViTConfig(TrunkConfigMixin, MHEXConfigMixin, PretrainedConfig):
    """Fields of `TrunkConfigMixin` and `MHEXConfigMixin`, for a network of timm's `VisionTransformer` class.

    Args:
        layer_norm_eps: of every LayerNorm; None for timm's own.

    Raises TypeError or ValueError for a trunk that cannot be.
    """

    model_type = "mhex_vit"
    saliency_task = "image-saliency"
    trunk_arguments: tuple[str, ...] = (
        "img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm", "init_values",
        "class_token", "reg_tokens", "no_embed_class", "pre_norm", "dynamic_img_size", "global_pool", "fc_norm",
        "act_layer", "drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate",
    )  # fmt: skip

    architecture: str = "vit_small_patch16_224"
    layer_norm_eps: float | None = None

    def check_fields(self) -> None:
        """Raise TypeError or ValueError for a field that cannot be."""
        super().check_fields()
        eps = self.layer_norm_eps
        if eps is not None and (not isinstance(eps, float) or not 0 < eps < float("inf")):
            raise ValueError(f"layer_norm_eps must be None or a positive float, got {eps!r}; timm's own is None.")
