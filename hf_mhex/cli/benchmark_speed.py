"""`mhex benchmark speed`: what an explanation costs beside a prediction and beside other methods, on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Device, find_device
from hf_mhex.cli.terminal import echo


def speed(
    output: Annotated[Path, typer.Option(help="Folder for rows, tables and plot.")] = Path("outputs/speed"),
    networks: Annotated[
        str | None,
        typer.Option(
            help="Separated by commas, such as resnet50, minilm, resnet50-full, roberta-small; a wrong one lists them."
        ),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            help="Of comparison, passes, growth, memory, families, profile, compiled, onnx, by commas; all that can be."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each method; slow ones take a share of them.")] = 30,
    seed: Annotated[int, typer.Option(help="Of weights, inputs and the order of turns.")] = 0,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Measure time and memory of predictions, MHEX's maps and other methods, taking turns on the same network.

    Takes an hour or more on two cores that do nothing else. A run that was stopped goes on where it was.

    Example: mhex benchmark speed --networks resnet18 --parts comparison,memory --rounds 10
    """
    from hf_mhex.benchmarks.speed import measure_speed, write_report

    def listed(value: str | None) -> list[str] | None:
        return None if value is None else [name.strip() for name in value.split(",")]

    command = f"mhex benchmark speed --rounds {rounds} --seed {seed}"
    command += "".join(f" --{name} {value}" for name, value in (("networks", networks), ("parts", parts)) if value)
    place = str(find_device(device))
    rows = measure_speed(
        output, listed(networks), listed(parts), rounds, seed, command, lambda line: echo(line, err=True), place
    )
    paths = write_report(rows, output)
    if json_:
        typer.echo(json.dumps(rows))
        return
    for path in paths:
        echo(str(path))
