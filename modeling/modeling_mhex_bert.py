"""How does BERT become MHEX-BERT? Its layers get a gate before the last LayerNorm, its classifier a head each."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.bert.modeling_bert import (
    BertEmbeddings,
    BertLayer,
    BertPooler,
    BertPreTrainedModel,
    BertSelfAttention,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_mhex_bert import MHEXBertConfig
from .mhex import (
    AttentionGate,
    Head,
    MHEXClassifierMixin,
    MHEXClassifierOutput,
    MHEXModelOutput,
    WideLinear,
)
from .mhex_maps import Features, wide


class MHEXBertLayer(BertLayer):
    """BERT's layer with `LayerNorm(g * (x + f))` at its end: x the attention's output, f the feed-forward branch's."""

    def __init__(self, config: MHEXBertConfig, layer_idx: int | None = None):
        super().__init__(config, layer_idx)
        self.gate = AttentionGate(config.hidden_size, config)

    def attended(
        self, x: torch.Tensor, valid: torch.Tensor | None, rollout: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """LayerNorm(y) of y = x + attention(x), x [B, T, C], and y's shares of the text's tokens for x's, [B, T, T].

        y_i at token i (biases left out) has a part for each token j: A_ij W_O v_j over the heads, and x_i itself for
        j = i. A part's share is its projection on y_i over |y_i|^2, so that shares sum to 1. They are multiplied by
        `rollout`, those of x, in float32 or wider. In eval mode. Raises ValueError where W_O is quantised.
        """
        attend, output = self.attention.self, self.attention.output
        weight = output.dense.weight
        if not (torch.is_tensor(weight) and weight.is_floating_point()):
            raise ValueError("rollout=True reads the attention's output weights, which are quantised here; use False.")
        heads = (*x.shape[:2], attend.num_attention_heads, attend.attention_head_size)
        dtype = wide(x.dtype)
        query, key, value = (
            part(x).view(heads).transpose(1, 2).to(dtype) for part in (attend.query, attend.key, attend.value)
        )
        with maybe_autocast(x.device.type, enabled=False):
            scores = (attend.scaling * query) @ key.mT
            if valid is not None:
                scores = scores.masked_fill(~valid[:, None, None], torch.finfo(dtype).min)
            attention = scores.softmax(-1)
            context = (attention @ value).transpose(1, 2).flatten(2).to(x.dtype)
        mixed = output.dense(context)
        shortcut = output.LayerNorm(mixed + x)
        with maybe_autocast(x.device.type, enabled=False):
            x = x.to(dtype)
            y = x + (mixed.to(dtype) - output.dense.bias.to(dtype))
            back = F.linear(y, weight.to(dtype).mT).view(heads).transpose(1, 2)  # <W_O v, y> = <v, W_O^T y> by heads
            parts = (attention * (back @ value.mT)).sum(1) + torch.diag_embed((x * y).sum(-1))
            return shortcut, parts / parts.sum(-1, keepdim=True) @ rollout

    def forward(
        self, hidden_states, attention_mask=None, valid=None, explain: Callable | None = None, rollout=None, **kwargs
    ):
        """hidden_states [B, T, C] to those of the next layer, a [B, C], what `explain(Features)` returned, `rollout`.

        rollout: shares [B, T, T] of the text's tokens in hidden_states, None to do without. It becomes `attended`'s
        and goes into `Features`, as does valid [B, T].
        """
        if rollout is None:
            shortcut, _ = self.attention(hidden_states, attention_mask, **kwargs)
        else:
            shortcut, rollout = self.attended(hidden_states, valid, rollout)
        branch = self.output.dropout(self.output.dense(self.intermediate(shortcut)))
        z = shortcut + branch
        read = self.gate.read(z.transpose(1, 2))
        p, scores, gate = self.gate(read, valid)
        explanation = explain(Features(read, p, valid, rollout=rollout)) if explain else None
        return self.output.LayerNorm(gate[:, None] * z), scores, explanation, rollout


class MHEXBertEncoder(nn.Module):
    """The layers in a row."""

    def __init__(self, config: MHEXBertConfig):
        super().__init__()
        self.layer = nn.ModuleList([MHEXBertLayer(config, layer_idx=i) for i in range(config.num_hidden_layers)])

    def forward(
        self, hidden_states, attention_mask=None, valid=None, explain: Callable | None = None, rollout=False, **kwargs
    ):
        """hidden_states [B, T, C] to the last layer's, each layer's a [B, C] and what `explain` returned for it.

        With `rollout` each layer's `Features` have the shares of the text's tokens.
        """
        scores, explanations = [], []
        tokens, dtype = hidden_states.shape[1], wide(hidden_states.dtype)
        shares = torch.eye(tokens, dtype=dtype, device=hidden_states.device) if rollout else None
        for block, layer in enumerate(self.layer):
            explain_block = partial(explain, block) if explain else None
            hidden_states, a, explanation, shares = layer(
                hidden_states, attention_mask, valid, explain_block, shares, **kwargs
            )
            scores.append(a)
            explanations.append(explanation)
        return hidden_states, tuple(scores), tuple(explanations)


class MHEXBertPreTrainedModel(BertPreTrainedModel):
    """Loading, saving and the start of new weights: gates at W1 = 0, heads large (`Head`), the rest as BERT."""

    config: MHEXBertConfig
    config_class = MHEXBertConfig
    base_model_prefix = "bert"
    _no_split_modules = ["BertEmbeddings", "MHEXBertLayer"]
    _can_record_outputs = {"hidden_states": MHEXBertLayer, "attentions": BertSelfAttention}

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, WideLinear):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class MHEXBertModel(MHEXBertPreTrainedModel):
    """BERT's body with a gate in every layer (arXiv 2501.01311). With every W1 at 0 it is `BertModel`, exactly."""

    def __init__(self, config: MHEXBertConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        config.check_fields()
        self.embeddings = BertEmbeddings(config)
        self.encoder = MHEXBertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    @property
    def gates(self) -> list[AttentionGate]:
        """The attention gates in block order."""
        return [layer.gate for layer in self.encoder.layer]

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        explain: Callable | None = None,
        rollout: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MHEXModelOutput:
        """As `BertModel`; `attention_mask` is [B, T] (non-zero: valid) or extended, [B, 1, 1, T].

        Args:
            explain: called as `explain(block, Features)` while each block passes; its answers come as `explanations`.
            rollout: give `Features.rollout` too, see `MHEXBertLayer.attended`; in eval mode.

        Raises ValueError or TypeError for inputs that do not fit the model.
        """
        check_text(input_ids, inputs_embeds, position_ids, self.config)
        embedded = self.embeddings(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
        )
        valid = valid_positions(attention_mask, embedded.shape[:2])
        hidden_states, scores, explanations = self.encoder(
            embedded,
            create_bidirectional_mask(config=self.config, inputs_embeds=embedded, attention_mask=attention_mask),
            valid,
            explain,
            rollout,
            **kwargs,
        )
        return MHEXModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=self.pooler(hidden_states) if self.pooler is not None else None,
            gate_scores=scores,
            valid_positions=valid if explain else None,
            explanations=explanations if explain else None,
        )


