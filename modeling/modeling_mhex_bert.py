"""MHEX-BERT: BERT with a gate before every layer's last LayerNorm, and a head a layer."""

from typing import TYPE_CHECKING

from transformers.models.bert.modeling_bert import BertLayer, BertModel, BertPreTrainedModel

from .configuration_mhex_bert import MHEXBertConfig
from .mhex import MHEXPreTrainedMixin
from .mhex_blocks import add_gates, make_reversible
from .mhex_texts import GatedBertLayer, MHEXTextBody, MHEXTextClassifier

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXBertLayer(GatedBertLayer, BertLayer):
    """BERT's layer with a gate."""


class MHEXBertPreTrainedModel(MHEXPreTrainedMixin, BertPreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXBertConfig
    config_class = MHEXBertConfig
    base_model_prefix = "bert"
    _no_split_modules = ["BertEmbeddings", "MHEXBertLayer"]


class MHEXBertModel(MHEXTextBody, BertModel):
    """BERT's body with a gate in every layer (arXiv 2501.01311). With every W1 at 0 it is `BertModel`, exactly."""

    config: MHEXBertConfig
    config_class = MHEXBertConfig
    _no_split_modules = MHEXBertPreTrainedModel._no_split_modules

    def __init__(self, config: MHEXBertConfig, add_pooling_layer: bool = True):
        super().__init__(config, add_pooling_layer)
        config.check_fields()
        layers = self.encoder.layer
        add_gates(dict.fromkeys(layers, MHEXBertLayer), [config.hidden_size] * len(layers), config)
        for layer in layers:
            make_reversible(layer.attention.output.dense)
        self.post_init()

    @property
    def blocks(self):
        """The gated layers in order."""
        return list(self.encoder.layer)


class MHEXBertForSequenceClassification(MHEXTextClassifier, MHEXBertPreTrainedModel):
    """Text classification by the heads of MHEX-BERT, with `generate_saliency` over tokens."""

    body_class = MHEXBertModel
    body_options = {"add_pooling_layer": False}
