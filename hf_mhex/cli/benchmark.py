"""`mhex benchmark`: what explanations are worth, measured."""

from __future__ import annotations

import typer

from mhex_cli.benchmark_explanations import explanations

benchmark = typer.Typer(
    name="benchmark",
    help="Measure: `explanations` compares maps with other methods'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
benchmark.command()(explanations)
