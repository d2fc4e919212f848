"""Body and classifier of text models: which tokens count, and what inputs they take."""

from typing import TYPE_CHECKING

import torch

from .mhex import MHEXClassifierMixin, MHEXModelOutput, MHEXPreTrainedMixin, eval_view
from .mhex_blocks import GatedBlock, Trace, attend
from .mhex_maps import check_mask_token, check_names, refined_tokens

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_loss import deep_supervision_loss  # noqa: F401

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
OUTPUT_OPTIONS = ("output_attentions", "output_hidden_states")


class MHEXTextBody(MHEXPreTrainedMixin):
    """Mixin before a plain text model of transformers whose layers are gated.

    Args:
        has_segments: whether the plain model reads `token_type_ids`; others leave them out.
        can_roll_out: whether its layers give their shares (`attend`).
    """

    _auto_class = "AutoModel"
    has_segments = True
    can_roll_out = True
    prefix_tokens = 0

    @property
    def max_tokens(self) -> int:
        """Longest input that the positions allow, in tokens with special ones."""
        return self.config.max_position_embeddings

    def positions_of(self, input_ids: torch.LongTensor) -> torch.LongTensor | None:
        """Position ids of tokens [B, T] where they depend on the tokens themselves; else None."""
        return None

    def run(self, trace: Trace, inputs: dict, options: dict):
        """The plain model's own forward, with `trace` handed down to the layers."""
        return super().forward(**inputs, trace=trace, return_dict=True, **options)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        explain=None,
        rollout: bool = False,
        return_dict: bool | None = None,
        **options,
    ):
        """As the plain model; `attention_mask` is [B, T] (non-zero: valid) or extended, [B, 1, 1, T].

        Args:
            explain: called as `explain(block, Features)` while each block passes; its answers come as `explanations`.
            rollout: give `shares` too; in eval mode.

        Raises ValueError or TypeError for inputs that do not fit the model.
        """
        check_names(options, OUTPUT_OPTIONS, f"{type(self).__name__}.forward")
        given = check_text(input_ids, inputs_embeds, position_ids, self.max_tokens)
        if rollout and not self.can_roll_out:
            raise ValueError(f"rollout=True is not written for {type(self).__name__}; use False.")
        valid = valid_positions(attention_mask, tuple(given.shape[:2]))
        trace = Trace(explain, valid, rollout=rollout)
        if attention_mask is not None and attention_mask.ndim == 4 and valid is not None:
            attention_mask = valid.long()  # as extended, the plain model would take it for the whole mask of a layer
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        inputs |= {"inputs_embeds": inputs_embeds} | ({"token_type_ids": token_type_ids} if self.has_segments else {})
        found = self.run(trace, inputs, options)
        answer = MHEXModelOutput(
            last_hidden_state=found.last_hidden_state,
            pooler_output=found.get("pooler_output"),
            hidden_states=found.hidden_states,
            attentions=found.attentions,
            gate_scores=tuple(trace.scores[block] for block in range(len(self.blocks))),
            valid_positions=valid if explain else None,
            explanations=tuple(trace.explanations[block] for block in range(len(self.blocks))) if explain else None,
            shares=tuple(trace.shares[block] for block in range(len(self.blocks))) if rollout else None,
        )
        as_dict = getattr(self.config, "return_dict", True) if return_dict is None else return_dict
        return answer if as_dict else answer.to_tuple()


class GatedBertLayer(GatedBlock):
    """Mixin of a layer as BERT and RoBERTa have it, which ends in `LayerNorm(g * (x + f))`.

    x is the attention's output, f the feed-forward branch's.
    """

    channel_axis = -1

    def attention_with_shares(self, x: torch.Tensor, trace: Trace) -> torch.Tensor:
        """`self.attention` in eval mode, computed plainly, with its shares given to the trace."""
        attention, output = self.attention.self, self.attention.output
        heads = (attention.num_attention_heads, attention.attention_head_size)
        parts = (part(x).unflatten(-1, heads) for part in (attention.query, attention.key, attention.value))
        query, key, value = (part.transpose(1, 2) for part in parts)
        valid = None if trace.valid is None else trace.valid.to(x.device)
        mixed = attend(trace, self.block, x, query, key, value, attention.scaling, output.dense, valid=valid)
        return output.LayerNorm(mixed + x)

    def forward(self, hidden_states, attention_mask=None, *unused, trace: Trace | None = None, **kwargs):
        """hidden_states [B, T, C] to those of the next layer."""
        trace = Trace() if trace is None else trace
        if self.shows_shares(hidden_states, trace):
            x = self.attention_with_shares(hidden_states, trace)
        else:
            x = self.attention(hidden_states, attention_mask, **kwargs)[0]
        if trace.take:
            return x
        z = x + self.output.dropout(self.output.dense(self.intermediate(x)))
        return self.output.LayerNorm(self.gated(z, trace=trace) * z)


