"""GridPointing as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import GridPointing  # noqa: F401 - found by evaluate.load
