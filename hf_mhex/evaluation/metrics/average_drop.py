"""AverageDrop as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import AverageDrop  # noqa: F401 - found by evaluate.load
