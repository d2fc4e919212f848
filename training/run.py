"""A run of a recipe over transformers' Trainer, which leaves a model, a log and a result row (`mhex train`).

OUTPUT/recipe.yaml   the recipe with every override
OUTPUT/checkpoints   Trainer's, to resume from
OUTPUT/model         the (best) model with its processor: a folder ready for the Hub
OUTPUT/log.json      every logged step
OUTPUT/result.json   seed, versions, minutes, sizes and metrics of the validation and test rows
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import yaml

from hf_mhex.evaluation.metrics import measure
from hf_mhex.evaluation.metrics.scores import Undefined
from hf_mhex.evaluation.part_removal import part_removal, tokenizer_options
from hf_mhex.modeling.mhex import MHEXClassifierMixin
from hf_mhex.training.consistency import usual_weight
from hf_mhex.training.job import Job, check_batch, prepare
from hf_mhex.training.progress import tell_by_epoch
from hf_mhex.training.recipe import Recipe
from hf_mhex.training.trainer import MHEXTrainer
from hf_mhex.writing import write_whole

MINILM = "sentence-transformers/all-MiniLM-L6-v2"  # what recipes call minilm
FILES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".npz", ".txt", ".safetensors")
PACKAGES = ("hf-mhex", "torch", "transformers", "timm", "accelerate", "datasets")


def train(recipe: Recipe, output: Path, resume: bool = False) -> dict:
    """Train by `recipe` into the folder `output` and return the result row.

    Args:
        resume: go on from the last checkpoint in `output`, or start where there is none.

    Raises ValueError for an output that holds another run, and for whatever in recipe or data does not fit.
    """
    checkpoints = output / "checkpoints"
    claim(output, recipe, resume)  # before the processes meet, so that none sees what another has begun
    arguments = recipe.training_arguments(checkpoints)
    job = prepare(recipe, arguments.seed)
    check_batch(job.train, arguments.per_device_train_batch_size * arguments.world_size)
    check_metrics(recipe, job)
    keep_recipe(recipe, output, arguments.process_index == 0)
    trainer = make_trainer(recipe, arguments, job)
    last = last_whole_checkpoint(checkpoints) if resume else None
    finished = trainer.train(resume_from_checkpoint=last)
    save_model(trainer, job, output)
    row = describe(recipe, job, arguments.seed, arguments.world_size, arguments.device) | {
        "minutes": round(finished.metrics["train_runtime"] / 60, 2),
        "resumed": last is not None,
        "steps": trainer.state.global_step,
        "best_step": best_step(trainer),
        "validation": scores(trainer, job.validation, "validation"),
        "test": scores(trainer, job.test, "test"),
    }
    if arguments.world_size == 1 and isinstance(job.model, MHEXClassifierMixin):
        row["part_removal"] = without_parts(job, arguments.seed)
    if trainer.is_world_process_zero():
        write_whole(output / "log.json", json.dumps(trainer.state.log_history, indent=1) + "\n")
        write_whole(output / "result.json", json.dumps(row, indent=1) + "\n")
    return row


def check_metrics(recipe: Recipe, job: Job) -> None:
    """ValueError where a metric that the recipe names has no value on the rows that it is asked of."""
    for split, rows in (("validation", job.validation), ("test", job.test)):
        labels = rows.labels
        try:
            logits = np.zeros((len(labels), len(job.names)))
            measure(recipe.evaluation.metrics or [], logits, labels, recipe.model.problem_type)
        except Undefined as error:
            raise ValueError(f"evaluation.metrics cannot be had on the {split} rows: {error}") from error


def make_trainer(recipe: Recipe, arguments, job: Job) -> MHEXTrainer:
    """The Trainer of a job."""
    asked = usual_weight(recipe.optimisation.part_consistency, job.model, job.processor, arguments.torch_compile)
    trainer = MHEXTrainer(
        optimisation=recipe.optimisation,
        metrics=recipe.evaluation.metrics,
        part_consistency=recipe.optimisation.consistency(asked),
        model=job.model,
        args=arguments,
        train_dataset=job.train,
        eval_dataset=job.validation,
        data_collator=job.collate,
    )
    parts = trainer.part_consistency
    told = f"{parts.share:.0%} of the rows pass once more without some of their parts" if parts else None
    tell_by_epoch(trainer, told and f"{told}; part_consistency=null leaves that out")
    return trainer


def claim(output: Path, recipe: Recipe, resume: bool) -> None:
    """ValueError unless `output` is free, or is to be resumed and was started by the same recipe."""
    known = output / "recipe.yaml"
    if resume and known.is_file():
        if yaml.safe_load(known.read_text(encoding="utf-8")) != json.loads(json.dumps(recipe.sections())):
            raise ValueError(f"OUTPUT {str(output)!r} was started by another recipe (see recipe.yaml in it).")
        return
    held = list(output.iterdir()) if output.is_dir() else [output] * output.exists()
    if resume and not all(path.name.startswith(".") for path in held):  # of a run that never began
        raise ValueError(f"OUTPUT {str(output)!r} holds no run to resume (no recipe.yaml); name the run's folder.")
    if held and not resume:
        raise ValueError(f"OUTPUT {str(output)!r} exists and is not empty; name a new folder, or --resume its run.")


def last_whole_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint that a kill has not cut short: Trainer writes trainer_state.json last."""
    found = {}
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        with contextlib.suppress(ValueError):
            found[json.loads(state.read_text(encoding="utf-8"))["global_step"]] = str(state.parent)
    return found[max(found)] if found else None


