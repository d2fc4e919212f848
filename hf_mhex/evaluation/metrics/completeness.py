"""Completeness as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import Completeness  # noqa: F401 - found by evaluate.load
