"""Configuration of MHEX-Toy."""

from typing import TYPE_CHECKING

from .mhex_config import MHEXConfigMixin
from .plain_toy import ToyConfig

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXToyConfig(MHEXConfigMixin, ToyConfig):
    """Fields of `ToyConfig` and `MHEXConfigMixin`."""

    model_type = "mhex_toy"
    saliency_task = "text-saliency"