def keep_recipe(recipe: Recipe, output: Path, main: bool) -> None:
    """Write recipe.yaml, on the main process."""
    if main:
        write_whole(output / "recipe.yaml", yaml.safe_dump(recipe.sections(), sort_keys=False))


def best_step(trainer: MHEXTrainer) -> int:
    """The step whose weights were kept."""
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    return int(best.rsplit("-", 1)[1]) if best else trainer.state.global_step


def scores(trainer: MHEXTrainer, rows, split: str) -> dict[str, float]:
    """Metrics of a split, without Trainer's measures of speed."""
    found = trainer.evaluate(rows, metric_key_prefix=split)
    found = {name.removeprefix(f"{split}_"): value for name, value in found.items() if name.startswith(split)}
    speed = ("runtime", "per_second", "preparation_time")
    return {name: round(value, 6) for name, value in found.items() if not name.endswith(speed)}


def without_parts(job: Job, seed: int) -> dict | None:
    """What the maps say of parts of some test rows beside what the model says without them; None for too short rows."""
    order = torch.randperm(len(job.test), generator=torch.Generator().manual_seed(seed))
    batches = (job.collate([job.test[row]]) for row in order.tolist())
    with contextlib.suppress(ValueError):
        return part_removal(job.model.eval(), batches, seed=seed, **tokenizer_options(job.processor)).as_dict()
    return None


def describe(recipe: Recipe, job: Job, seed: int, processes: int, device) -> dict:
    """What a result row says of a run besides its result."""
    return {
        "recipe": recipe.name,
        "note": recipe.evaluation.note,
        "kind": recipe.model.kind,
        "seed": seed,
        "rows": {"train": len(job.train), "validation": len(job.validation), "test": len(job.test)},
        "skipped": job.skipped,
        "from_hub": from_hub(recipe),
        "labels": job.names if len(job.names) <= 100 else len(job.names),
        "parameters": sum(parameter.numel() for parameter in job.model.parameters()),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def from_hub(recipe: Recipe) -> dict:
    """Base model and data set as metadata of a card name them, where they are "user/name" and no path here."""
    weights, source = recipe.model.weights, recipe.data.source
    weights = MINILM if weights == "minilm" else weights
    base = {"base_model": weights} if is_hub_id(weights) else {}
    named = {"datasets": [source], "dataset_type": source, "dataset_name": source}
    return base | (named if is_hub_id(source) else {})


def is_hub_id(name: str | None) -> bool:
    """Whether a name is "user/name", and neither a path of this machine nor a file."""
    flat = name is not None and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name)
    return bool(flat) and not Path(name or "").exists() and Path(name or "").suffix not in FILES


def save_model(trainer: MHEXTrainer, job: Job, output: Path) -> None:
    """Model and processor. Trainer's pickle of its arguments is no part of a model."""
    begun, done = output / ".model", output / "model"  # one folder for all processes, renamed when it is whole
    try:
        trainer.save_model(str(begun))
        if trainer.is_world_process_zero():
            (begun / "training_args.bin").unlink(missing_ok=True)
            job.processor.save_pretrained(begun)
            shutil.rmtree(done, ignore_errors=True)  # of the run that is resumed
            begun.rename(done)
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise
