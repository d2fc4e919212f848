"""`mhex explain`: why does a model say what it says of one image or one text?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def explain(
    model: Annotated[str, typer.Argument(help="A saved model's folder or Hub id.")],
    item: Annotated[str, typer.Argument(metavar="INPUT", help="An image file, or a text; - reads a text from stdin.")],
    target: Annotated[str | None, typer.Option(help="Label to explain, by name or number; the predicted one.")] = None,
    contrast: Annotated[str | None, typer.Option(help="mean, runner_up, softmax, or a label to compare with.")] = None,
    blocks: Annotated[str | None, typer.Option(help="Numbers of blocks, separated by commas; all.")] = None,
    decay: Annotated[float | None, typer.Option(help="Weight of a block against the next deeper one.")] = None,
    mode: Annotated[str, typer.Option(help="contribution or cam.")] = "contribution",
    output: Annotated[Path | None, typer.Option(help="Picture (.png) or, of a text, page (.html) to write.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub repository.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Give label, score and saliency of one image or one text, and the map's sum beside the logit.

    Example: mhex explain outputs/demo/mhex-resnet-fashion-mnist coat.png --contrast runner_up

    Example: mhex explain outputs/demo/mhex-bert-product-reviews "great phone, poor battery" --output why.html
    """
    from hf_mhex.explain import explain_image, explain_text, label_index
    from hf_mhex.loading import load

    network, processor = load(model, revision)
    options: dict = {"mode": mode, "decay": decay, "contrast": contrast}
    if target is not None:
        options["target"] = label_index(network.config, target, "--target")
    if contrast not in (None, "mean", "runner_up", "softmax"):
        options["contrast"] = label_index(network.config, contrast, "--contrast")
    if blocks is not None:
        try:
            options["blocks"] = [int(block) for block in blocks.split(",")]
        except ValueError:
            raise ValueError(f"--blocks must be numbers separated by commas, got {blocks!r}.") from None
    if network.main_input_name == "pixel_values":
        found = explain_image(network, processor, item, **options)
        output = output or Path(f"{Path(item).stem}-saliency.png")
        found.picture.save(output)
    else:
        found = explain_text(network, processor, sys.stdin.read() if item == "-" else item, **options)
        if output:
            output.write_text(found.page, encoding="utf-8")
    if json_:
        typer.echo(json.dumps(found.record | {"output": output and str(output)}))
        return
    record = found.record
    typer.echo(f"{record['label']} ({record['score']:.3f})")
    if network.main_input_name != "pixel_values":
        from rich.console import Console

        Console().print(found.coloured)
    against = f" against {contrast}" if contrast else ""
    typer.echo(f"map's sum {record['sum']:+.5f}, explained logit{against} {record['explained']:+.5f}")
    if output:
        typer.echo(str(output))
