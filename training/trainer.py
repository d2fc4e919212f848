"""What does transformers' Trainer lack for MHEX? The parts of the loss in its logs, and what a recipe asks for."""

from __future__ import annotations

import torch
from transformers import EarlyStoppingCallback, Trainer

from hf_mhex.evaluation.metrics import measure
from hf_mhex.training.losses import labels_by_row, recipe_loss
from hf_mhex.training.optimisation import EpochSampler, freeze, parameter_groups
from hf_mhex.training.settings import OptimisationSettings


class LossParts:
    """Sums over label entries of the main and the blocks' losses and hits, to be averaged when they are logged."""

    def __init__(self):
        self.sums: torch.Tensor | None = None
        self.blocks = 0

    def add(self, loss, block_losses, outputs, labels, config, items) -> None:
        """Count a batch whose total and block losses were divided by `items` (None: by its own label entries)."""
        own = (labels != -100).sum()
        items = own if items is None else items
        main = loss - getattr(config, "deep_supervision_weight", 0.0) * block_losses.sum()
        losses = torch.cat([main[None], block_losses]).detach() * items
        self.blocks = len(block_losses)
        blocks = outputs.get("block_logits")
        right = losses[:0] if blocks is None else hits(blocks.detach(), labels, config).to(losses)
        found = torch.cat([own[None].to(losses), losses, right])
        self.sums = found if self.sums is None else self.sums + found

    def averages(self, accelerator, prefix: str = "") -> dict[str, float]:
        """`loss_main`, `loss_block_b` and `accuracy_block_b` over all processes since the last call."""
        if self.sums is None:
            return {}
        count, *values = accelerator.reduce(self.sums, "sum").tolist()
        self.sums = None
        values = [value / max(count, 1) for value in values]
        names = ["loss_main", *(f"loss_block_{b}" for b in range(self.blocks))]
        names += [f"accuracy_block_{b}" for b in range(self.blocks)]
        return {prefix + name: value for name, value in zip(names, values)}


def hits(block_logits: torch.Tensor, labels: torch.Tensor, config) -> torch.Tensor:
    """Right label entries of each block, [blocks], of block_logits [B, blocks, K]; nothing for regression."""
    if config.problem_type == "regression":
        return block_logits.new_zeros(0)
    if config.problem_type == "multi_label_classification":
        return ((block_logits > 0) == (labels[:, None] > 0.5)).sum((0, 2))
    return (block_logits.argmax(-1) == labels.view(-1, 1)).sum(0)


class MHEXTrainer(Trainer):
    """transformers' Trainer with a recipe's optimisation: weights, samplers, frozen blocks, learning rates by depth.

    Beside `loss` (the total) its logs have `loss_main`, `loss_block_b` and `accuracy_block_b`, in training and, under
    the evaluation's prefix, in evaluation. Takes MHEX models and, with nothing to log of blocks, plain ones.

    Args:
        optimisation: the recipe's section.
        class_weights: factors on the labels' losses, [K], or None.
        metrics: names of `hf_mhex.evaluation.metrics` to evaluate by, None for those of the model's problem type.
        arguments: those of Trainer.

    Raises ValueError for TrainingArguments that would undo what the model or the recipe does.
    """

    def __init__(self, *, optimisation: OptimisationSettings, class_weights=None, metrics=None, **arguments):
        args = arguments["args"]
        if args.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor={args.label_smoothing_factor} would replace the model's loss, and its blocks "
                "would go untaught; set label_smoothing in the model's config, which smooths the loss of every head."
            )
        if args.train_sampling_strategy != "random":
            raise ValueError(
                f"train_sampling_strategy={args.train_sampling_strategy!r} cannot be resumed exactly; set "
                "optimisation.sampling instead."
            )
        self.optimisation, self.class_weights = optimisation, class_weights
        self.still = freeze(arguments["model"], optimisation)
        self.parts = {True: LossParts(), False: LossParts()}
        self.prefix = "eval"
        kind = arguments["model"].config.problem_type

        def compute_metrics(found):
            return measure(metrics, found.predictions, found.label_ids, kind)

        callbacks = []
        if optimisation.early_stopping_patience is not None:
            callbacks.append(EarlyStoppingCallback(optimisation.early_stopping_patience))
        super().__init__(compute_metrics=compute_metrics, callbacks=callbacks, **arguments)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if model.training:
            for norm in self.still:
                norm.eval()
        labels, items = labels_by_row(inputs["labels"]), num_items_in_batch
        outputs = model(**inputs) if items is None else model(**inputs, num_items_in_batch=items)
        config = self.model.config
        shared = items is not None and self.args.average_tokens_across_devices
        scale = self.accelerator.num_processes if shared else 1
        loss, block_losses = recipe_loss(outputs, labels, config, self.class_weights, items)
        self.parts[model.training].add(loss, block_losses, outputs, labels, config, items)
        return (loss * scale, outputs) if return_outputs else loss * scale

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        self.prefix = metric_key_prefix
        self.parts[False] = LossParts()
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def log(self, logs, start_time=None):
        if "loss" in logs:
            logs |= self.parts[True].averages(self.accelerator)
        elif f"{self.prefix}_loss" in logs:
            logs |= self.parts[False].averages(self.accelerator, f"{self.prefix}_")
        super().log(logs, start_time)

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            model = self.model if model is None else model
            rate, decay = self.args.learning_rate, self.args.weight_decay
            decayed = set(self.get_decay_parameter_names(model))
            groups = parameter_groups(model, self.optimisation, rate, decay, decayed)
            kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def _get_train_sampler(self, train_dataset=None):
        args = self.args
        rows = self.train_dataset if train_dataset is None else train_dataset
        step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        seed = args.seed if args.data_seed is None else args.data_seed
        return EpochSampler(rows, self.optimisation.sampling, seed, step)
