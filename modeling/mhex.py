"""What do both MHEX families share? The gate, the head and the mixins that make a model explain itself.

Source: Sun & Lio, "Multi-Head Explainer" (arXiv 2501.01311). For a residual block with shortcut x and branch f, both
[B, C, N] over N positions, and K labels:

    z = x + f,    p = ReLU(mean over valid positions of z),    a = W1 p,    g = gate_scale * sigmoid(a),
    logits = W2 a = W_eq p,    W_eq = W2 W1                                                      [K, C]
    S_c[n] = 1/N * sum over ch of W_eq[c, ch] * 1[mean z_ch > 0] * z[ch, n],    sum over n of S_c[n] = logits[c]

`p`, `a`, the logits and the maps are computed in float32 (float64 in a float64 model) whatever the backbone's dtype.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import maybe_autocast

from .mhex_loss import absent_loss, deep_supervision_loss
from .mhex_maps import (
    Features,
    block_map,
    check_blocks,
    check_options,
    check_rollout,
    check_target,
    class_rows,
    combine_maps,
    decay_factors,
    normalize_map,
    pooled_descriptor,
    select_classes,
    wide,
)


@dataclass(kw_only=True)
class MHEXConfigMixin:
    """The fields that every MHEX configuration has.

    Args:
        gate_scale: factor on the sigmoid of the attention gate; 2 makes a gate with W1 = 0 exactly 1.
        head_decay: block b of B weighs `head_decay ** (B - 1 - b)` in the model's logits; 0 is the last block alone.
        deep_supervision_weight: factor on the sum of the blocks' own losses.
        label_smoothing: share of the target spread evenly over the labels, in [0, 1); classification only.
        rectified: gates, heads and maps read ReLU(x + f) in place of z = x + f. Maps are then sums of what is there.
        binary_share: share of a binary cross-entropy over all labels in every head's loss for single labels, the rest
            being cross-entropy. It fixes the logits' zero, which softmax leaves open: above it speaks for a label.
        instance_share: share of the binary cross-entropy of a block's absent labels that is taken at every position
            instead of their mean (`absent_loss`). Maps then speak for a label only where it is. Labels must suit that:
            an ill picture may hold healthy parts, so "healthy" is not absent everywhere in it.
        head_std: new heads are drawn from a normal distribution of standard deviation `head_std / sqrt(channels)`.
        gate_rank: rank of W1 in blocks of more than `2 * gate_rank` channels, where two factors hold fewer parameters
            than one matrix; None for a full W1 everywhere.

    Raises TypeError or ValueError for a field that cannot be.
    """

    gate_scale: float | int = 2.0
    head_decay: float | int = 0.5
    deep_supervision_weight: float | int = 1.0
    label_smoothing: float | int = 0.0
    rectified: bool = False
    binary_share: float | int = 0.0
    instance_share: float | int = 0.0
    head_std: float | int = 16.0
    gate_rank: int | None = None

    keys_to_ignore_at_inference = ["block_logits", "block_losses", "absent_losses", "hidden_states", "attentions"]

    @classmethod
    def paper(cls, **kwargs):
        """The paper's setting: gates start at 1/2, the last head decides, every head's loss has weight 1.

        The last head is then both the model's logits and a block, so its loss counts twice (the paper counts it once).
        """
        return cls(**{"gate_scale": 1.0, "head_decay": 0.0, "deep_supervision_weight": 1.0, **kwargs})

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.check_fields()

    def check_fields(self):
        """Raise TypeError or ValueError for a field that cannot be; models call it too, as loading may set fields."""
        for name, low, high in (
            ("gate_scale", 1e-6, float("inf")),
            ("head_decay", 0, 1),
            ("deep_supervision_weight", 0, float("inf")),
            ("label_smoothing", 0, 1 - 1e-6),
            ("binary_share", 0, 1),
            ("instance_share", 0, 1),
            ("head_std", 0, float("inf")),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, got {value!r}.")
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], got {value}.")
        if type(self.rectified) is not bool:
            raise TypeError(f"rectified must be True or False, got {self.rectified!r}.")
        if self.gate_rank is not None and (type(self.gate_rank) is not int or self.gate_rank < 1):
            raise ValueError(f"gate_rank must be None or an int of at least 1, got {self.gate_rank!r}.")


@dataclass
class MHEXModelOutput(ModelOutput):
    """Output of a body: besides the usual, a = W1 p of every block (`gate_scores`, each [B, C]) and, where it was given
    the callback `explain(block, Features)`, its answers and the positions that count ([B, N], None for all).
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    gate_scores: tuple[torch.FloatTensor, ...] | None = None
    valid_positions: torch.BoolTensor | None = None
    explanations: tuple | None = None


