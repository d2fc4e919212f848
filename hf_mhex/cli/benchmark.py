"""`mhex benchmark`: what explanations are worth and what they cost, measured."""

from __future__ import annotations

import typer

from mhex_cli.benchmark_explanations import explanations
from mhex_cli.benchmark_speed import speed

benchmark = typer.Typer(
    name="benchmark",
    help="Measure: `explanations` compares maps with other methods', `speed` what they cost.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
benchmark.command()(explanations)
benchmark.command()(speed)
