"""Configuration of MHEX-RoBERTa."""

from typing import TYPE_CHECKING

from transformers import RobertaConfig

from .mhex_config import MHEXConfigMixin

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXRobertaConfig(MHEXConfigMixin, RobertaConfig):
    """Fields of `RobertaConfig` and `MHEXConfigMixin`.

    Raises ValueError for `chunk_size_feed_forward` other than 0 (the gate needs the whole sequence) and for decoders.
    """

    model_type = "mhex_roberta"
    saliency_task = "text-saliency"

    def check_fields(self) -> None:
        """Raise TypeError or ValueError for a field that cannot be."""
        super().check_fields()
        if self.chunk_size_feed_forward != 0:
            raise ValueError(
                f"chunk_size_feed_forward must be 0, got {self.chunk_size_feed_forward}: the attention gate pools over "
                "the whole sequence, which chunks would cut."
            )
        if self.is_decoder or self.add_cross_attention:
            raise ValueError("is_decoder and add_cross_attention must be False: MHEX-RoBERTa is an encoder.")
