"""MHEX-DeBERTa: DeBERTa v2 and v3 with a gate before every layer's last LayerNorm, and a head a layer."""

from typing import TYPE_CHECKING

import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Layer,
    DebertaV2Model,
    DebertaV2PreTrainedModel,
)

from .configuration_mhex_deberta_v2 import MHEXDebertaV2Config
from .mhex import MHEXPreTrainedMixin
from .mhex_blocks import GatedBlock, Trace, add_gates
from .mhex_texts import MHEXTextBody, MHEXTextClassifier

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXDebertaV2Layer(GatedBlock, DebertaV2Layer):
    """DeBERTa's layer with `LayerNorm(g * (x + f))` at its end: x the attention's output, f the feed-forward's."""

    channel_axis = -1

    def forward(
        self, hidden_states, attention_mask, trace: Trace | None = None, attentions: list | None = None, **kwargs
    ):
        """hidden_states [B, T, C] to those of the next layer; attention weights are added to `attentions`."""
        trace = Trace() if trace is None else trace
        x, weights = self.attention(hidden_states, attention_mask, output_attentions=attentions is not None, **kwargs)
        if attentions is not None:
            attentions.append(weights)
        z = self.output.dropout(self.output.dense(self.intermediate(x))) + x
        return self.output.LayerNorm(self.gated(z, trace=trace) * z)


class MHEXDebertaV2PreTrainedModel(MHEXPreTrainedMixin, DebertaV2PreTrainedModel):
    """Loading, saving and the start of new weights."""

    config: MHEXDebertaV2Config
    config_class = MHEXDebertaV2Config
    base_model_prefix = "deberta"
    _no_split_modules = ["DebertaV2Embeddings", "MHEXDebertaV2Layer"]


class MHEXDebertaV2Model(MHEXTextBody, DebertaV2Model):
    """DeBERTa's body with a gate in every layer. With every W1 at 0 it is `DebertaV2Model`, exactly."""

    config: MHEXDebertaV2Config
    config_class = MHEXDebertaV2Config
    _no_split_modules = MHEXDebertaV2PreTrainedModel._no_split_modules
    can_roll_out = False  # a share of disentangled attention is not defined

    def __init__(self, config: MHEXDebertaV2Config):
        super().__init__(config)
        config.check_fields()
        layers = self.encoder.layer
        add_gates(dict.fromkeys(layers, MHEXDebertaV2Layer), [config.hidden_size] * len(layers), config)
        self.post_init()

    @property
    def blocks(self):
        """The gated layers in order."""
        return list(self.encoder.layer)

    def relative_embeddings(self, device: torch.device) -> torch.Tensor | None:
        """DeBERTa's `get_rel_embedding`, whose table is read in a call of its module."""
        encoder = self.encoder
        if not encoder.relative_attention:
            return None
        found = encoder.rel_embeddings(torch.arange(encoder.rel_embeddings.num_embeddings, device=device))
        return encoder.LayerNorm(found) if "layer_norm" in encoder.norm_rel_ebd else found

    def run(self, trace: Trace, inputs: dict, options: dict) -> BaseModelOutput:
        """DeBERTa's forward; its own hands nothing down to the layers."""
        ids, mask, embeds = (inputs.pop(name) for name in ("input_ids", "attention_mask", "inputs_embeds"))
        given = ids if embeds is None else embeds
        if mask is None:
            mask = torch.ones(given.shape[:2], device=given.device)
        mask = mask.to(torch.long)
        x = self.embeddings(input_ids=ids, inputs_embeds=embeds, mask=mask, **inputs)
        encoder, first = self.encoder, x
        positions = encoder.get_rel_pos(x)
        both, relative = encoder.get_attention_mask(mask), self.relative_embeddings(x.device)
        asked = {name: value for name, value in options.items() if value is not None}
        attentions: list | None = [] if asked.get("output_attentions", self.config.output_attentions) else None
        states = [x] if asked.get("output_hidden_states", self.config.output_hidden_states) else None
        for number, layer in enumerate(encoder.layer):
            x = layer(x, both, trace=trace, attentions=attentions, relative_pos=positions, rel_embeddings=relative)
            if number == 0 and encoder.conv is not None:
                x = encoder.conv(first, x, mask)
            if states is not None:
                states.append(x)
        return BaseModelOutput(
            last_hidden_state=x,
            hidden_states=tuple(states) if states is not None else None,
            attentions=tuple(attentions) if attentions is not None else None,
        )


class MHEXDebertaV2ForSequenceClassification(MHEXTextClassifier, MHEXDebertaV2PreTrainedModel):
    """Text classification by the heads of MHEX-DeBERTa, with `generate_saliency` over tokens."""

    body_class = MHEXDebertaV2Model
