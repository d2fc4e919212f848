"""`mhex info`: what a saved MHEX model is."""

from __future__ import annotations

import json

import typer

from hf_mhex.cli.options import AsJson, Model, Revision


def info(model: Model, revision: Revision = None, json_: AsJson = False) -> None:
    """Show a model's family, blocks, labels, size and what its gates and heads are.

    Example: mhex info outputs/demo/mhex-resnet-fashion-mnist
    """
    from hf_mhex.loading import describe, load

    found = describe(load(model, revision)[0])
    if json_:
        typer.echo(json.dumps(found))
        return
    blocks = found.pop("blocks")
    for name, value in found.items():
        typer.echo(f"{name.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")
    from rich.console import Console
    from rich.table import Table

    table = Table("block", "channels", "|W1|", "largest singular value", "|W_eq|")
    for number, block in enumerate(blocks):
        norms = (block["gate_norm"], block["gate_spectral_norm"], block["equivalent_norm"])
        table.add_row(str(number), str(block["channels"]), *(f"{norm:.3g}" for norm in norms))
    Console().print(table)
