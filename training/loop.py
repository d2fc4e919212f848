"""What does training MHEX take without a Trainer? One lean loop over Accelerate, for either family.

It reads the same recipes; of `training` it takes what `LOOP_KEYS` names and refuses the rest. A killed run goes on from
the last finished epoch.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import get_scheduler

from hf_mhex.evaluation.metrics import measure
from hf_mhex.training.job import Job, check_batch, prepare
from hf_mhex.training.losses import labels_by_row, recipe_loss
from hf_mhex.training.optimisation import EpochSampler, freeze, parameter_groups
from hf_mhex.training.recipe import Recipe
from hf_mhex.training.run import claim, describe, keep_recipe

LOOP_KEYS = {
    "seed": 42,
    "num_train_epochs": 3,
    "max_steps": -1,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "activation_checkpointing": False,
    "learning_rate": 5e-5,
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0,
    "bf16": False,
    "use_cpu": False,
}
TRAINER_ONLY = ("eval_", "save_", "logging_", "load_best", "metric_for", "greater_is", "dataloader_", "report_to")


def settings_of(recipe: Recipe) -> dict:
    """What the loop takes of a recipe's `training`; ValueError for a key whose absence would change the result."""
    strange = [key for key in recipe.training if key not in LOOP_KEYS and not key.startswith(TRAINER_ONLY)]
    if strange or recipe.optimisation.early_stopping_patience is not None:
        named = f"training.{strange[0]}" if strange else "optimisation.early_stopping_patience"
        raise ValueError(f"{named} is Trainer's; the Accelerate loop takes {', '.join(LOOP_KEYS)}.")
    return LOOP_KEYS | {key: value for key, value in recipe.training.items() if key in LOOP_KEYS}


