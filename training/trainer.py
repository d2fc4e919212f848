"""transformers' Trainer with the parts of the loss in its logs, mosaics, and what a recipe asks for."""

from __future__ import annotations

import numpy as np
import torch
from transformers import EarlyStoppingCallback, Trainer

from hf_mhex.evaluation.metrics import measure
from hf_mhex.training.consistency import AUTO, PartConsistency, part_consistency_outputs, usual_weight, with_tokens
from hf_mhex.training.losses import label_entries, mosaic_outputs
from hf_mhex.training.optimisation import EpochSampler, freeze, parameter_groups
from hf_mhex.training.settings import OptimisationSettings, needs_a_measure


class LossParts:
    """Sums over label entries of the main and the blocks' losses and hits, to be averaged when they are logged.

    weight: what the term of part consistency weighs in the loss.
    """

    def __init__(self, weight: float = 0.0):
        self.weight = weight
        self.term = False
        self.sums: torch.Tensor | None = None
        self.blocks = 0

    def add(self, outputs, labels: torch.Tensor, config, items) -> None:
        """Count a batch whose losses were divided by `items` (None: by its own label entries)."""
        own = label_entries(labels)
        items = own if items is None else items
        term = outputs.get("part_loss")
        self.term = self.term or term is not None
        term = outputs["loss"].new_zeros(()) if term is None else term
        blocks = outputs.get("block_logits")
        block_losses = outputs["loss"].new_zeros(0) if blocks is None else outputs["block_losses"]
        main = outputs["loss"] - config.deep_supervision_weight * block_losses.sum()
        main = main - self.weight * term
        losses = torch.cat([torch.stack([term, main]), block_losses]).detach() * items
        self.blocks = len(block_losses)
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
        names = ["loss_parts", "loss_main", *(f"loss_block_{b}" for b in range(self.blocks))]
        names += [f"accuracy_block_{b}" for b in range(self.blocks)]
        return {prefix + name: value for name, value in zip(names, values) if self.term or name != "loss_parts"}


def hits(block_logits: torch.Tensor, labels: torch.Tensor, config) -> torch.Tensor:
    """Right label entries of each block, [blocks], of block_logits [B, blocks, K]; nothing for regression."""
    if config.problem_type == "regression":
        return block_logits.new_zeros(0)
    if config.problem_type == "multi_label_classification":
        return ((block_logits > 0) == (labels[:, None] > 0.5)).sum((0, 2))
    return (block_logits.argmax(-1) == labels.view(-1, 1)).sum(0)


