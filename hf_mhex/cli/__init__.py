"""What does the `mhex` command offer? The verbs and how they fail; each verb imports what it needs."""

from __future__ import annotations

import logging
import os
import sys

import typer

from hf_mhex.cli.app import app as serve
from hf_mhex.cli.benchmark import benchmark
from hf_mhex.cli.card import card
from hf_mhex.cli.channels import collaboration
from hf_mhex.cli.convert import convert
from hf_mhex.cli.demo import demo
from hf_mhex.cli.evaluate import evaluate
from hf_mhex.cli.explain import explain
from hf_mhex.cli.export import export
from hf_mhex.cli.info import info
from hf_mhex.cli.push import push
from hf_mhex.cli.train import train

app = typer.Typer(
    name="mhex",
    help="Models that explain themselves: MHEX-BERT and MHEX-ResNet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (demo, convert, info, explain, export, train, evaluate, card, push, collaboration):
    app.command()(verb)
app.command("app")(serve)
app.add_typer(benchmark, name="benchmark")


def main() -> None:
    """Run `mhex`. Exit codes: 0 done, 1 the work failed (one line on stderr says why), 2 the command was misused."""
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # of the processes that a verb starts
        logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        typer.echo(f"mhex: {lines[0]}", err=True)
        sys.exit(1)
