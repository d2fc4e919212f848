"""Accuracy as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import Accuracy  # noqa: F401 - found by evaluate.load
