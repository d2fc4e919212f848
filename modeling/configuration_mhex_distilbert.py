"""Configuration of MHEX-DistilBert."""

from typing import TYPE_CHECKING

from transformers import DistilBertConfig

from .mhex_config import MHEXConfigMixin

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXDistilBertConfig(MHEXConfigMixin, DistilBertConfig):
    """Fields of `DistilBertConfig` and `MHEXConfigMixin`."""

    model_type = "mhex_distilbert"
    saliency_task = "text-saliency"
