"""Exported files beside PyTorch, and 8-bit files beside those that they were made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from hf_mhex.data.images import read_image
from hf_mhex.export.graphs import Graph, graph_of
from hf_mhex.export.onnx import open_onnx, run_onnx
from hf_mhex.families import family_of
from hf_mhex.modeling.mhex_maps import select_classes
from hf_mhex.processors import max_length

LARGEST_ERROR = 1e-4  # of an exported graph against PyTorch, relative to the largest value where that exceeds 1


@dataclass(frozen=True)
class Agreement:
    """How an exported file agrees with PyTorch.

    `error` is the largest difference of any output, relative to the output's largest value where that exceeds 1.
    `by_sum` of the `rows` maps were judged by their sums: a channel whose mean is 0 up to rounding is in one map and
    not in the other, which moves values and no sum.
    """

    error: float
    rows: int
    by_sum: int


def largest_error(model, path: str | PathLike, **options) -> float:
    """The `error` of `agreement`, whose arguments it takes."""
    return agreement(model, path, **options).error


def agreement(model, path: str | PathLike, **options) -> Agreement:
    """Run an exported file (.onnx or .pt2) beside PyTorch over `Graph.cases`.

    Maps are judged value by value. Those that differ so by more than LARGEST_ERROR are judged by their sums as long as
    they are at most an eighth of all: rounding strikes single rows, a wrong graph most of them.

    Args:
        model, options: what was exported.
    """
    graph = graph_of(model, **options)
    if Path(path).suffix == ".pt2":
        program = torch.export.load(path).module()
    else:
        session = open_onnx(path)

        def program(**inputs):
            return {name: torch.from_numpy(found) for name, found in run_onnx(session, inputs).items()}

    errors, by_value, by_sum = [], [], []
    with torch.no_grad():
        for inputs in graph.cases():
            found = program(**inputs)
            for name, value in graph(**inputs).items():
                size = max(1.0, value.abs().max().item())
                difference = (found[name] - value).flatten(1)
                if name != "saliency":
                    errors.append(difference.abs().max().item() / size)
                    continue
                by_value += (difference.abs().amax(1) / size).tolist()
                by_sum += (difference.double().sum(1).abs() / max(1.0, value.flatten(1).sum(1).abs().max())).tolist()
    parted = [row for row, error in enumerate(by_value) if error > LARGEST_ERROR]
    if options.get("normalize") is not None or 8 * len(parted) > len(by_value):
        parted = []  # a normalised map has no sum to keep
    errors += [by_sum[row] if row in parted else error for row, error in enumerate(by_value)]
    return Agreement(max(errors), len(by_value), len(parted))


@dataclass(frozen=True)
class Quantisation:
    """What 8 bits changed, over some rows, and what they saved.

    `logits` is the largest change relative to the largest logit, `labels` the share of rows with the same label,
    `map` the mean over rows of |change of the map| / |map| (Euclidean), `correlation` the mean correlation of the two
    maps, and `completeness` the largest |sum of the 8-bit map - what it explains in its own logits| relative to the
    largest logit.
    """

    megabytes_before: float
    megabytes_after: float
    logits: float
    labels: float
    map: float
    correlation: float
    completeness: float


def compare_quantised(before: str | PathLike, after: str | PathLike, batches) -> Quantisation:
    """Run two exported files on `batches` (dicts of inputs) and say what changed; maps should be raw, of all blocks."""
    sessions = [open_onnx(path) for path in (before, after)]
    pairs = [[run_onnx(session, inputs) for session in sessions] for inputs in batches]
    logits = [np.concatenate([pair[which]["logits"] for pair in pairs]) for which in (0, 1)]
    maps = [[row.ravel() for pair in pairs for row in pair[which]["saliency"]] for which in (0, 1)]
    size = np.abs(logits[0]).max()
    changes = [np.linalg.norm(two - one) / np.linalg.norm(one) for one, two in zip(*maps)]
    alike = [np.corrcoef(one, two)[0, 1] for one, two in zip(*maps)]
    sums = np.array([found.sum(dtype=np.float64) for found in maps[1]])
    made_for = json.loads(sessions[0].get_modelmeta().custom_metadata_map.get("saliency", "{}"))
    explained = explained_in(logits[1], made_for.get("target"), made_for.get("contrast"))
    return Quantisation(
        megabytes_before=Path(before).stat().st_size / 1e6,
        megabytes_after=Path(after).stat().st_size / 1e6,
        logits=float(np.abs(logits[1] - logits[0]).max() / size),
        labels=float((logits[0].argmax(-1) == logits[1].argmax(-1)).mean()),
        map=float(np.mean(changes)),
        correlation=float(np.mean(alike)),
        completeness=float(np.abs(sums - explained).max() / size),
    )


def explained_in(logits: np.ndarray, target: int | None, contrast: str | int | None) -> np.ndarray:
    """What a map of `target` and `contrast` adds up to, [N], by the logits [N, K]."""
    values = torch.from_numpy(logits).double()
    chosen = None if target is None else torch.tensor([target])
    weights = select_classes(chosen, contrast, values.shape[-1], values, values)[2]
    return (weights[:, 0] * values).sum(-1).numpy()


def comparison_rows(model, processor) -> tuple[list[dict[str, torch.Tensor]], str]:
    """Inputs to compare graphs of a model on, and what they are: rows of the embedded sample where the model reads
    them (it may be of other bands or another length), else the random ones that `Graph.cases` gives.
    """
    try:
        batches = sample_batches(model, processor)
        with torch.no_grad():
            model(**batches[0])
    except (ValueError, ModuleNotFoundError):
        batches, named = list(Graph(model, {}).cases()), "random inputs"
    else:
        named = f"test rows of sample:{family_of(model).input.sample}"
    return batches, f"{sum(len(next(iter(batch.values()))) for batch in batches)} {named}"


def sample_batches(model, processor, rows: int = 32, size: int = 8) -> list[dict[str, torch.Tensor]]:
    """Inputs of a graph from the test rows of the embedded sample of the model's kind, `size` a batch."""
    from hf_mhex.data.samples import load_sample

    kind = family_of(model).input
    values = load_sample(kind.sample)["test"][:rows][kind.column]
    names = Graph(model, {}).axes
    batches = []
    for start in range(0, len(values), size):
        part = values[start : start + size]
        if kind.name == "image":
            images = [read_image(value, model.config.num_channels) for value in part]
            batches.append(dict(processor(images, return_tensors="pt")))
        elif kind.name == "signal":
            batches.append(dict(processor(part, return_tensors="pt")))
        else:
            limit = {"padding": True, "truncation": True, "max_length": max_length(model, processor)}
            found = processor(part, return_tensors="pt", **limit)
            batches.append({name: found.get(name, torch.zeros_like(found["input_ids"])) for name in names})
    return batches


def as_record(found: Quantisation) -> dict[str, float]:
    """The figures by name, to three digits."""
    return {name: float(f"{value:.3g}") for name, value in asdict(found).items()}