class MHEXBertForSequenceClassification(MHEXClassifierMixin, MHEXBertPreTrainedModel):
    """Text classification by the heads of MHEX-BERT, with `generate_saliency` over tokens."""

    accepts_loss_kwargs = True

    def __init__(self, config: MHEXBertConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = MHEXBertModel(config, add_pooling_layer=False)
        self.heads = nn.ModuleList([Head(config.hidden_size, config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MHEXClassifierOutput:
        """Logits [B, K] of tokens [B, T] and, with `labels` ([B] ints or [B, K] floats), the deep-supervision loss.

        Args:
            num_items_in_batch: what the loss's sum is divided by (Trainer's count over accumulated batches).

        Raises ValueError or TypeError for inputs or labels that do not fit the model.
        """
        by_position = labels is not None and self.config.instance_share > 0
        outputs = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            explain=self._absent_loss if by_position else None,
            return_dict=True,
            **kwargs,
        )
        absent_losses = torch.stack(outputs.explanations, dim=1) if by_position else None
        answer = self._classify(outputs, labels, num_items_in_batch, absent_losses)
        if answer.loss is not None:  # no head reads the last LayerNorm, but DDP waits for a gradient of every weight
            answer.loss = answer.loss + 0 * outputs.last_hidden_state[:, 0, 0].sum()
        return answer

    def _read_inputs(self, inputs: dict) -> tuple[int, None]:
        ids, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
        check_text(ids, embeds, inputs.get("position_ids"), self.config)
        if not torch.compiler.is_compiling():
            if ids is not None and not 0 <= int(ids.min()) <= int(ids.max()) < self.config.vocab_size:
                raise ValueError(
                    f"input_ids must lie in [0, {self.config.vocab_size - 1}], the model's vocabulary; got "
                    f"{int(ids.min())} to {int(ids.max())}. Use the model's own tokenizer."
                )
            if embeds is not None and not embeds.isfinite().all():
                raise ValueError("inputs_embeds must be finite, got NaN or infinity.")
        return (embeds if ids is None else ids).shape[0], None


def check_text(input_ids, inputs_embeds, position_ids, config: MHEXBertConfig) -> None:
    """Raise ValueError or TypeError unless exactly one of input_ids [B, T], inputs_embeds [B, T, C] fits the model."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("exactly one of input_ids and inputs_embeds must be given.")
    name, ndim = ("input_ids", 2) if inputs_embeds is None else ("inputs_embeds", 3)
    given = input_ids if inputs_embeds is None else inputs_embeds
    if given.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions (batch first), got shape {list(given.shape)}.")
    if given.is_floating_point() != (ndim == 3):
        raise TypeError(f"{name} must be {'floats' if ndim == 3 else 'integers'}, got {given.dtype}.")
    if given.shape[0] == 0 or given.shape[1] == 0:
        raise ValueError(f"{name} must hold at least one row and one token, got shape {list(given.shape)}.")
    if position_ids is None and given.shape[1] > config.max_position_embeddings:
        raise ValueError(
            f"{name} has {given.shape[1]} tokens, but the model has {config.max_position_embeddings} positions; "
            "tokenize with truncation=True or explain the text in parts."
        )


def valid_positions(attention_mask: torch.Tensor | None, shape: tuple[int, int]) -> torch.BoolTensor | None:
    """The tokens [B, T] that are no padding: non-zero in a [B, T] mask; in an extended one, [B, 1, 1, T], True or 0.0.

    Raises ValueError for a mask that differs between queries: which tokens are padding cannot be told from it.
    """
    if attention_mask is None:
        return None
    if tuple(attention_mask.shape) == tuple(shape):
        return attention_mask != 0
    extended = attention_mask.ndim == 4 and tuple(attention_mask.shape[1:]) == (1, 1, shape[1])
    if extended and attention_mask.shape[0] in (1, shape[0]):
        if attention_mask.dtype == torch.bool:
            return attention_mask[:, 0, 0].expand(tuple(shape))
        if attention_mask.is_floating_point():
            return (attention_mask[:, 0, 0] == 0).expand(tuple(shape))
    raise ValueError(
        f"attention_mask must be [batch, tokens] = {list(shape)}, or extended [batch, 1, 1, tokens] as bools or as "
        f"floats to add, so that padding can be left out of the pooling; got {attention_mask.dtype} with shape "
        f"{list(attention_mask.shape)}."
    )
