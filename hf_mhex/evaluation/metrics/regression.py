"""Regression as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import Regression  # noqa: F401 - found by evaluate.load
