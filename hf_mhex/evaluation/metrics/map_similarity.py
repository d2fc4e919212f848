"""MapSimilarity as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import MapSimilarity  # noqa: F401 - found by evaluate.load