class MHEXTextClassifier(MHEXClassifierMixin):
    """Mixin of a text classifier."""

    _auto_class = "AutoModelForSequenceClassification"
    input_names = TEXT_INPUTS

    @property
    def max_tokens(self) -> int:
        """Longest input that the positions allow, in tokens with special ones."""
        return self.base_model.max_tokens

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **options,
    ):
        """Logits [B, K] of tokens [B, T] and, with `labels` ([B] ints or [B, K] floats), the deep-supervision loss.

        Args:
            num_items_in_batch: what the loss's sum is divided by (Trainer's count over accumulated batches).
            options: `output_attentions`, `output_hidden_states`, `return_dict`, and `explain`, called as
                `explain(block, Features)` while each block passes.

        Raises ValueError or TypeError for inputs or labels that do not fit the model.
        """
        return super().forward(
            labels,
            num_items_in_batch,
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **options,
        )

    def _with_gradient(self, inputs: dict, mask_token_id: int | None) -> tuple[str, torch.Tensor, dict]:
        check_mask_token(mask_token_id, self.config.vocab_size)
        embed, ids = eval_view(self).get_input_embeddings(), inputs.get("input_ids")
        given = inputs["inputs_embeds"] if ids is None else embed(ids)
        if ids is not None:
            inputs = {name: value for name, value in inputs.items() if name != "input_ids"}
            if inputs.get("position_ids") is None:
                inputs["position_ids"] = self.base_model.positions_of(ids)
        absent = embed(torch.tensor([[mask_token_id]], device=given.device)).to(given.dtype)
        return "inputs_embeds", absent, inputs | {"inputs_embeds": given.detach().clone().requires_grad_()}

    def _refined(self, saliency: torch.Tensor, evidence: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        return refined_tokens(saliency, evidence.sum(-1)[:, None], valid)

    def _read_inputs(self, inputs: dict) -> tuple[int, None]:
        ids, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
        given = check_text(ids, embeds, inputs.get("position_ids"), self.max_tokens)
        if not torch.compiler.is_compiling():
            if ids is not None and not 0 <= int(ids.min()) <= int(ids.max()) < self.config.vocab_size:
                raise ValueError(
                    f"input_ids must lie in [0, {self.config.vocab_size - 1}], the model's vocabulary; got "
                    f"{int(ids.min())} to {int(ids.max())}. Use the model's own tokenizer."
                )
            if embeds is not None and not embeds.isfinite().all():
                raise ValueError("inputs_embeds must be finite, got NaN or infinity.")
        return given.shape[0], None


def check_text(input_ids, inputs_embeds, position_ids, max_tokens: int) -> torch.Tensor:
    """The given one of input_ids [B, T] and inputs_embeds [B, T, C]; ValueError or TypeError if it cannot be."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("exactly one of input_ids and inputs_embeds must be given.")
    name, ndim = ("input_ids", 2) if inputs_embeds is None else ("inputs_embeds", 3)
    given = input_ids if inputs_embeds is None else inputs_embeds
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(given).__name__}; tokenize with return_tensors='pt'.")
    if given.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions (batch first), got shape {list(given.shape)}.")
    if given.is_floating_point() != (ndim == 3):
        raise TypeError(f"{name} must be {'floats' if ndim == 3 else 'integers'}, got {given.dtype}.")
    if given.shape[0] == 0 or given.shape[1] == 0:
        raise ValueError(f"{name} must hold at least one row and one token, got shape {list(given.shape)}.")
    if position_ids is None and given.shape[1] > max_tokens:
        raise ValueError(
            f"{name} has {given.shape[1]} tokens, but the model has {max_tokens} positions; tokenize with "
            "truncation=True, or explain the text in windows: hf_mhex.explain(model, tokenizer, text, stride=32)."
        )
    return given


def valid_positions(attention_mask: torch.Tensor | None, shape: tuple[int, int]) -> torch.BoolTensor | None:
    """The tokens [B, T] that are no padding: non-zero in a [B, T] mask; in an extended one, [B, 1, 1, T], True or 0.0.

    Raises ValueError for a mask that differs between queries: which tokens are padding cannot be told from it.
    """
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, torch.Tensor):
        raise TypeError(
            f"attention_mask must be a tensor, got {type(attention_mask).__name__}; use return_tensors='pt'."
        )
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
