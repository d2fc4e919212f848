"""MHEX-ModernBERT: ModernBERT with a gate on every layer's second shortcut, and a head a layer."""

from typing import TYPE_CHECKING

import torch
from transformers.models.modernbert.modeling_modernbert import (
    ModernBertEncoderLayer,
    ModernBertModel,
    ModernBertPreTrainedModel,
    apply_rotary_pos_emb,
)

from .configuration_mhex_modernbert import MHEXModernBertConfig
from .mhex import MHEXPreTrainedMixin
from .mhex_blocks import GatedBlock, Trace, add_gates, attend, make_reversible
from .mhex_texts import MHEXTextBody, MHEXTextClassifier

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXModernBertLayer(GatedBlock, ModernBertEncoderLayer):
    """ModernBERT's layer that ends in g * x + f: x the stream after attention, f the feed-forward branch."""

    channel_axis = -1

    def attention_with_shares(self, x, position_embeddings, trace: Trace):
        """`self.attn` in eval mode, computed plainly, with its shares given to the trace."""
        attn, normed = self.attn, self.attn_norm(x)
        query, key, value = attn.Wqkv(normed).unflatten(-1, (3, -1, attn.head_dim)).unbind(-3)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        near = {"valid": None if trace.valid is None else trace.valid.to(x.device), "window": attn.sliding_window}
        return attend(trace, self.block, x, query, key, value, attn.head_dim**-0.5, attn.Wo, **near)

    def forward(
        self, hidden_states, attention_mask=None, position_embeddings=None, trace: Trace | None = None, **kwargs
    ):
        """hidden_states [B, T, C] to those of the next layer."""
        trace = Trace() if trace is None else trace
        if self.shows_shares(hidden_states, trace, position_embeddings=position_embeddings):
            mixed = self.attention_with_shares(hidden_states, position_embeddings, trace)
        else:
            mixed = self.attn(
                self.attn_norm(hidden_states),
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                **kwargs,
            )[0]
        if trace.take:
            return mixed
        x = hidden_states + mixed
        f = self.mlp(self.mlp_norm(x))
        return torch.addcmul(f, self.gated(x, f, trace=trace), x)


class MHEXModernBertPreTrainedModel(MHEXPreTrainedMixin, ModernBertPreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXModernBertConfig
    config_class = MHEXModernBertConfig
    base_model_prefix = "model"
    _no_split_modules = ["ModernBertEmbeddings", "MHEXModernBertLayer"]
    _supports_flash_attn = False  # gates pool by the mask of padded rows; unpadded ones are untried


class MHEXModernBertModel(MHEXTextBody, ModernBertModel):
    """ModernBERT's body with a gate in every layer. With every W1 at 0 it is `ModernBertModel`, exactly."""

    config: MHEXModernBertConfig
    config_class = MHEXModernBertConfig
    _no_split_modules = MHEXModernBertPreTrainedModel._no_split_modules
    _supports_flash_attn = False
    has_segments = False

    def __init__(self, config: MHEXModernBertConfig):
        super().__init__(config)
        config.check_fields()
        add_gates(dict.fromkeys(self.layers, MHEXModernBertLayer), [config.hidden_size] * len(self.layers), config)
        for layer in self.layers:
            make_reversible(layer.attn.Wo)
        self.post_init()

    @property
    def blocks(self):
        """The gated layers in order."""
        return list(self.layers)


class MHEXModernBertForSequenceClassification(MHEXTextClassifier, MHEXModernBertPreTrainedModel):
    """Text classification by the heads of MHEX-ModernBERT, with `generate_saliency` over tokens."""

    body_class = MHEXModernBertModel
