"""`mhex info`: what a saved MHEX model is."""

from __future__ import annotations

import json

import typer

from hf_mhex.cli.options import AsJson, Model, Revision
from hf_mhex.cli.terminal import echo, print_table


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
        echo(f"{name.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")
    rows = [
        (str(number), str(block["channels"]))
        + tuple(f"{block[norm]:.3g}" for norm in ("gate_norm", "gate_spectral_norm", "equivalent_norm"))
        for number, block in enumerate(blocks)
    ]
    print_table(("block", "channels", "|W1|", "largest singular value", "|W_eq|"), rows)
