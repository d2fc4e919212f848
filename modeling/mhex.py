"""The Multi-Head Explainer (MHEX) for transformers: a classifier with a gate and a head at every residual block.

Source: Sun & Lio, "Multi-Head Explainer" (arXiv 2501.01311). For a residual block with shortcut x and branch f, both
[B, C, N] over N positions, and K labels:

    z = x + f,    p = ReLU(mean over valid positions of z),    a = W1 p,    g = gate_scale * sigmoid(a),
    logits = W2 a = W_eq p,    W_eq = W2 W1                                                      [K, C]
    S_c[n] = 1/N * sum over ch of W_eq[c, ch] * 1[mean z_ch > 0] * z[ch, n],    sum over n of S_c[n] = logits[c]

p, a, the logits and the maps are computed in float32 (float64 in a float64 model) whatever the backbone's dtype.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

from .mhex_blocks import AttentionGate, Head, Trace, WideLinear, carried_back
from .mhex_loss import absent_loss, deep_supervision_loss
from .mhex_maps import (
    Features,
    block_map,
    cam,
    check_blocks,
    check_names,
    check_one_map,
    check_options,
    check_refine,
    check_sharpness,
    check_target,
    choose,
    combine_maps,
    decay_factors,
    no_autocast,
    normalize_map,
    refined_map,
    resize_maps,
    select_classes,
    sharpened,
    wide,
)

OUTPUT_OPTIONS = ("output_attentions", "output_hidden_states", "return_dict")
FORWARD_OPTIONS = ("labels", "num_items_in_batch", "explain", *OUTPUT_OPTIONS)
EXACT_OPTIONS = ("target", "contrast", "blocks", "decay", "normalize", "upsample", "rollout", "refine", "mask_token_id")
PAPER_OPTIONS = ("target", "mode", "sign", "sharpness", "decay", "contrast", "blocks", "normalize", "upsample")


@dataclass
class MHEXModelOutput(ModelOutput):
    """Output of a body.

    Args:
        last_hidden_state, pooler_output, hidden_states, attentions: as everywhere in transformers.
        gate_scores: a = W1 p of every block, each [B, C].
        valid_positions: positions that count [B, N], None for all; given with `explain`.
        explanations: what the callback `explain(block, Features)` answered, block by block.
        shares: what `carried_back` reads of every layer; given with `rollout`.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    gate_scores: tuple[torch.FloatTensor, ...] | None = None
    valid_positions: torch.BoolTensor | None = None
    explanations: tuple | None = None
    shares: tuple | None = None


@dataclass
class MHEXClassifierOutput(ModelOutput):
    """Output of a classifier: logits [B, K], block_logits [B, blocks, K]; with labels, loss [] and block_losses
    [blocks].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    block_logits: torch.FloatTensor | None = None
    block_losses: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class MHEXSaliency(ModelOutput):
    """Answer of `generate_saliency`. With target="all", a K axis follows B in all but the two logits.

    Args:
        saliency: the combined map at input size, [B, H, W] or [B, T]; None with `upsample=False`.
        block_saliency: one raw map per selected block, at its own resolution and unweighted.
        explained: what the raw combined map sums to [B]; None for `paper_saliency`, whose maps add up to nothing.
        logits: the model's logits [B, K].
        block_logits: each head's [B, blocks, K].
        target: the explained label [B].
    """

    saliency: torch.FloatTensor | None = None
    block_saliency: tuple[torch.FloatTensor, ...] | None = None
    explained: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    block_logits: torch.FloatTensor | None = None
    target: torch.LongTensor | None = None


class MHEXPreTrainedMixin:
    """What bodies and classifiers share: the start of new weights, and checkpointing that keeps every gradient."""

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, WideLinear):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def _set_gradient_checkpointing(self, enable: bool = True, gradient_checkpointing_func=checkpoint, **options):
        """As everywhere; ValueError for reentrant checkpoints, which lose the gradients of gates and heads."""
        if enable and getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant"):
            raise ValueError("use_reentrant=True would lose the gradients of gates and heads; set it to False.")
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **options)

    @property
    def gates(self) -> list[AttentionGate]:
        """The attention gates of a body, in block order."""
        return [block.gate for block in self.blocks]


class MHEXStagedBody:
    """Mixin of a body whose residual blocks stand in stages: networks over images and signals."""

    can_roll_out = False
    prefix_tokens = 0  # leading tokens that are no positions

    def stages(self) -> list[tuple[nn.Module | None, list[nn.Module]]]:
        """Each stage's downsampling (None for none) and its residual blocks."""
        raise NotImplementedError("a subclass says what its stages are")

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """The last block's output to the features that the plain network gives."""
        return x

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks in order."""
        return [block for _, blocks in self.stages() for block in blocks]

    def check_rollout(self, rollout: bool) -> None:
        """Raise ValueError where there is no attention to go back through."""
        if rollout and not self.can_roll_out:
            raise ValueError(f"rollout=True goes back through attention, which {type(self).__name__} lacks; use False.")

    def walk(self, x: torch.Tensor, trace: Trace, output_hidden_states: bool | None, return_dict: bool | None):
        """The body's answer for x, what the first block reads."""
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        states = (x,)
        for downsample, blocks in self.stages():
            x = x if downsample is None else downsample(x)
            for block in blocks:
                x = block(x, trace=trace)
            states += (x,) if wanted else ()
        x = self.finish(x)
        blocks = self.blocks
        pooled = blocks[-1].positions(x, trace.prefix)
        if trace.valid is not None:
            kept = trace.valid[:, None].to(pooled)
            pooled = pooled * kept * (kept.shape[-1] / kept.sum(-1, keepdim=True).clamp(min=1))
        answer = MHEXModelOutput(
            last_hidden_state=x,
            pooler_output=pooled.mean(-1),
            hidden_states=states if wanted else None,
            gate_scores=tuple(trace.scores[block] for block in range(len(blocks))),
            explanations=tuple(trace.explanations[block] for block in range(len(blocks))) if trace.explain else None,
            shares=tuple(trace.shares[block] for block in range(len(blocks))) if trace.rollout else None,
        )
        as_dict = getattr(self.config, "return_dict", True) if return_dict is None else return_dict
        return answer if as_dict else answer.to_tuple()


