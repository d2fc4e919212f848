"""`mhex benchmark`: what explanations are worth and what they cost, measured."""

from __future__ import annotations

import typer

from hf_mhex.cli.benchmark_explanations import explanations
from hf_mhex.cli.benchmark_paper import paper
from hf_mhex.cli.benchmark_speed import speed
from hf_mhex.cli.benchmark_stability import stability

benchmark = typer.Typer(
    name="benchmark",
    help="Measure: `explanations` and `paper` compare, `stability` changes inputs, `speed` costs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for verb in (explanations, paper, stability, speed):
    benchmark.command()(verb)
