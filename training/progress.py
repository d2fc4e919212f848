"""What a training says of itself: one bar with the time left in a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import re
import sys

from transformers import PrinterCallback, ProgressCallback, Trainer

from hf_mhex.escaping import visible

LEFT_OUT = re.compile(r"block|loss_main|loss_parts|runtime|per_second|preparation_time|epoch|grad_norm|learning_rate")


class EpochLine(ProgressCallback):
    """One line an epoch with its losses and metrics; in a terminal Trainer's bar below it.

    first: a line to begin with.
    """

    def __init__(self, first: str | None = None):
        super().__init__()
        self.first = first
        self.said: dict[str, float] = {}

    def on_train_begin(self, args, state, control, **options):
        if self.first and state.is_world_process_zero:
            print(visible(self.first), flush=True)
        if sys.stderr.isatty():
            super().on_train_begin(args, state, control, **options)

    def on_step_end(self, args, state, control, **options):
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **options)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **options):
        if self.training_bar is not None:
            super().on_prediction_step(args, state, control, eval_dataloader=eval_dataloader, **options)

    def on_log(self, args, state, control, logs=None, **options):
        """Keep what is logged until the epoch ends, since losses and metrics come apart."""
        kept = {name: value for name, value in (logs or {}).items() if not LEFT_OUT.search(name)}
        self.said |= {name: value for name, value in kept.items() if isinstance(value, float)}

    def on_epoch_begin(self, args, state, control, **options):
        self.tell(args, state)

    def on_train_end(self, args, state, control, **options):
        self.tell(args, state)
        if self.training_bar is not None:
            super().on_train_end(args, state, control, **options)

    def tell(self, args, state) -> None:
        """Say what was kept, on the main process."""
        found = {name.removeprefix("eval_"): value for name, value in self.said.items() if name.startswith("eval_")}
        parts = [f"loss {self.said['loss']:.3f}"] if "loss" in self.said else []
        parts += [f"validation {name.replace('_', ' ')} {value:.3f}" for name, value in found.items()]
        self.said = {}
        if not parts or not state.is_world_process_zero:
            return
        done = f"epoch {state.epoch:.0f} of {args.num_train_epochs:g}"
        if args.max_steps > 0:
            done = f"step {state.global_step} of {args.max_steps}"
        line = visible(f"{done}: {', '.join(parts)}")
        print(line, flush=True) if self.training_bar is None else self.training_bar.write(line)


def tell_by_epoch(trainer: Trainer, first: str | None = None) -> None:
    """Put `EpochLine`, which begins with the line `first`, in place of Trainer's bar and printed dicts.

    `disable_tqdm=True` keeps it quiet.
    """
    for printer in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(printer)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(EpochLine(first))
