"""Memory of an evaluation: plain logits alone are kept, so a deep network needs no more than a shallow one."""

import gc

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_mhex.training.job import prepare
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.run import make_trainer
from schemas import write_medmnist

ROWS, BATCH, LABELS = 48, 8, 12
RECIPE = """
model: {architecture: resnet18}
processing: {image_size: 28, crop_pct: 1.0}
training: {per_device_eval_batch_size: 8, use_cpu: true, seed: 0}
evaluation: {metrics: [accuracy]}
"""


def by_recipe(recipe, job, folder):
    """The recipe's Trainer."""
    return make_trainer(recipe, recipe.training_arguments(folder), job).evaluate(job.test)["eval_accuracy"]


def by_trainer(recipe, job, folder):
    """transformers' Trainer as it is."""

    def compute_metrics(found):
        assert isinstance(found.predictions, np.ndarray)
        assert found.predictions.shape == (ROWS, LABELS)
        return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}

    given = {"report_to": "none", "remove_unused_columns": False, "dataloader_pin_memory": False, **recipe.training}
    arguments = TrainingArguments(str(folder), **given)
    trainer = Trainer(job.model, arguments, data_collator=job.collate, compute_metrics=compute_metrics)
    return trainer.evaluate(job.test)["eval_accuracy"]


class Watched:
    """A collator that notes, before each batch, how many bytes of tensors are alive."""

    def __init__(self, collate):
        self.collate, self.bytes = collate, []

    def __call__(self, rows):
        gc.collect()
        alive = {found.untyped_storage().data_ptr(): found for found in gc.get_objects() if type(found) is torch.Tensor}
        self.bytes.append(sum(found.untyped_storage().nbytes() for found in alive.values()))
        return self.collate(rows)


@pytest.mark.usefixtures("only_new_objects_collected")
@pytest.mark.parametrize("evaluate", [by_recipe, by_trainer])
def test_growth_over_the_batches_does_not_depend_on_the_blocks(evaluate, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    source = write_medmnist(tmp_path / "set.npz", LABELS, colour=True, counts=(24, 24, ROWS))
    grown, accuracies = [], []
    for blocks in (1, 4):
        network = f"{{layers: [{blocks}, {blocks}, {blocks}, {blocks}], channels: [8, 8, 12, 12]}}"
        changes = [f"source={source}", f"model.architecture_kwargs={network}"]
        recipe = load_recipe(str(tmp_path / "recipe.yaml"), changes)
        job = prepare(recipe, 0)
        assert job.model.num_blocks == 4 * blocks
        job.collate = Watched(job.collate)
        accuracies.append(evaluate(recipe, job, tmp_path / "run"))
        first, last = job.collate.bytes[2], job.collate.bytes[5]
        grown.append(last - first)
    logits_and_labels = 3 * BATCH * (LABELS * 4 + 8)
    assert grown[0] == grown[1]
    assert logits_and_labels <= grown[0] < 1.5 * logits_and_labels
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
