"""The cost of a training step of MHEX beside the plain network's: time, parameters and memory, step by step in turn.

    python -m hf_mhex.training.studies.step_cost [ROUNDS]

prints one JSON row a network. A step is forward, loss, backward and AdamW (fused, Trainer's default), on random inputs.
`time_ratio` is the median over rounds in which the two networks take turns; `parts_ratio` is that of a step of MHEX
with part consistency to one without, and `rows_ratio` that of half as many rows more, which is the least it can cost.
Parts are drawn for half of the rows exactly, so that rounds are alike. Memory is counted, not sampled: 16 bytes a
parameter (weight, gradient, AdamW's two moments) and what autograd keeps for the backward pass.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from unittest.mock import patch

import torch

from hf_mhex.training import consistency
from hf_mhex.training.consistency import PartConsistency, draw_parts, part_consistency_loss
from hf_mhex.training.models import build
from hf_mhex.training.settings import ModelSettings, ProcessingSettings

LABELS = 10
CASES = {  # what is measured: the network, the batch, and its pixels or tokens
    "resnet18, 224 px, batch 8": ({"architecture": "resnet18"}, 8, 224),
    "resnet50, 224 px, batch 8": ({"architecture": "resnet50"}, 8, 224),
    "resnet50, 224 px, batch 32": ({"architecture": "resnet50"}, 32, 224),
    "resnet18, 56 px, batch 64": ({"architecture": "resnet18"}, 64, 56),
    "MiniLM-L6, 64 tokens, batch 32": ({"family": "bert", "weights": "minilm"}, 32, 64),
}


def pair(network: dict) -> list:
    """MHEX and its plain twin, in training mode."""
    names = [str(label) for label in range(LABELS)]
    settings = [ModelSettings(kind=kind, **network) for kind in ("mhex", "plain")]
    return [build(found, ProcessingSettings(), names)[0].train() for found in settings]


def inputs_for(model, batch: int, size: int) -> dict:
    """Random images of `size` pixels, or texts of `size` tokens without padding."""
    labels = {"labels": torch.arange(batch) % LABELS}
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(batch, 3, size, size)} | labels
    return {"input_ids": torch.randint(1000, 20000, (batch, size))} | labels


def kept_bytes(model, inputs: dict) -> int:
    """Bytes that autograd keeps between forward and backward, weights left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**inputs).loss
    del loss
    return sum(found.values())


def measure(case: str, rounds: int) -> dict:
    """One row: the pair's times in turn, and what each holds."""
    torch.manual_seed(0)
    network, batch, size = CASES[case]
    models = pair(network)
    inputs = inputs_for(models[0], batch, size)
    larger = inputs_for(models[0], batch + batch // 2, size)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True) for model in models]

    def half(given, mask, labels, settings, *draws) -> list:
        return draw_parts(given, mask, labels, PartConsistency(share=1.0), *draws)[::2]

    def step(number: int, given: dict = inputs, parts: bool = False) -> float:
        started = time.perf_counter()
        loss = part_consistency_loss(models[0], given, given["labels"]) if parts else models[number](**given).loss
        loss.backward()
        optimizers[number].step()
        optimizers[number].zero_grad()
        return time.perf_counter() - started

    times, with_parts, with_rows = [], [], []
    with patch.object(consistency, "draw_parts", half):
        step(0), step(1), step(0, larger), step(0, parts=True)
        for number in range(rounds):
            first = step(number % 2)
            second = step(1 - number % 2)
            times.append((first, second) if number % 2 == 0 else (second, first))
            with_rows.append(step(0, larger) / times[-1][0])
            with_parts.append(step(0, parts=True) / times[-1][0])
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in models]
    kept = [kept_bytes(model, inputs) for model in models]
    totals = [16 * size + activations for size, activations in zip(sizes, kept)]
    return {
        "network": case,
        "time_ratio": round(statistics.median(mhex / plain for mhex, plain in times), 3),
        "parts_ratio": round(statistics.median(with_parts), 3),
        "rows_ratio": round(statistics.median(with_rows), 3),
        "seconds_mhex": round(statistics.median(mhex for mhex, _ in times), 3),
        "seconds_plain": round(statistics.median(plain for _, plain in times), 3),
        "parameters_mhex": sizes[0],
        "parameters_plain": sizes[1],
        "activation_megabytes_mhex": round(kept[0] / 1e6, 1),
        "activation_megabytes_plain": round(kept[1] / 1e6, 1),
        "memory_ratio": round(totals[0] / totals[1], 3),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    for name in CASES:
        print(json.dumps(measure(name, int(sys.argv[1]) if len(sys.argv) > 1 else 15)), flush=True)
