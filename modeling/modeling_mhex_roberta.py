"""MHEX-RoBERTa: RoBERTa, XLM-R and CamemBERT with a gate before every layer's last LayerNorm, and a head a layer."""

from typing import TYPE_CHECKING

import torch
from transformers.models.roberta.modeling_roberta import RobertaLayer, RobertaModel, RobertaPreTrainedModel

from .configuration_mhex_roberta import MHEXRobertaConfig
from .mhex import MHEXPreTrainedMixin
from .mhex_blocks import add_gates, make_reversible
from .mhex_texts import GatedBertLayer, MHEXTextBody, MHEXTextClassifier

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXRobertaLayer(GatedBertLayer, RobertaLayer):
    """RoBERTa's layer with a gate."""


class MHEXRobertaPreTrainedModel(MHEXPreTrainedMixin, RobertaPreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXRobertaConfig
    config_class = MHEXRobertaConfig
    base_model_prefix = "roberta"
    _no_split_modules = ["RobertaEmbeddings", "MHEXRobertaLayer"]


class MHEXRobertaModel(MHEXTextBody, RobertaModel):
    """RoBERTa's body with a gate in every layer. With every W1 at 0 it is `RobertaModel`, exactly."""

    config: MHEXRobertaConfig
    config_class = MHEXRobertaConfig
    _no_split_modules = MHEXRobertaPreTrainedModel._no_split_modules

    def __init__(self, config: MHEXRobertaConfig, add_pooling_layer: bool = True):
        super().__init__(config, add_pooling_layer)
        config.check_fields()
        layers = self.encoder.layer
        add_gates(dict.fromkeys(layers, MHEXRobertaLayer), [config.hidden_size] * len(layers), config)
        for layer in layers:
            make_reversible(layer.attention.output.dense)
        self.post_init()

    @property
    def max_tokens(self) -> int:
        """Longest input: positions start behind the padding's, so that 512 of 514 are usable."""
        return self.config.max_position_embeddings - self.config.pad_token_id - 1

    def positions_of(self, input_ids: torch.LongTensor) -> torch.LongTensor:
        """Position ids of tokens [B, T], counted without the padding, which may stand on either side."""
        real = (input_ids != self.config.pad_token_id).long()
        return real.cumsum(1) * real + self.config.pad_token_id

    @property
    def blocks(self):
        """The gated layers in order."""
        return list(self.encoder.layer)


class MHEXRobertaForSequenceClassification(MHEXTextClassifier, MHEXRobertaPreTrainedModel):
    """Text classification by the heads of MHEX-RoBERTa, with `generate_saliency` over tokens."""

    body_class = MHEXRobertaModel
    body_options = {"add_pooling_layer": False}
