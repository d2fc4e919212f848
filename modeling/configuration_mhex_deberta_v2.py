"""Configuration of MHEX-DebertaV2."""

from typing import TYPE_CHECKING

from transformers import DebertaV2Config

from .mhex_config import MHEXConfigMixin

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXDebertaV2Config(MHEXConfigMixin, DebertaV2Config):
    """Fields of `DebertaV2Config` and `MHEXConfigMixin`."""

    model_type = "mhex_deberta_v2"
    saliency_task = "text-saliency"
    oldest_transformers = "4.57.0"