@dataclass
class MHEXClassifierOutput(ModelOutput):
    """A classifier: logits [B, K], block_logits [B, blocks, K]; with labels, loss and block_losses [blocks], and where
    the config has an `instance_share`, absent_losses [B, blocks, K].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    block_logits: torch.FloatTensor | None = None
    block_losses: torch.FloatTensor | None = None
    absent_losses: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class MHEXSaliency(ModelOutput):
    """Answer of `generate_saliency`. With target="all", a K axis follows B in all but the two logits.

    Args:
        saliency: the combined map at input size, [B, H, W] or [B, T]; None with `upsample=False`.
        block_saliency: one raw map per block (or selected block), at its own resolution and unweighted.
        explained: what the raw combined map sums to, [B].
        logits: the model's logits, [B, K]. block_logits: each head's, [B, blocks, K].
        target: the explained label, [B].
    """

    saliency: torch.FloatTensor | None = None
    block_saliency: tuple[torch.FloatTensor, ...] | None = None
    explained: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    block_logits: torch.FloatTensor | None = None
    target: torch.LongTensor | None = None


class WideLinear(nn.Module):
    """A linear map without bias that computes in its input's dtype (float32 or wider), under autocast too.

    Not an `nn.Linear`: quantisers replace those, and `equivalent_matrix` reads the weight itself.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self):
        """As `nn.Linear` starts; loading calls it for new weights alone."""
        init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with maybe_autocast(x.device.type, enabled=False):
            return F.linear(x, self.weight.to(x.dtype))


