"""`mhex convert`: a plain BERT or timm ResNet becomes an MHEX folder, ready to fine-tune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[str, typer.Argument(help="A BERT's folder or Hub id, or the name of a timm ResNet.")],
    output: Annotated[Path, typer.Argument(help="New folder for the MHEX model.")],
    labels: Annotated[str | None, typer.Option(help="Label names, separated by commas.")] = None,
    num_labels: Annotated[int | None, typer.Option(help="Number of labels, where they have no names.", min=1)] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Local weights of the timm ResNet.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Take the weights that timm publishes.")] = False,
    num_channels: Annotated[int, typer.Option(help="Channels of the input image.", min=1)] = 3,
    image_size: Annotated[int | None, typer.Option(help="Pixels; timm's own for the name if left out.", min=1)] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make an MHEX model from a plain one and say which keys were used, are new and stay unused.

    Example: mhex convert resnet50 my-model --checkpoint resnet50.safetensors --labels normal,pneumonia

    Example: mhex convert bert-base-cased my-model --labels world,sports,business,science
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"OUTPUT {str(output)!r} exists and is not empty; name a new folder.")
    import timm
    from transformers import AutoTokenizer

    from hf_mhex.conversion import from_bert, from_timm
    from hf_mhex.processors import image_processor_for

    fields: dict = {"output_loading_info": True, "num_labels": num_labels}
    if labels:
        fields["id2label"] = dict(enumerate(name.strip() for name in labels.split(",")))
    if not Path(source).is_dir() and timm.is_model(source):
        fields |= {"pretrained": pretrained, "checkpoint_path": checkpoint, "num_channels": num_channels}
        model, report = from_timm(source, **fields)
        processor = image_processor_for(model.config, image_size)
    else:
        if checkpoint or pretrained or image_size or num_channels != 3:
            raise ValueError(
                f"SOURCE {source!r} is no timm architecture, so --checkpoint, --pretrained, --image-size and "
                "--num-channels do not apply."
            )
        try:
            model, report = from_bert(source, **fields)
            processor = AutoTokenizer.from_pretrained(source)
        except OSError as error:
            reason = str(error).strip().splitlines()[0]
            raise OSError(f"SOURCE {source!r} is no folder and no timm architecture; as a Hub id: {reason}") from error
    model.save_pretrained(output)
    processor.save_pretrained(output)
    if json_:
        typer.echo(json.dumps({"output": str(output), "used": report.used, "new": report.new, "unused": report.unused}))
    else:
        typer.echo(f"{output}: {type(model).__name__} with {model.config.num_labels} labels; {report}")
