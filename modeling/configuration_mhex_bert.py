"""Which settings does an MHEX-BERT have? Those of BERT and the fields that both families share."""

from transformers import BertConfig

from .mhex import MHEXConfigMixin
from .mhex_saving import CarriesPipelineMixin


class MHEXBertConfig(CarriesPipelineMixin, MHEXConfigMixin, BertConfig):
    """Configuration of MHEX-BERT: the fields of `BertConfig` and of `MHEXConfigMixin`.

    Raises ValueError for `chunk_size_feed_forward` other than 0 (the gate needs the whole sequence) and for decoders.
    """

    model_type = "mhex_bert"
    saliency_task = "text-saliency"
    saliency_pipeline = "TextSaliencyPipeline"
    saliency_body = "MHEXBertModel"
    saliency_model = "AutoModelForSequenceClassification"

    def check_fields(self):
        """Raise TypeError or ValueError for a field that cannot be."""
        super().check_fields()
        if self.chunk_size_feed_forward != 0:
            raise ValueError(
                f"chunk_size_feed_forward must be 0, got {self.chunk_size_feed_forward}: the attention gate pools over "
                "the whole sequence, which chunks would cut."
            )
        if self.is_decoder or self.add_cross_attention:
            raise ValueError("is_decoder and add_cross_attention must be False: MHEX-BERT is an encoder.")
