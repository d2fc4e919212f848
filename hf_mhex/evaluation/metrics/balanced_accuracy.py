"""BalancedAccuracy as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import BalancedAccuracy  # noqa: F401 - found by evaluate.load