def train(recipe: Recipe, output: Path, resume: bool = False) -> dict:
    """Train by `recipe` into the folder `output` and return the result row; the last weights are kept.

    Raises ValueError as `hf_mhex.training.run.train` does, and for keys that only Trainer knows.
    """
    given = settings_of(recipe)
    claim(output, recipe, resume)  # before the processes meet, so that none sees what another has begun
    accelerator = Accelerator(mixed_precision="bf16" if given["bf16"] else "no", cpu=given["use_cpu"])
    job = prepare(recipe, given["seed"])
    check_batch(job.train, given["per_device_train_batch_size"] * accelerator.num_processes)
    keep_recipe(recipe, output, accelerator.is_main_process)
    still = freeze(job.model, recipe.optimisation)
    if given["activation_checkpointing"]:
        job.model.gradient_checkpointing_enable()
    row = describe(recipe, job, given["seed"], accelerator.num_processes, accelerator.device)
    started = time.perf_counter()
    log = run_epochs(accelerator, job, recipe, given, still, output / "checkpoints")
    row |= {"minutes": round((time.perf_counter() - started) / 60, 2), "steps": len(log)}
    for split, rows in (("validation", job.validation), ("test", job.test)):
        row[split] = evaluate(accelerator, job, rows, recipe, given["per_device_eval_batch_size"])
    accelerator.unwrap_model(job.model).save_pretrained(
        output / "model",
        is_main_process=accelerator.is_main_process,
        state_dict=accelerator.get_state_dict(job.model),
    )
    if accelerator.is_main_process:
        job.processor.save_pretrained(output / "model")
        (output / "log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
        (output / "result.json").write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return row


def run_epochs(
    accelerator: Accelerator, job: Job, recipe: Recipe, given: dict, still: list, folder: Path
) -> list[dict]:
    """All epochs, from the first or from the last one that `folder` keeps the end of; the log, one entry a step."""
    size, accumulate = given["per_device_train_batch_size"], given["gradient_accumulation_steps"]
    whole = size * accumulate * accelerator.num_processes
    sampler = EpochSampler(job.train, recipe.optimisation.sampling, given["seed"], whole)
    loader = DataLoader(job.train, batch_size=size, sampler=sampler, collate_fn=job.collate)
    rate, decay = given["learning_rate"], given["weight_decay"]
    decayed = {name for name, weight in job.model.named_parameters() if weight.ndim > 1}
    job.model, loader = accelerator.prepare(job.model, loader)
    groups = parameter_groups(job.model, recipe.optimisation, rate, decay, decayed)
    optimizer = accelerator.prepare(torch.optim.AdamW(groups, lr=rate))
    per_epoch = -(-len(loader) // accumulate)
    steps = given["max_steps"] if given["max_steps"] > 0 else int(given["num_train_epochs"] * per_epoch)
    warmup = given["warmup_steps"] if given["warmup_steps"] >= 1 else round(given["warmup_steps"] * steps)
    scheduler = get_scheduler(given["lr_scheduler_type"], optimizer, int(warmup), steps)
    accelerator.register_for_checkpointing(scheduler)
    log: list[dict] = []
    first = 0
    if (folder / "last").is_dir():
        accelerator.load_state(folder / "last")
        log = json.loads((folder / "last" / "log.json").read_text(encoding="utf-8"))
        first = -(-len(log) // per_epoch)
    for epoch in range(first, -(-steps // per_epoch)):
        loader.set_epoch(epoch)
        for batches in grouped(loader, accumulate):
            entry = step(accelerator, job, batches, optimizer, still, given["max_grad_norm"])
            log.append({"step": len(log) + 1, "epoch": epoch, "learning_rate": scheduler.get_last_lr()[0], **entry})
            scheduler.step()
            if len(log) == steps:
                return log
        print_on_main(accelerator, log[-1])
        keep_state(accelerator, folder, log)
    return log


def step(accelerator: Accelerator, job: Job, batches: list[dict], optimizer, still: list, max_grad_norm: float) -> dict:
    """One step of the optimiser over the micro-batches of every process; the loss is that of all of them as one."""
    model, config = job.model.train(), accelerator.unwrap_model(job.model).config
    for norm in still:
        norm.eval()
    entries = sum((batch["labels"] != -100).sum() for batch in batches)
    items = accelerator.reduce(entries, "sum")
    total = 0.0
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(model), accelerator.autocast():
            outputs = model(**batch, num_items_in_batch=items)
            loss, _ = recipe_loss(outputs, labels_by_row(batch["labels"]), config, job.class_weights, items)
            accelerator.backward(loss * accelerator.num_processes)
        total = total + loss.detach()
    norm = accelerator.clip_grad_norm_(model.parameters(), max_grad_norm if max_grad_norm > 0 else float("inf"))
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": float(accelerator.reduce(total, "sum")), "grad_norm": float(norm)}


@torch.no_grad()
def evaluate(accelerator: Accelerator, job: Job, rows, recipe: Recipe, batch_size: int) -> dict[str, float]:
    """The recipe's metrics on `rows`; only logits and labels are kept."""
    model = job.model.eval()
    logits, labels = [], []
    for batch in accelerator.prepare(DataLoader(rows, batch_size=batch_size, collate_fn=job.collate)):
        found = accelerator.gather_for_metrics((model(**batch).logits, batch["labels"]))
        logits.append(found[0].float().cpu().numpy())
        labels.append(found[1].cpu().numpy())
    kind = recipe.model.problem_type
    return measure(recipe.evaluation.metrics, np.concatenate(logits), np.concatenate(labels), kind)


def grouped(loader, size: int) -> Iterator[list[dict]]:
    """Batches in lists of `size`, the last one maybe shorter."""
    found: list[dict] = []
    for batch in loader:
        found.append(batch)
        if len(found) == size:
            yield found
            found = []
    if found:
        yield found


def print_on_main(accelerator: Accelerator, entry: dict) -> None:
    """One line a finished epoch."""
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in entry.items())
    accelerator.print(numbers, flush=True)


def keep_state(accelerator: Accelerator, folder: Path, log: list[dict]) -> None:
    """Save the state beside the last one, then let it take its place, so that a kill leaves one of them whole."""
    accelerator.save_state(folder / "next", safe_serialization=True)
    if accelerator.is_main_process:
        (folder / "next" / "log.json").write_text(json.dumps(log), encoding="utf-8")
        shutil.rmtree(folder / "before", ignore_errors=True)
        if (folder / "last").is_dir():
            (folder / "last").rename(folder / "before")
        (folder / "next").rename(folder / "last")
        shutil.rmtree(folder / "before", ignore_errors=True)
    accelerator.wait_for_everyone()