class AttentionGate(WideLinear):
    """The attention gate: W1 and a scaled sigmoid. W1 starts at 0, where every gate is `scale / 2`.

    W1 [C, C] is `weight`, or `weight @ reduce.weight`, [C, rank] and [rank, C], where that has fewer parameters.
    """

    def __init__(self, channels: int, config):
        low = config.gate_rank is not None and 2 * config.gate_rank < channels
        super().__init__(config.gate_rank if low else channels, channels)
        self.reduce = WideLinear(channels, config.gate_rank) if low else None
        self.scale, self.rectified = config.gate_scale, config.rectified

    def reset_parameters(self):
        init.zeros_(self.weight)

    def read(self, *summands: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What gate, head and map read, as summands [B, C, ...]: those of z, or ReLU(z) alone where `rectified`."""
        return (sum(summands[1:], summands[0]).relu(),) if self.rectified else summands

    def scores(self, p: torch.Tensor) -> torch.Tensor:
        """a = W1 p, [B, C]."""
        return super().forward(p if self.reduce is None else self.reduce(p))

    def equivalent(self, rows: torch.Tensor) -> torch.Tensor:
        """`rows @ W1` for rows [..., C] that read a: the same as rows that read p. Float32 or wider."""
        rows = rows @ self.weight.to(wide(self.weight.dtype))
        return rows if self.reduce is None else rows @ self.reduce.weight.to(rows.dtype)

    def forward(
        self,
        summands: tuple[torch.Tensor, ...],
        valid: torch.Tensor | None = None,
        first_sum: torch.Tensor | None = None,
    ):
        """What z [B, C, ...] is the sum of to p [B, C], a [B, C] and the gate [B, C]; see `pooled_descriptor`."""
        with maybe_autocast(summands[0].device.type, enabled=False):
            p = pooled_descriptor(summands, valid, first_sum)
        scores = self.scores(p)
        return p, scores, (self.scale * scores.sigmoid()).to(summands[0].dtype)


class Head(WideLinear):
    """A block's head: W2 [K, C] on a = W1 p. It starts large, normal with standard deviation `head_std` / sqrt(C).

    W1 serves logits and gate alike. A large W2 asks for a small a, at which gates stay near their middle; a small one
    drives them to their ends, which costs accuracy (docs/training.md).
    """

    def __init__(self, channels: int, config):
        self.std = config.head_std / channels**0.5
        super().__init__(channels, config.num_labels)

    def reset_parameters(self):
        init.normal_(self.weight, std=self.std)


@contextmanager
def evaluating(model: nn.Module):
    """Run a block in eval mode and give each module that was training its mode back; touches nothing in eval mode."""
    if torch.compiler.is_compiling() and model.training:
        raise ValueError("a saliency in training mode can be neither compiled nor exported; call model.eval() first.")
    training = [] if torch.compiler.is_compiling() else [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class MHEXClassifierMixin:
    """Heads on a body with gates: logits, loss and `generate_saliency`. The body's forward takes `explain`."""

    def _read_inputs(self, inputs: dict) -> tuple[int, tuple[int, int] | None]:
        """Check the inputs' values; return the batch size and the size to upsample to (None: the map's own)."""
        raise NotImplementedError("each family's class says what its inputs are")

    @property
    def num_blocks(self) -> int:
        """Number of residual blocks, each with a gate and a head."""
        return len(self.heads)

    def _head(self, block: int) -> torch.Tensor:
        weight = self.heads[block].weight
        return weight.to(wide(weight.dtype))

    @torch.no_grad()
    def equivalent_matrix(self, block: int) -> torch.Tensor:
        """W_eq = W2 W1 of one block (negative indices count from the end), [K, C], float32 or wider."""
        return self.base_model.gates[block].equivalent(self._head(block))

    def _logits(self, gate_scores: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's logits [B, K] and the blocks' [B, blocks, K] from every block's a [B, C]."""
        blocks = torch.stack([head(scores) for head, scores in zip(self.heads, gate_scores)], dim=1)
        factors = decay_factors(list(range(self.num_blocks)), self.config.head_decay, blocks)
        return (factors[:, None] * blocks).sum(1), blocks

    def _absent_loss(self, block: int, features: Features) -> torch.Tensor:
        """What each label costs where it is absent, by what a block's map says at each position, [B, K]."""
        with maybe_autocast(features.p.device.type, enabled=False):
            rows = self.base_model.gates[block].equivalent(self._head(block))
            return absent_loss(block_map(rows[None], features.added(), "contribution").flatten(2), features.valid)

    def _classify(self, outputs, labels=None, items=None, absent_losses=None) -> MHEXClassifierOutput:
        logits, block_logits = self._logits(outputs.gate_scores)
        loss = block_losses = None
        if labels is not None:
            loss, block_losses = deep_supervision_loss(logits, block_logits, labels, self.config, items, absent_losses)
        return MHEXClassifierOutput(
            loss=loss,
            logits=logits,
            block_logits=block_logits,
            block_losses=block_losses,
            absent_losses=absent_losses,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def generate_saliency(
        self,
        *,
        target=None,
        blocks=None,
        mode: str = "contribution",
        sign: str = "signed",
        contrast=None,
        decay: float | None = None,
        sharpness: float | tuple[float, float] = 0.0,
        normalize: str | None = None,
        upsample: bool = True,
        rollout: bool = False,
        **inputs,
    ) -> MHEXSaliency:
        """Class saliency from one pass in eval mode, without gradients. Takes what `forward` takes; labels are ignored.

        Args:
            target: None (the label with the highest logit), an int, B ints, or "all" (images: up to 2**28 values).
            blocks: indices of the blocks to use, negative ones from the end; None for all. Block b weighs
                `decay ** (deepest selected - b)`.
            mode: "contribution" (exact) or "cam" (the paper's: no indicator, no 1/N, gated features in a CNN).
            sign: "signed", or "positive" to keep the positive entries of the equivalent matrix only.
            contrast: explain `logit - reference` against "mean" (of the other classes), "runner_up", "softmax" (their
                mean weighed by it) or a class index (against itself: zeros).
            decay: None takes `config.head_decay`.
            sharpness: share of a channel that the class must hold, or (positive, negative) shares, in [0, 1].
            normalize: None (raw), "minmax" or "percentile", for `saliency` alone.
            upsample: False leaves the combined map out.
            rollout: texts; carry every block's map back from the tokens' features to the tokens, through the shares
                that attention mixed them by (`attended` of a layer; after Abnar & Zuidema, arXiv 2005.00928, and
                Kobayashi et al., 2109.07152). Sums stay. Attention is then computed plainly, its matrix kept.

        In mode "contribution", signed and with sharpness 0, the raw maps are exact: each block's sums to its logit
        (minus the reference), the combined one to `explained`, under the defaults the target's logit. Otherwise
        `explained` is just the combined map's sum. Cost: with a target known beforehand (and contrast None, "mean" or
        a class) each block is mapped as it passes; else blocks with C >= 4 K keep the maps of all K classes, the
        others their features. Raises ValueError or TypeError naming the argument.
        """
        num_labels = self.heads[0].out_features
        inputs = {name: value for name, value in inputs.items() if name != "labels"} | {"return_dict": True}
        batch, size = self._read_inputs(inputs)
        chosen_blocks = check_blocks(blocks, self.num_blocks)
        sharpness = check_options(mode, sign, contrast, decay, sharpness, normalize, num_labels)
        check_rollout(rollout, size)
        target = check_target(target, batch, num_labels, size if upsample else None)
        decay = self.config.head_decay if decay is None else decay
        linear = sign == "signed" and sharpness == (0.0, 0.0)
        device = self.heads[0].weight.device.type

        def rows(block, selection):
            gate, head = self.base_model.gates[block], self._head(block)
            return class_rows(*selection[1:], head, gate.equivalent, sign, sharpness)

        def explain(block: int, features: Features):
            if block not in chosen_blocks:
                return None
            with maybe_autocast(device, enabled=False):
                early = select_classes(target, contrast, num_labels, features.p)
                if early is not None:
                    return block_map(rows(block, early), features, mode)
                if linear and 4 * num_labels <= features.p.shape[-1]:
                    return block_map(self.equivalent_matrix(block)[None], features, mode)
            return features.added(mode)

        with evaluating(self):
            outputs = self.base_model(**inputs, explain=explain, rollout=rollout)
            logits, block_logits = self._logits(outputs.gate_scores)
        with maybe_autocast(device, enabled=False):
            early = select_classes(target, contrast, num_labels, logits)
            selection = early or select_classes(target, contrast, num_labels, logits, logits)

            def finish(block):
                found = outputs.explanations[block]
                if isinstance(found, Features):
                    return block_map(rows(block, selection), found, mode)
                return found if early else torch.einsum("brk,bk...->br...", selection[2], found)

            maps = [finish(block) for block in chosen_blocks]
            factors = decay_factors(chosen_blocks, decay, logits)
            if linear and mode == "contribution":
                combined = (factors[:, None] * block_logits[:, chosen_blocks]).sum(1)
                explained = (selection[2] * combined[:, None]).sum(-1)
            else:
                explained = sum(factor * found.flatten(2).sum(-1) for factor, found in zip(factors, maps))
            saliency = None
            if upsample:
                saliency = combine_maps(maps, factors, size)
                if normalize:
                    saliency = normalize_map(saliency, normalize, outputs.valid_positions)

        every = isinstance(target, str)
        return MHEXSaliency(
            saliency=saliency if every or saliency is None else saliency[:, 0],
            block_saliency=tuple(found if every else found[:, 0] for found in maps),
            explained=explained if every else explained[:, 0],
            logits=logits,
            block_logits=block_logits,
            target=selection[0].expand(batch, -1) if every else selection[0].expand(batch, 1)[:, 0],
        )
