"""Which variants of MHEX are compared that no configuration makes?

Of the network: gates held at 1, heads that start small. Of its training, for those who hold its Trainer: block losses
weighed by depth or over time, heads that learn from the last one, and inputs with parts taken out.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.mixup import cutmix_bbox_and_lam
from timm.data.random_erasing import RandomErasing
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback

from hf_mhex.modeling.mhex import AttentionGate
from hf_mhex.modeling.mhex_loss import deep_supervision_loss


class OpenGate(AttentionGate):
    """An attention gate that lets everything through; the head behind it still reads a = W1 p."""

    def forward(self, *inputs, **named):
        *descriptor, gate = super().forward(*inputs, **named)
        return *descriptor, torch.ones_like(gate)


def open_gates(model: PreTrainedModel) -> None:
    """Hold every gate of an MHEX classifier at 1, for as long as it lives: a saved one is plain MHEX again."""
    for gate in model.base_model.gates:
        gate.__class__ = OpenGate


def start_small(model: PreTrainedModel) -> None:
    """Draw the heads' weights anew as `nn.Linear` starts: up to 1 / sqrt(C), which a large a must make up for."""
    for head in model.heads:
        nn.init.kaiming_uniform_(head.weight, a=5**0.5)


class Fade(TrainerCallback):
    """Let the weight of the blocks' losses fall from the config's to 0, in a straight line over all steps."""

    def __init__(self, weight: float):
        self.weight = weight

    def on_step_begin(self, args, state, control, model, **rest):
        model.config.deep_supervision_weight = self.weight * (1 - state.global_step / state.max_steps)


def fade_block_losses(trainer: Trainer) -> None:
    """Train with block losses that fade out, so that the last steps serve the model's logits alone."""
    trainer.add_callback(Fade(trainer.model.config.deep_supervision_weight))


def weigh_block_losses(trainer: Trainer, deeper: bool) -> None:
    """Weigh block losses in a straight line by depth, 1 on average: the last one most, or (not `deeper`) the first."""
    blocks = len(trainer.model.heads)
    rank = torch.arange(1, blocks + 1) if deeper else torch.arange(blocks, 0, -1)
    extra = trainer.model.config.deep_supervision_weight * (2 * rank / (blocks + 1) - 1)

    def weigh(model, inputs, outputs):
        if model.training:
            outputs.loss = outputs.loss + (extra.to(outputs.block_losses) * outputs.block_losses).sum()

    trainer.model.register_forward_hook(weigh)


def distil_heads(trainer: Trainer, share: float = 0.5, temperature: float = 2.0) -> None:
    """Let a `share` of every earlier head's loss be its divergence from the last head, at a temperature.

    After self-distillation (Zhang et al. 2019, arXiv 1905.08094), without its losses between features.
    """

    def distil(model, inputs, outputs):
        if model.training:
            *_, last = scores = outputs.block_logits.unbind(1)
            goal = F.log_softmax(last.detach() / temperature, -1)
            apart = sum(
                F.kl_div(F.log_softmax(head / temperature, -1), goal, reduction="batchmean", log_target=True)
                for head in scores[:-1]
            )
            change = temperature**2 * apart - outputs.block_losses[:-1].sum()
            outputs.loss = outputs.loss + model.config.deep_supervision_weight * share * change

    trainer.model.register_forward_hook(distil)


def erase_patches(trainer: Trainer) -> None:
    """Set a rectangle of half of the training images to 0, the mean colour (Zhong et al. 2017, arXiv 1708.04896)."""
    erase = RandomErasing(probability=0.5, mode="const", device="cpu")
    replace_inputs(trainer, "pixel_values", lambda pixels: erase(pixels.clone()))


def cut_mix(trainer: Trainer) -> None:
    """Paste a rectangle of another image into each training image; both labels count, by area.

    CutMix (Yun et al. 2019, arXiv 1905.04899), one rectangle a batch and half of the batches left as they are.
    """
    drawn: dict = {}

    def paste(model, inputs, named):
        drawn.clear()
        if not model.training or torch.rand(()) < 0.5:
            return None
        pixels = named["pixel_values"].clone()
        place, kept = cutmix_bbox_and_lam(pixels.shape, np.random.beta(1, 1))
        top, bottom, left, right = place
        drawn.update(other=torch.randperm(len(pixels), device=pixels.device), kept=float(kept))
        pixels[..., top:bottom, left:right] = pixels[drawn["other"], :, top:bottom, left:right]
        return inputs, named | {"pixel_values": pixels}

    def blend(model, inputs, named, outputs):
        if drawn:
            labels, count = named["labels"][drawn["other"]], named.get("num_items_in_batch")
            logits, blocks, absent = outputs.logits, outputs.block_logits, outputs.absent_losses
            second, _ = deep_supervision_loss(logits, blocks, labels, model.config, count, absent)
            outputs.loss = drawn["kept"] * outputs.loss + (1 - drawn["kept"]) * second

    trainer.model.register_forward_pre_hook(paste, with_kwargs=True)
    trainer.model.register_forward_hook(blend, with_kwargs=True)


def mask_tokens(trainer: Trainer, most: float = 0.5) -> None:
    """Put [MASK] for a share of every training text's tokens, drawn from 0 to `most` for each text."""
    tokenizer = trainer.data_collator.tokenizer
    special = torch.tensor(tokenizer.all_special_ids)

    def mask(ids):
        share = most * torch.rand(len(ids), 1, device=ids.device)
        hidden = (torch.rand(ids.shape, device=ids.device) < share) & ~torch.isin(ids, special.to(ids.device))
        return ids.masked_fill(hidden, tokenizer.mask_token_id)

    replace_inputs(trainer, "input_ids", mask)


def replace_inputs(trainer: Trainer, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Give the model `change(input)` for the input of that name, while it trains."""

    def replace(model, inputs, named):
        return (inputs, named | {name: change(named[name])}) if model.training else None

    trainer.model.register_forward_pre_hook(replace, with_kwargs=True)
