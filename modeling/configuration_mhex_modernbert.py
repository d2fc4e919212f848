"""Configuration of MHEX-ModernBert."""

from typing import TYPE_CHECKING

from transformers import ModernBertConfig

from .mhex_config import MHEXConfigMixin

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXModernBertConfig(MHEXConfigMixin, ModernBertConfig):
    """Fields of `ModernBertConfig` and `MHEXConfigMixin`."""

    model_type = "mhex_modernbert"
    saliency_task = "text-saliency"
    oldest_transformers = "5.1.0"
