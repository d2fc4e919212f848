"""MacroF1 as an `evaluate` module."""

from hf_mhex.evaluation.metrics.modules import MacroF1  # noqa: F401 - found by evaluate.load
