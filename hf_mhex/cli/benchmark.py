"""`mhex benchmark`: what explanations are worth and what they cost, measured."""

from __future__ import annotations

import typer

from hf_mhex.cli.benchmark_explanations import explanations
from hf_mhex.cli.benchmark_paper import paper
from hf_mhex.cli.benchmark_speed import speed

benchmark = typer.Typer(
    name="benchmark",
    help="Measure: `explanations` compares methods, `paper` by the paper's protocol, `speed` costs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for verb in (explanations, paper, speed):
    benchmark.command()(verb)
