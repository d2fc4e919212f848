"""What does the `mhex` command offer? The verbs, how they fail, and nothing heavy: each verb imports what it needs."""

from __future__ import annotations

import os
import sys

import typer

from mhex_cli.app import app as serve
from mhex_cli.benchmark import benchmark
from mhex_cli.card import card
from mhex_cli.channels import collaboration
from mhex_cli.convert import convert
from mhex_cli.demo import demo
from mhex_cli.evaluate import evaluate
from mhex_cli.explain import explain
from mhex_cli.export import export
from mhex_cli.info import info
from mhex_cli.push import push
from mhex_cli.reference import reference
from mhex_cli.train import train

app = typer.Typer(
    name="mhex",
    help="Models that explain themselves: MHEX-BERT and MHEX-ResNet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (demo, convert, info, explain, export, train, evaluate, reference, card, push, collaboration):
    app.command()(verb)
app.command("app")(serve)
app.add_typer(benchmark, name="benchmark")


def main() -> None:
    """Run `mhex`. Exit codes: 0 done, 1 the work failed (one line on stderr says why), 2 the command was misused."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        typer.echo(f"mhex: {lines[0]}", err=True)
        sys.exit(1)
