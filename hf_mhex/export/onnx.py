"""ONNX: writing, running and quantising a model with its saliency. Needs the extra `export`."""

from __future__ import annotations

import json
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import torch

from hf_mhex.environment import EXTRAS, missing_extra
from hf_mhex.export.graphs import OUTPUTS, graph_of
from hf_mhex.writing import whole


def export_onnx(model, path: str | PathLike, **options) -> Path:
    """Write a model with its saliency as ONNX; which axes are free says `Graph`. Arguments: see `graph_of`.

    Inputs and outputs have the names of `Graph`; labels and options stand in the file's metadata.

    Raises ValueError for a model that is not in float32, RuntimeError where the extra is missing.
    """
    _check_extra()
    if model.dtype != torch.float32:
        raise ValueError(f"model must be in float32 to become ONNX, got {model.dtype}; load it with dtype='float32'.")
    graph = graph_of(model, **options)
    with torch.no_grad():
        program = torch.onnx.export(
            graph,
            (),
            kwargs=graph.example(),
            input_names=list(graph.axes),
            output_names=list(OUTPUTS),
            dynamic_shapes=graph.axes,
            dynamo=True,
            verbose=False,
        )
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    program.model.metadata_props.update({"labels": json.dumps(labels), "saliency": json.dumps(options)})
    path = Path(path)
    with whole(path) as place:
        program.save(place)
    return path


def open_onnx(path: str | PathLike):
    """An onnxruntime session on the CPU."""
    _check_extra()
    import onnxruntime

    return onnxruntime.InferenceSession(fspath(path), providers=["CPUExecutionProvider"])


def run_onnx(session, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The outputs by name of a session, see `open_onnx`."""
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {name: value.numpy() for name, value in inputs.items()})))


def quantize_onnx(path: str | PathLike, output: str | PathLike) -> Path:
    """Dynamic 8-bit quantisation of an exported file's weights, by onnxruntime; gates and heads are left out.

    So the maps still add up to the quantised network's logits. Matrices get a scale a channel; convolutions, of which
    onnxruntime's dynamic kernels want unsigned weights with one scale, get smaller, not faster.
    """
    _check_extra()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(fspath(path)).graph
    convolutions = any(node.op_type == "Conv" for node in graph.node)
    quantize_dynamic(
        fspath(path),
        fspath(output),
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        weight_type=QuantType.QUInt8 if convolutions else QuantType.QInt8,
        per_channel=not convolutions,
        nodes_to_exclude=_own_nodes(graph),
    )
    return Path(output)


def _own_nodes(graph) -> list[str]:
    """Names of the nodes that read a gate's or a head's weight, directly or turned around.

    The quantiser first makes a MatMul of each Gemm, and names it anew.
    """
    ours = {tensor.name for tensor in graph.initializer if ".gate." in tensor.name or ".heads." in tensor.name}
    names = []
    for node in graph.node:
        if ours.intersection(node.input):
            names += [node.name, f"{node.name}_MatMul"]
            if node.op_type in ("Transpose", "Cast", "Identity"):
                ours.update(node.output)
    return names


def _check_extra() -> None:
    """Raise RuntimeError, naming the extra, where one of its modules is missing."""
    for module in EXTRAS["export"]:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise RuntimeError(missing_extra(error) or str(error)) from error
