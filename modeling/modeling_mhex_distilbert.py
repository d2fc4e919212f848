"""MHEX-DistilBERT: DistilBERT with a gate before every layer's last LayerNorm, and a head a layer."""

from typing import TYPE_CHECKING

from transformers.models.distilbert.modeling_distilbert import (
    DistilBertModel,
    DistilBertPreTrainedModel,
    TransformerBlock,
)

from .configuration_mhex_distilbert import MHEXDistilBertConfig
from .mhex import MHEXPreTrainedMixin
from .mhex_blocks import GatedBlock, Trace, add_gates, attend, make_reversible
from .mhex_texts import MHEXTextBody, MHEXTextClassifier

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXDistilBertLayer(GatedBlock, TransformerBlock):
    """DistilBERT's layer with `LayerNorm(g * (x + f))` at its end: x the attention's output, f the feed-forward's."""

    channel_axis = -1

    def attention_with_shares(self, x, trace: Trace):
        """`self.attention` in eval mode, computed plainly, with its shares given to the trace."""
        attention = self.attention
        heads = (attention.n_heads, attention.attention_head_size)
        parts = (part(x).unflatten(-1, heads) for part in (attention.q_lin, attention.k_lin, attention.v_lin))
        query, key, value = (part.transpose(1, 2) for part in parts)
        valid = None if trace.valid is None else trace.valid.to(x.device)
        return attend(trace, self.block, x, query, key, value, attention.scaling, attention.out_lin, valid=valid)

    def forward(self, hidden_states, attention_mask=None, trace: Trace | None = None, **kwargs):
        """hidden_states [B, T, C] to those of the next layer."""
        trace = Trace() if trace is None else trace
        if self.shows_shares(hidden_states, trace):
            mixed = self.attention_with_shares(hidden_states, trace)
        else:
            mixed = self.attention(hidden_states, attention_mask=attention_mask, **kwargs)[0]
        if trace.take:
            return mixed
        x = self.sa_layer_norm(mixed + hidden_states)
        z = self.ffn(x) + x
        return self.output_layer_norm(self.gated(z, trace=trace) * z)


class MHEXDistilBertPreTrainedModel(MHEXPreTrainedMixin, DistilBertPreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXDistilBertConfig
    config_class = MHEXDistilBertConfig
    base_model_prefix = "distilbert"
    _no_split_modules = ["Embeddings", "MHEXDistilBertLayer"]


class MHEXDistilBertModel(MHEXTextBody, DistilBertModel):
    """DistilBERT's body with a gate in every layer. With every W1 at 0 it is `DistilBertModel`, exactly."""

    config: MHEXDistilBertConfig
    config_class = MHEXDistilBertConfig
    _no_split_modules = MHEXDistilBertPreTrainedModel._no_split_modules
    has_segments = False

    def __init__(self, config: MHEXDistilBertConfig):
        super().__init__(config)
        config.check_fields()
        layers = self.transformer.layer
        add_gates(dict.fromkeys(layers, MHEXDistilBertLayer), [config.dim] * len(layers), config)
        for layer in layers:
            make_reversible(layer.attention.out_lin)
        self.post_init()

    @property
    def blocks(self):
        """The gated layers in order."""
        return list(self.transformer.layer)


class MHEXDistilBertForSequenceClassification(MHEXTextClassifier, MHEXDistilBertPreTrainedModel):
    """Text classification by the heads of MHEX-DistilBERT, with `generate_saliency` over tokens."""

    body_class = MHEXDistilBertModel