class MHEXClassifierMixin:
    """Heads on a body with gates: logits, loss and maps.

    A subclass names its inputs in `input_names`, its `body_class` and, in `_read_inputs`, checks their values.
    """

    accepts_loss_kwargs = True
    input_names: tuple[str, ...] = ()
    body_class: type
    body_options: dict = {}

    def __init__(self, config):
        super().__init__(config)  # type: ignore[call-arg]  # a mixin: transformers' class comes next
        self.num_labels = config.num_labels
        body = self.body_class(config, **self.body_options)
        setattr(self, self.base_model_prefix, body)
        self.heads = nn.ModuleList([Head(gate.out_features, config) for gate in body.gates])
        self.post_init()

    def _read_inputs(self, inputs: dict) -> tuple[int, tuple[int, ...] | None]:
        """Check the inputs' values; return the batch size and the size to upsample to (None: the map's own)."""
        raise NotImplementedError("a subclass says what its inputs are")

    @property
    def num_blocks(self) -> int:
        """Number of residual blocks, each with a gate and a head."""
        return len(self.heads)

    @torch.no_grad()
    def equivalent_matrix(self, block: int) -> torch.Tensor:
        """W_eq = W2 W1 of one block (negative indices count from the end), [K, C], float32 or wider."""
        block = check_blocks([block], self.num_blocks)[0]
        weight = self.base_model.gates[block].weight
        device = "cpu" if weight.is_meta else weight.device  # offloaded weights come to what they are applied to
        return self._rows(torch.eye(self.num_labels, dtype=wide(weight.dtype), device=device), block)

    def _rows(self, coefficients: torch.Tensor, block: int) -> torch.Tensor:
        """coefficients [..., K] times the equivalent matrix of a block, [..., C]."""
        return self.base_model.gates[block](self.heads[block](coefficients, rows=True), rows=True)

    def _logits(self, gate_scores: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's logits [B, K] and the blocks' [B, blocks, K] from every block's a [B, C]."""
        found = [head(scores) for head, scores in zip(self.heads, gate_scores)]
        blocks = torch.stack([logits.to(found[-1].device) for logits in found], dim=1)
        distance = torch.arange(self.num_blocks - 1, -1, -1, device=blocks.device, dtype=blocks.dtype)
        return (torch.pow(float(self.config.head_decay), distance)[:, None] * blocks).sum(1), blocks

    def _absent_loss(self, block: int, features: Features) -> torch.Tensor:
        """What each label costs where it is absent, by what a block's map says at each position, [B, K]."""
        with no_autocast(features.p.device):
            rows = self._rows(torch.eye(self.num_labels, dtype=features.p.dtype, device=features.p.device), block)
            return absent_loss(block_map(rows[None], features.added()).flatten(2), features.valid)

    def forward(self, labels=None, num_items_in_batch=None, **inputs):
        """Logits [B, K] of the inputs and, with labels, the deep-supervision loss; see the subclasses."""
        return_dict, explain = inputs.pop("return_dict", None), inputs.pop("explain", None)
        check_names(inputs, (*self.input_names, *FORWARD_OPTIONS), f"{type(self).__name__}.forward")
        by_position = labels is not None and self.config.instance_share > 0

        def shown(block: int, features: Features):
            if explain is not None:
                explain(block, features)
            return self._absent_loss(block, features) if by_position else None

        callback = shown if by_position or explain is not None else None
        outputs = self.base_model(**inputs, explain=callback, return_dict=True)
        logits, block_logits = self._logits(outputs.gate_scores)
        loss = block_losses = None
        if labels is not None:
            if self.training and not any(weight.requires_grad for weight in self.heads.parameters()):
                warnings.warn("the heads are frozen and learn nothing; for LoRA use hf_mhex.lora_config.", stacklevel=2)
            absent = None
            if by_position:
                absent = torch.stack([found.to(logits.device) for found in outputs.explanations], dim=1)
            loss, block_losses = deep_supervision_loss(
                logits, block_logits, labels, self.config, num_items_in_batch, absent
            )
            # DDP waits for a gradient of every weight, and no head reads the body's last norm; 0 * inf would be NaN
            unread = outputs.last_hidden_state.flatten()[:1].float().clamp(-1, 1).nan_to_num()
            loss = loss + 0 * unread.sum().to(loss)
        elif self._is_taught_from_outside() and explain is None:
            warnings.warn(
                "no labels in training mode: a loss made outside the model (label_smoothing_factor, a compute_loss of "
                "your own) does not teach every head; pass labels, and set label_smoothing or class_weights in "
                "model.config.",
                stacklevel=2,
            )
        answer = MHEXClassifierOutput(
            loss=loss,
            logits=logits,
            block_logits=block_logits,
            block_losses=block_losses,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        as_dict = getattr(self.config, "return_dict", True) if return_dict is None else return_dict
        return answer if as_dict else answer.to_tuple()

    def _is_taught_from_outside(self) -> bool:
        """Whether a pass without labels is one whose gradients reach the heads."""
        if not self.training or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        return any(weight.requires_grad for weight in self.heads.parameters())

    @torch.no_grad()
    def generate_saliency(
        self,
        *,
        target=None,
        contrast=None,
        blocks=None,
        decay: float | None = None,
        normalize: str | None = None,
        upsample: bool = True,
        rollout: bool = False,
        refine: bool | int = False,
        mask_token_id: int | None = None,
        **inputs,
    ) -> MHEXSaliency:
        """Exact class saliency from one pass, without gradients, as in eval mode. Labels among the inputs are ignored.

        The maps add up: a block's to its logit (minus the reference), the combined one to `explained`, which under the
        defaults is the target's logit.

        Args:
            target: None (the label with the highest logit), an int, B ints, or "all" (images: up to 2**28 values).
            contrast: explain `logit - reference`: "mean" of the other classes, "runner_up", "softmax" (their mean
                weighed by it) or a class index.
            blocks: indices of the blocks to use, negative ones from the end; None for all. Block b weighs
                `decay ** (deepest selected - b)`.
            decay: None takes `config.head_decay`.
            normalize: None (raw), "minmax" or "percentile", for `saliency` alone.
            upsample: False leaves the combined map out.
            rollout: carry every block's map back through attention to the input's positions (`carried_back`); sums
                stay. Attention is then computed plainly.
            refine: hand the shares out again by input * gradient of `explained`; sums stay (images and signals:
                `refined_map`, texts: `refined_tokens`). True costs a backward pass and its memory; a number n takes the
                mean gradient of n inputs on the way from nothing to the input, at n - 1 passes more. For one target.
            mask_token_id: the token that stands for an absent word; to refine the map of a text.
            inputs: those of `forward`.

        Raises ValueError or TypeError naming the argument.
        """
        check_options(contrast, decay, normalize, self.num_labels, target)
        if type(rollout) is not bool:
            raise TypeError(f"rollout must be True or False, got {rollout!r}.")
        check_refine(refine)
        check_names(inputs, (*self.input_names, "labels", *EXACT_OPTIONS), f"{type(self).__name__}.generate_saliency")
        if refine:
            check_one_map(self, target, upsample)
            self._read_inputs({key: value for key, value in inputs.items() if key != "labels"})
            name, absent, inputs = self._with_gradient(inputs, mask_token_id)
        with torch.set_grad_enabled(bool(refine)):
            size, found = self._explain(inputs, target, contrast, blocks, upsample, rollout=rollout)
            chosen, selection, outputs, logits, block_logits, maps = found
            factors = decay_factors(chosen, self.config.head_decay if decay is None else decay)
            asked = selection[2].detach()

            def explained_of(block_logits: torch.Tensor) -> torch.Tensor:
                with no_autocast(block_logits.device):
                    combined = sum(factor * block_logits[:, block] for factor, block in zip(factors, chosen))
                    return (asked * combined[:, None]).sum(-1)

            explained = explained_of(block_logits)
            if refine:
                evidence = self._evidence(inputs, name, absent, explained, explained_of, int(refine))
        if refine:
            logits, block_logits, explained = logits.detach(), block_logits.detach(), explained.detach()
            selection, maps = tuple(part.detach() for part in selection), [found.detach() for found in maps]
        with no_autocast(logits.device):
            saliency = None
            if upsample:
                saliency = combine_maps(maps, factors, size)
                if refine:
                    saliency = self._refined(saliency, evidence.to(saliency.device), outputs.valid_positions)
                if normalize:
                    saliency = normalize_map(saliency, normalize, outputs.valid_positions)
        return self._answer(target, selection, logits, block_logits, maps, saliency, explained)

    def _with_gradient(self, inputs: dict, mask_token_id: int | None) -> tuple[str, torch.Tensor, dict]:
        """Name of the input whose gradient is kept; what stands for its absence, in a shape that broadcasts to the
        input's; and the inputs with it."""
        if mask_token_id is not None:
            raise ValueError(f"mask_token_id stands for a word, and the model reads none; got {mask_token_id!r}.")
        name = self.main_input_name
        given = inputs[name].detach().clone()
        return name, given.new_zeros(()), inputs | {name: given.requires_grad_()}

    def _evidence(self, inputs: dict, name: str, absent, explained, explained_of, points: int) -> torch.Tensor:
        """(input - absent) * gradient of `explained` [B], in the input's shape, float32 or wider.

        The gradient is the mean of those at absent + (input - absent) * i / points. `explained_of` turns logits of
        blocks [B, blocks, K] into `explained`.
        """
        whole = inputs[name].detach()
        total = torch.autograd.grad(explained.sum(), inputs[name])[0].to(wide(whole.dtype))
        body_inputs = {key: value for key, value in inputs.items() if key != "labels"}
        for point in range(1, points):
            given = torch.lerp(absent.expand_as(whole), whole, point / points).requires_grad_()
            model = eval_view(self)
            outputs = model.base_model(**body_inputs | {name: given}, return_dict=True)
            between = explained_of(model._logits(outputs.gate_scores)[1])
            total += torch.autograd.grad(between.sum(), given)[0]
        return (whole - absent).to(total.dtype) * total / points

    def _refined(self, saliency: torch.Tensor, evidence: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """A map [B, 1, *size] whose shares are handed out again by `evidence` in the input's shape; sums stay."""
        return refined_map(saliency, evidence.view(len(evidence), -1, *saliency.shape[2:]).sum(1, keepdim=True))

    @torch.no_grad()
    def paper_saliency(
        self,
        *,
        target=None,
        mode: str = "cam",
        sign: str = "signed",
        sharpness: float | tuple[float, float] = 0.0,
        decay: float = 0.9,
        contrast=None,
        blocks=None,
        normalize: str | None = "minmax",
        upsample: bool = True,
        **inputs,
    ) -> MHEXSaliency:
        """The paper's maps, which add up to nothing: CAMs resized bilinearly (values kept), weighed and added up.

        Args:
            mode: "cam" (no indicator, no 1/N, gated features in a CNN) or "contribution".
            sign: "signed", or "positive" to keep the positive entries of the equivalent matrix only (non-negativity).
            sharpness: share of a channel that the class must hold, or (positive, negative) shares, in [0, 1].
            decay: block b weighs `decay ** (deepest selected - b)`.
            target, contrast, blocks, normalize, upsample, inputs: as in `generate_saliency`.

        Raises ValueError or TypeError naming the argument.
        """
        check_options(contrast, decay, normalize, self.num_labels, target)
        if decay is None:
            raise ValueError("decay must lie in [0, 1], got None; the paper's maps know no head_decay.")
        choose("mode", mode, ("cam", "contribution"))
        choose("sign", sign, ("signed", "positive"))
        pair = check_sharpness(sharpness)
        check_names(inputs, (*self.input_names, "labels", *PAPER_OPTIONS), f"{type(self).__name__}.paper_saliency")
        make = cam if mode == "cam" else block_map
        size, found = self._explain(inputs, target, contrast, blocks, upsample, make, sign, pair)
        chosen, selection, outputs, logits, block_logits, maps = found
        with no_autocast(logits.device):
            saliency = resize_maps(maps, decay_factors(chosen, decay), size) if upsample else None
            if upsample and normalize:
                saliency = normalize_map(saliency, normalize, outputs.valid_positions)
        return self._answer(target, selection, logits, block_logits, maps, saliency, None)

    def _explain(
        self,
        inputs,
        target,
        contrast,
        blocks,
        upsample,
        make=block_map,
        sign="signed",
        sharpness=(0.0, 0.0),
        rollout=False,
    ):
        """One pass with the maps [B, R, ...] of the chosen blocks.

        A block is mapped as it passes where the target is known beforehand; else blocks with C >= 4 K keep the maps of
        all K classes, the others their features.
        """
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
        batch, size = self._read_inputs(inputs)
        chosen = check_blocks(blocks, self.num_blocks)
        target = check_target(target, batch, self.num_labels, size if upsample else None)
        linear = sign == "signed" and sharpness == (0.0, 0.0)
        model = eval_view(self)

        def rows(block: int, selection) -> torch.Tensor:
            found = model._rows(selection[2], block)
            if linear:
                return found
            every = torch.eye(self.num_labels, dtype=found.dtype, device=found.device)
            return sharpened(selection[1], found, model._rows(every, block), sign, sharpness)

        def explain(block: int, features: Features):
            if block not in chosen:
                return None
            with no_autocast(features.p.device):
                early = select_classes(target, contrast, self.num_labels, features.p)
                if early is not None:
                    return make(rows(block, early), features)
                if linear and 4 * self.num_labels <= features.p.shape[-1]:
                    every = torch.eye(self.num_labels, dtype=features.p.dtype, device=features.p.device)
                    return make(model._rows(every, block)[None], features)
            return features.added(gated=make is cam)

        outputs = model.base_model(**inputs, explain=explain, rollout=rollout, return_dict=True)
        logits, block_logits = model._logits(outputs.gate_scores)
        with no_autocast(logits.device):
            early = select_classes(target, contrast, self.num_labels, logits)
            selection = early or select_classes(target, contrast, self.num_labels, logits, logits)

            def finish(block: int) -> torch.Tensor:
                found = outputs.explanations[block]
                if isinstance(found, Features):
                    there = tuple(part.to(found.p.device) for part in selection)
                    return make(rows(block, there), found)
                return found if early else torch.einsum("brk,bk...->br...", selection[2].to(found.device), found)

            maps = [finish(block) for block in chosen]
            if rollout:
                maps = carried_back(maps, chosen, outputs.shares, model.base_model.prefix_tokens)
        return size, (chosen, selection, outputs, logits, block_logits, maps)

    def _answer(self, target, selection, logits, block_logits, maps, saliency, explained) -> MHEXSaliency:
        every = isinstance(target, str)

        def one(values):
            return values if every or values is None else values[:, 0]

        return MHEXSaliency(
            saliency=one(saliency),
            block_saliency=tuple(one(found) for found in maps),
            explained=one(explained),
            logits=logits,
            block_logits=block_logits,
            target=selection[0].expand(logits.shape[0], -1) if every else selection[0].expand(logits.shape[0], 1)[:, 0],
        )


def eval_view(model: nn.Module) -> nn.Module:
    """The model itself in eval mode; else a second set of module objects, in eval mode, on the same weights.

    So a map needs no switch of `training`, which other threads would see. Raises ValueError while compiling a model in
    training mode, and for one whose weights are offloaded, since their hooks belong to the modules themselves.
    """
    if torch.compiler.is_compiling():
        if model.training:
            raise ValueError("a map in training mode can be neither compiled nor exported; call model.eval() first.")
        return model
    if not any(module.training for module in model.modules()):
        return model
    made: dict[int, nn.Module] = {}

    def view(module: nn.Module | None) -> nn.Module | None:
        if module is None or id(module) in made:
            return made.get(id(module))
        if "forward" in vars(module) and module is not model:  # accelerate's autocast wraps the model's own
            raise ValueError("the model is offloaded or hooked while in training mode; call model.eval() first.")
        copied = made[id(module)] = object.__new__(type(module))
        vars(copied).update(vars(module), training=False, _forward_hooks=module._forward_hooks.copy())
        vars(copied)["_modules"] = {name: view(child) for name, child in module._modules.items()}
        return copied

    return view(model)
