"""`mhex convert`: a plain checkpoint becomes an MHEX folder, ready to fine-tune."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Revision
from hf_mhex.cli.terminal import echo
from hf_mhex.writing import check_folder, whole


def convert(
    source: Annotated[
        str, typer.Argument(help="A transformers folder or Hub id, a timm name or folder, or a weights file.")
    ],
    output: Annotated[Path, typer.Argument(help="New folder for the MHEX model.")],
    labels: Annotated[str | None, typer.Option(help="Label names, separated by commas.")] = None,
    num_labels: Annotated[int | None, typer.Option(help="Number of labels, where they have no names.", min=1)] = None,
    architecture: Annotated[str | None, typer.Option(help="timm's name of the network of a weights file.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Take the weights that timm publishes.")] = False,
    num_channels: Annotated[int | None, typer.Option(help="Images: channels; SOURCE's if left out.", min=1)] = None,
    image_size: Annotated[int | None, typer.Option(help="Images: pixels; SOURCE's if left out.", min=1)] = None,
    revision: Revision = None,
    json_: AsJson = False,
) -> None:
    """Make an MHEX model from a plain one and say which keys were used, are new and stay unused.

    Example: mhex convert resnet50.safetensors my-model --architecture resnet50 --labels normal,pneumonia

    Example: mhex convert bert-base-cased my-model --labels world,sports,business,science
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"OUTPUT {str(output)!r} exists and is not empty; name a new folder.")
    from transformers.utils.logging import disable_progress_bar

    import hf_mhex
    from hf_mhex.families import family_of
    from hf_mhex.processors import make_processor

    disable_progress_bar()  # of reading and writing weights, which take less than its lines
    fields: dict = {} if num_channels is None else {"num_channels": num_channels}
    if labels:
        fields["id2label"] = dict(enumerate(name.strip() for name in labels.split(",")))
        if "" in fields["id2label"].values():
            raise ValueError(f"--labels must be names separated by commas, got an empty one in {labels!r}.")
    check_folder(output.parent)
    fields |= {"architecture": architecture, "pretrained": pretrained, "revision": revision}
    model, report = hf_mhex.convert(source, num_labels, output_loading_info=True, **fields)
    kind = family_of(model).kind
    if image_size is not None and kind != "image":
        raise ValueError(f"--image-size is for images; SOURCE {source!r} is a {kind} model.")
    if image_size is not None and not takes_size(model, image_size):
        dynamic = "dynamic_img_size" in model.config.trunk_arguments
        fields["architecture_kwargs"] = {"dynamic_img_size": True} if dynamic else {"strict_img_size": False}
        model, report = hf_mhex.convert(source, num_labels, output_loading_info=True, **fields)
        model.base_model.check_size(image_size, image_size)
    processor = make_processor(model, source, revision, image_size)
    with whole(output) as place:
        model.save_pretrained(place)
        processor.save_pretrained(place)
    if json_:
        typer.echo(json.dumps({"output": str(output), **asdict(report)}))
    else:
        fresh = "" if report.used else "; all weights are fresh, --pretrained takes those that timm publishes"
        echo(f"{output}: {type(model).__name__} with {model.config.num_labels} labels; {report}{fresh}")


def takes_size(model, side: int) -> bool:
    """Whether a network takes square images of so many pixels a side."""
    try:
        model.base_model.check_size(side, side)
    except ValueError:
        return False
    return True
