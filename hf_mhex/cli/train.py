"""`mhex train`: one recipe, one command, one fine-tuned model."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Device, trains_on_cpu
from hf_mhex.cli.terminal import echo


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's YAML file, or the name of one that comes with hf-mhex.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change.")] = None,
    output: Annotated[Path | None, typer.Option(help="New folder for the run; outputs/train/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")] = False,
    on_bad_row: Annotated[str | None, typer.Option(help="error, or skip: leave bad rows out and count them.")] = None,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Train a model by a recipe, on images, texts or signals, and report on its test rows.

    Several processes: torchrun --nproc-per-node 2 -m hf_mhex.cli train RECIPE ...

    Example: mhex train medmnist/pneumoniamnist source=pneumoniamnist.npz --output outputs/pneumonia

    Example: mhex train ag_news_minilm files.train=ag_news.csv learning_rate=1e-4 model.kind=plain
    """
    from hf_mhex.training.processes import leave_together
    from hf_mhex.training.recipe import load_recipe
    from hf_mhex.training.run import train as run

    bad_rows = [] if on_bad_row is None else [f"data.on_bad_row={on_bad_row}"]
    on_cpu = ["training.use_cpu=true"] * (device is not None and trains_on_cpu(device))
    found = load_recipe(recipe, [*(overrides or []), *bad_rows, *on_cpu])
    output = output or Path("outputs/train") / f"{found.name}{'-plain' if found.model.kind == 'plain' else ''}"
    with redirect_stdout(sys.stderr if json_ else sys.stdout):
        row = run(found, output, resume)
    leave_together()
    if os.environ.get("RANK", "0") != "0":
        return  # torchrun's first process speaks for all
    if json_:
        typer.echo(json.dumps(row))
        return
    for split, reasons in row["skipped"].items():
        echo(f"{split}: left out {', '.join(f'{count} with {reason}' for reason, count in reasons.items())}")
    for split in ("validation", "test"):
        numbers = [f"{name} {value:.4f}" for name, value in row[split].items() if "block" not in name]
        echo(f"{split} ({row['rows'][split]} rows): {', '.join(numbers)}")
    echo(f"{row['minutes']} minutes; {output / 'model'}")
