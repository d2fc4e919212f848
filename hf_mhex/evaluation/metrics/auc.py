"""Auc as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import Auc  # noqa: F401 - found by evaluate.load