class MHEXTrainer(Trainer):
    """transformers' Trainer for MHEX models and their plain twins.

    Beside `loss` (the total) its logs have `loss_main`, `loss_block_b` and `accuracy_block_b`, in training and, under
    the evaluation's prefix, in evaluation. Batches of mosaics, whose labels are a grid, are taught by `mosaic_loss`.

    Args:
        model, args, arguments: those of Trainer.
        optimisation: a recipe's section: samplers, frozen blocks, learning rates by depth; None for Trainer's own.
        metrics: names of `hf_mhex.evaluation.metrics` to evaluate by, None for those of the model's problem type; a
            `compute_metrics` of your own goes before them.
        part_consistency: weight of the term that teaches the network to say of parts what its map says of them, or
            a `PartConsistency` with more to choose; None for neither term nor parts; "auto" for 1 where texts have one
            label each and the tokenizer [MASK], without torch_compile, and else for None. Its draws follow seed and
            step, so that a resumed run repeats them. With it the losses in the logs are those of whole rows and parts
            together, and `loss_parts` is the term; mosaics lose no parts, and evaluation has neither.

    Raises ValueError for TrainingArguments and a `compute_loss_func` that would undo what the model or the recipe does,
    and for an early stop without evaluations or a metric to go by.
    """

    def __init__(
        self,
        model=None,
        args=None,
        *arguments,
        optimisation: OptimisationSettings | None = None,
        metrics: list[str] | None = None,
        part_consistency: PartConsistency | float | str | None = AUTO,
        **options,
    ):
        if args is not None and args.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor={args.label_smoothing_factor} would replace the model's loss, and its blocks "
                "would go untaught; set label_smoothing in the model's config, which smooths the loss of every head."
            )
        self.optimisation, self.still = optimisation, []
        self.parts = {True: LossParts(), False: LossParts()}
        self.prefix = "eval"
        if optimisation is not None:
            if args is not None and args.train_sampling_strategy != "random":
                raise ValueError(
                    f"train_sampling_strategy={args.train_sampling_strategy!r} cannot be resumed exactly; set "
                    "optimisation.sampling instead."
                )
            self.still = freeze(model, optimisation)
            if optimisation.early_stopping_patience is not None:
                if args is None or args.eval_strategy == "no" or args.metric_for_best_model is None:
                    raise ValueError(needs_a_measure(optimisation.early_stopping_patience))
                patience = EarlyStoppingCallback(optimisation.early_stopping_patience)
                options["callbacks"] = [*(options.get("callbacks") or []), patience]

        def compute_metrics(found):
            return measure(metrics, found.predictions, found.label_ids, self.model.config.problem_type)

        super().__init__(model, args, *arguments, **{"compute_metrics": compute_metrics, **options})
        if self.compute_loss_func is not None:
            raise ValueError(
                "compute_loss_func would replace the model's loss, and its blocks would go untaught; set class_weights "
                "or label_smoothing in the model's config, or override MHEXTrainer.compute_loss."
            )
        if self.args.n_gpu > 1:
            raise ValueError(
                f"one process would train on {self.args.n_gpu} GPUs by DataParallel, which averages away how heads are "
                f"weighed; start one process each: torchrun --nproc-per-node {self.args.n_gpu} ..., or set "
                "CUDA_VISIBLE_DEVICES=0."
            )
        self.parts_by_default = part_consistency == AUTO
        tokenizer = self.processing_class or getattr(self.data_collator, "tokenizer", None)
        if not isinstance(part_consistency, PartConsistency):
            weight = usual_weight(part_consistency, self.model, tokenizer, self.args.torch_compile)
            part_consistency = None if weight is None else PartConsistency(weight=weight)
        self.part_consistency = with_tokens(part_consistency, tokenizer)
        self.parts[True] = LossParts(0.0 if part_consistency is None else part_consistency.weight)
        self.part_draws: tuple[int, torch.Generator] | None = None  # a step's, from which its micro-batches draw

    def _get_num_items_in_batch(self, batch_samples, device):
        """Trainer's count, in which a number of -100 is a number: only to single labels it means that there is none."""
        counted = []
        for batch in batch_samples:
            labels = batch.get("labels")
            numbers = isinstance(labels, torch.Tensor) and labels.is_floating_point()
            counted.append({**batch, "labels": torch.zeros_like(labels)} if numbers else batch)
        return super()._get_num_items_in_batch(counted, device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if model.training:
            for norm in self.still:
                norm.eval()
        labels, items = inputs["labels"], num_items_in_batch
        if labels.ndim > 2 and hasattr(self.model, "heads"):
            rest = {name: value for name, value in inputs.items() if name != "labels"}
            outputs = mosaic_outputs(model, rest, labels, items)
        elif self.takes_parts(model, inputs):
            draws = self.draws_of_step()
            shard = self.args.process_index, self.args.world_size
            outputs = part_consistency_outputs(model, inputs, labels, self.part_consistency, draws, items, shard)
        else:
            outputs = model(**inputs) if items is None else model(**inputs, num_items_in_batch=items)
        labels = labels.flatten(0, 2) if labels.ndim > 2 else labels
        self.parts[model.training].add(outputs, labels, self.model.config, items)
        shared = items is not None and self.args.average_tokens_across_devices
        loss = outputs["loss"] * (self.accelerator.num_processes if shared else 1)
        return (loss, outputs) if return_outputs else loss

    def takes_parts(self, model, inputs: dict) -> bool:
        """Whether a batch loses parts: in training, unless it is of mosaics; by default where rows are tokens [B, T],
        with a mask [B, T] or none, and have one label each."""
        labels, mask = inputs["labels"], inputs.get("attention_mask")
        fits = "input_ids" in inputs and (mask is None or mask.ndim == 2) and not labels.is_floating_point()
        asked = self.part_consistency is not None and (fits or not self.parts_by_default)
        return asked and model.training and labels.ndim <= 2

    def draws_of_step(self) -> torch.Generator:
        """Random numbers of this step, the same on every process; a resumed run draws the same."""
        step = self.state.global_step
        if self.part_draws is None or self.part_draws[0] != step:
            seed = np.random.SeedSequence((self.args.seed, step, 0)).generate_state(1, np.uint64)
            self.part_draws = step, torch.Generator().manual_seed(int(seed[0] >> np.uint64(1)))
        return self.part_draws[1]

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

    optimizer: torch.optim.Optimizer | None

    def create_optimizer(self, model=None):
        if self.optimisation is None:
            return super().create_optimizer(model)
        if self.optimizer is None:
            model = self.model if model is None else model
            rate, decay = self.args.learning_rate, self.args.weight_decay
            decayed = set(self.get_decay_parameter_names(model))
            groups = parameter_groups(model, self.optimisation, rate, decay, decayed)
            kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def _get_train_sampler(self, train_dataset=None):
        if self.optimisation is None:
            return super()._get_train_sampler(train_dataset)
        args = self.args
        rows = self.train_dataset if train_dataset is None else train_dataset
        step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        seed = args.seed if args.data_seed is None else args.data_seed
        return EpochSampler(rows, self.optimisation.sampling, seed, step)
