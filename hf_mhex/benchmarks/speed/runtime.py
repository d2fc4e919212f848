"""Calls in ONNX Runtime: the plain network, MHEX's prediction, and the prediction with its map, each a file of its own.

In float32 and with weights in dynamic 8 bits. All are exported alike, with a free batch. Needs the extra `export`.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hf_mhex.benchmarks.speed.methods import INT8, PLAIN, PREDICTED, PREDICTION
from hf_mhex.benchmarks.speed.subjects import Subject, make_networks, make_subject
from hf_mhex.export import quantize_onnx
from hf_mhex.export.graphs import Graph

LARGEST_ERROR = 1e-3  # of a logit in ONNX Runtime, of PyTorch's largest


class Logits(nn.Module):
    """A network's logits [B, K] by inputs that are written out, because exporters name free axes by them."""

    def __init__(self, network: nn.Module, named: bool):
        super().__init__()
        self.network, self.named = network, named

    def forward(self, pixel_values=None, input_ids=None, attention_mask=None, input_values=None):
        """logits, of the inputs that are given."""
        inputs = {"pixel_values": pixel_values, "input_ids": input_ids, "attention_mask": attention_mask}
        given = {name: value for name, value in (inputs | {"input_values": input_values}).items() if value is not None}
        found = self.network(**given) if self.named else self.network(*given.values())
        return {"logits": getattr(found, "logits", found)}


def export(module: nn.Module, inputs: dict[str, torch.Tensor], path: Path) -> Path:
    """Write a module as ONNX, with a free batch."""
    with torch.no_grad():
        outputs = list(module(**inputs))
        program = torch.onnx.export(
            module,
            (),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes={name: {0: "batch"} for name in inputs},
            dynamo=True,
            verbose=False,
        )
    program.save(path)
    return path


@lru_cache(maxsize=1)
def sessions(network: str, size: int, labels: int, threads: int, seed: int) -> dict:
    """A session of ONNX Runtime by method, those in 8 bits with `INT8` behind the name.

    Raises RuntimeError where one in float32 says something else than PyTorch.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    subject = make_subject(make_networks(network, labels, seed), network, 2, size, labels, seed)
    modules: dict[str, nn.Module] = {
        PLAIN: Logits(subject.plain, named=subject.kind == "text"),
        PREDICTION: Logits(subject.mhex, named=True),
        PREDICTED: Graph(subject.mhex, {}),
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (method, module) in enumerate(modules.items()):
            path = export(module.eval(), subject.inputs, Path(folder) / f"{number}.onnx")
            for name, file in (
                (method, path),
                (method + INT8, quantize_onnx(path, path.with_name(f"{number}-int8.onnx"))),
            ):
                found[name] = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
            with torch.no_grad():
                expected = module(**subject.inputs)["logits"].numpy()
            error = np.abs(run(found[method], subject)[0] - expected).max() / np.abs(expected).max()
            if error > LARGEST_ERROR:
                raise RuntimeError(f"{method} of {network} differs by {error:.1e} in ONNX Runtime.")
    return found


def run(session, subject: Subject) -> list[np.ndarray]:
    """All outputs of a session."""
    return session.run(None, {name: value.numpy() for name, value in subject.inputs.items()})
