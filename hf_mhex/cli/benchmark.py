"""`mhex benchmark`: what explanations are worth and what they cost, measured."""

from __future__ import annotations

import typer

from mhex_cli.benchmark_accuracy import ablation, accuracy
from mhex_cli.benchmark_explanations import explanations
from mhex_cli.benchmark_speed import speed

benchmark = typer.Typer(
    name="benchmark",
    help="Measure: `explanations` compares methods, `accuracy` networks, `ablation` levers, `speed` costs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for verb in (explanations, accuracy, ablation, speed):
    benchmark.command()(verb)
