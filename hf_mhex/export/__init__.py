"""Graphs outside PyTorch's eager mode, explanations included: torch.export, ONNX, 8 bits.

`export_program` and `export_onnx` write a model as one graph, `agreement` runs it beside PyTorch.
"""

from hf_mhex.export.checking import (
    LARGEST_ERROR,
    Agreement,
    Quantisation,
    agreement,
    as_record,
    compare_quantised,
    comparison_rows,
    largest_error,
    sample_batches,
)
from hf_mhex.export.graphs import Graph, export_program, graph_of
from hf_mhex.export.onnx import export_onnx, open_onnx, quantize_onnx, run_onnx

__all__ = [
    "LARGEST_ERROR",
    "Agreement",
    "Graph",
    "Quantisation",
    "agreement",
    "as_record",
    "compare_quantised",
    "comparison_rows",
    "export_onnx",
    "export_program",
    "graph_of",
    "largest_error",
    "open_onnx",
    "quantize_onnx",
    "run_onnx",
    "sample_batches",
]
