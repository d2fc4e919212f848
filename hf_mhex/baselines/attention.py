"""Maps from a transformer's attention: rollout and attention x gradient.

Both follow attention through all layers to the tokens, and read the row of what the classifier pools: the mean over the
valid tokens in MHEX, the first token in a plain network. Both are blind to what a value says; rollout is blind to the
class as well.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
import torch.nn.functional as F

from hf_mhex.baselines import Method
from hf_mhex.baselines.networks import logits_of


def attention_rollout(model, inputs, target=None) -> torch.Tensor:
    """Rollout: the product over layers of 0.5 (mean over heads of A) + 0.5 I, [B, T]. The same for every class.

    Source: Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (2020).
    """
    with eager(model), torch.no_grad():
        attentions = model(**network_inputs(inputs), output_attentions=True).attentions
    unit = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    flow = unit
    for attention in attentions:
        flow = (0.5 * attention.mean(1) + 0.5 * unit) @ flow
    return pooled_row(model, flow, inputs["attention_mask"])


def attention_gradient(model, inputs, target) -> torch.Tensor:
    """Attention x gradient: R <- R + (mean over heads of (dlogit/dA * A)+) R, from R = I, [B, T].

    Source: Chefer et al., "Generic Attention-model Explainability" (2021), the rule for self-attention; the identity
    is taken off at the end.
    """
    with eager(model), torch.enable_grad():
        embedded = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
        answer = model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"], output_attentions=True)
        chosen = logits_of(answer).gather(1, target[:, None]).sum()
        gradients = torch.autograd.grad(chosen, answer.attentions, allow_unused=True)
    unit = torch.eye(embedded.shape[1], device=embedded.device)
    flow = unit.expand(len(embedded), -1, -1)
    for attention, gradient in zip(answer.attentions, gradients):
        if gradient is not None:
            flow = flow + (gradient * attention).clamp(min=0).mean(1).detach() @ flow
    return pooled_row(model, flow - unit, inputs["attention_mask"])


def pooled_row(model, flow: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What reaches the classifier from each token, [B, T], of flow [B, T, T] (rows receive); 0 on padding."""
    valid = (mask != 0).float()
    if hasattr(model, "heads"):
        reader = valid / valid.sum(1, keepdim=True).clamp(min=1)
    else:
        reader = F.one_hot(torch.zeros_like(mask[:, 0]), flow.shape[-1]).float()
    return torch.einsum("bq,bqt->bt", reader, flow).float() * valid


def network_inputs(inputs: dict) -> dict:
    """What the network itself takes of `inputs`."""
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


@contextmanager
def eager(model):
    """Compute attention in the way that returns it; afterwards the model has its own implementation again."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


METHODS = [Method("attention rollout", attention_rollout), Method("attention x gradient", attention_gradient)]
