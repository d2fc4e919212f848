"""Costs of an explanation: ratios of time and memory, measured side by side in one process.

The parts of a table are `comparison` (the network it starts from, MHEX's predictions and maps, methods of one backward
pass), `passes` (methods of many passes, one row at a time), `growth` (with batch, image size, length, classes and
blocks), `memory` (a fresh process each), `families` (each beside its plain network), `profile` (every operator's own
time), `compiled` (by torch.compile) and `onnx` (in ONNX Runtime, with the extra "export"). Networks are named as in
`subjects.find_source`, so any family can be timed beside its plain twin. Other methods come with the extra "bench".
"""

from hf_mhex.benchmarks.speed.cases import PARTS
from hf_mhex.benchmarks.speed.report import write_report
from hf_mhex.benchmarks.speed.run import measure_speed

__all__ = ["PARTS", "measure_speed", "write_report"]
