"""PointingGame as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import PointingGame  # noqa: F401 - found by evaluate.load
