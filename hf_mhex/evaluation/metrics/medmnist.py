"""Medmnist as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import Medmnist  # noqa: F401 - found by evaluate.load
