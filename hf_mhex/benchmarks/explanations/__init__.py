"""Explanations compared on the same network: every method through every measure, with intervals and controls.

`explain_quality` chooses settings on a validation part and measures once on a test part; every result is one JSON line,
so that a run can stop and go on. `write_report` turns the lines into tables, plots and a page of maps.
`summarise_quality` gives the few figures that a model's card shows.
"""

from hf_mhex.benchmarks.explanations.parts import Images, Sizes, Texts
from hf_mhex.benchmarks.explanations.report import write_report
from hf_mhex.benchmarks.explanations.run import explain_quality
from hf_mhex.benchmarks.explanations.summary import summarise_quality

__all__ = ["Images", "Sizes", "Texts", "explain_quality", "summarise_quality", "write_report"]
