"""`mhex demo`: train, save, load, explain and show an image and a text model on embedded data."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Device, find_device, trains_on_cpu
from hf_mhex.cli.terminal import echo, print_table


def demo(
    output: Annotated[Path, typer.Option(help="Folder for models, pictures and results.json.")] = Path("outputs/demo"),
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Train, save, load elsewhere, explain and show an image and a text model, in a few minutes on two cores.

    Example: mhex demo --output outputs/demo
    """
    for noise in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(noise, "1")  # the training's own bars stay
    trains_on_cpu(device)
    from hf_mhex.training.demo import run

    with redirect_stdout(sys.stderr if json_ else sys.stdout):
        result = run(output, find_device(device))
    if json_:
        typer.echo(json.dumps(result))
        return
    rows = [
        (
            row["model"],
            f"{row['accuracy']:.3f}",
            f"{row['majority_class']:.3f}",
            f"{row['completeness_error']:.1e}",
            f"{row['map_share_of_time']:.0%}",
        )
        for row in result["models"]
    ]
    print_table(("model", "accuracy", "majority class", "completeness error", "map's time"), rows)
    echo(f"Done in {result['seconds']:.0f} s. Accuracy is that of the stock pipeline on {output}'s test rows;")
    echo("the completeness error is the largest |sum of map - logit| / max(1, |logit|) among them, and the map's")
    echo("time its share of a prediction with map.")
    echo("Look at:")
    for name in ("overlays.png", "blocks.png", "words.html"):
        echo(f"  {output / name}")
