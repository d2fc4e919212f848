"""Training loop of one's own over Accelerate; started again after a kill, it goes on from the last finished epoch.

    python accelerate_loop.py RECIPE OUTPUT [KEY=VALUE]...
    accelerate launch accelerate_loop.py RECIPE OUTPUT [KEY=VALUE]...

Of a recipe it takes the model, the data, the order of rows, part consistency, and of `training` what `DEFAULTS` names.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import get_scheduler

from hf_mhex.training import load_recipe, mosaic_loss, part_consistency_loss
from hf_mhex.training.consistency import usual_weight, with_tokens
from hf_mhex.training.job import prepare
from hf_mhex.training.losses import label_entries
from hf_mhex.training.optimisation import EpochSampler

DEFAULTS = {"seed": 0, "num_train_epochs": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
DEFAULTS |= {"use_cpu": False, "bf16": False}


def main(name: str, output: Path, overrides: list[str]) -> None:
    """Train by the recipe, with `DEFAULTS` for what it leaves open, and save the model into `output`/model."""
    recipe = load_recipe(name, overrides)
    given = DEFAULTS | recipe.training
    epochs = int(given["num_train_epochs"])
    accelerator = Accelerator(cpu=given["use_cpu"], mixed_precision="bf16" if given["bf16"] else "no")
    job = prepare(recipe, given["seed"])
    weight = usual_weight(recipe.optimisation.part_consistency, job.model, job.processor)
    parts = with_tokens(recipe.optimisation.consistency(weight), job.processor)
    size = given["per_device_train_batch_size"]
    sampler = EpochSampler(job.train, recipe.optimisation.sampling, given["seed"], size * accelerator.num_processes)
    loader = DataLoader(job.train, size, sampler=sampler, collate_fn=job.collate)
    optimizer = torch.optim.AdamW(job.model.parameters(), given["learning_rate"], weight_decay=0.01)
    model, optimizer, loader = accelerator.prepare(job.model, optimizer, loader)
    scheduler = get_scheduler("cosine", optimizer, 0, epochs * len(loader))
    accelerator.register_for_checkpointing(scheduler)

    states = output / "states"
    first = last_state(states)
    if first:
        accelerator.load_state(states / f"epoch-{first}")
    for epoch in range(first, epochs):
        loader.set_epoch(epoch)  # the rows' order and augmentation are drawn from seed and epoch
        model.train()
        seed = np.random.SeedSequence((given["seed"], epoch)).generate_state(1)[0]
        draws = torch.Generator().manual_seed(int(seed))  # of parts; shared by all processes
        for batch in loader:
            labels = batch.pop("labels")
            items = accelerator.reduce(label_entries(labels), "sum")
            if labels.ndim > 2:
                loss = mosaic_loss(model, batch, labels, items)
            elif parts is not None:
                shard = accelerator.process_index, accelerator.num_processes
                loss = part_consistency_loss(
                    model, batch, labels, parts, generator=draws, num_items_in_batch=items, shard=shard
                )
            else:
                loss = model(**batch, labels=labels, num_items_in_batch=items).loss
            accelerator.backward(loss * accelerator.num_processes)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        accelerator.print(f"epoch {epoch + 1}: loss {accelerator.reduce(loss.detach(), 'sum'):.4f}", flush=True)
        save_state(accelerator, states, epoch + 1)
    whole = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(output / "model", state_dict=whole)
        job.processor.save_pretrained(output / "model")
    accelerator.end_training()


def last_state(states: Path) -> int:
    """How many epochs the latest whole state has behind it, 0 where there is none."""
    return max((int(mark.parent.name.removeprefix("epoch-")) for mark in states.glob("epoch-*/whole")), default=0)


def save_state(accelerator: Accelerator, states: Path, epoch: int) -> None:
    """Save into a folder of its own, mark it whole when every process is done, and only then drop the one before."""
    folder = states / f"epoch-{epoch}"
    accelerator.save_state(folder)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (folder / "whole").touch()
        shutil.rmtree(states / f"epoch-{epoch - 1}", ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
