"""`mhex card`: the model card of a saved model, with a picture of its own predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Device, find_device
from hf_mhex.cli.terminal import echo


def card(
    folder: Annotated[Path, typer.Argument(help="A saved MHEX model with its tokenizer or image processor.")],
    repo_id: Annotated[str, typer.Argument(help="user/name of the repository that the card is for.")],
    revision: Annotated[str, typer.Option(help="Tag that the card's snippet pins; give the same to mhex push --tag.")],
    items: Annotated[list[str] | None, typer.Option("--item", help="Image file or text to show; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder to write to; FOLDER itself if left out.")] = None,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Write README.md and saliency.png from the model's files, its results and card.json (the author's words).

    Example: mhex card my-model user/my-model --revision v1.0 --item coat.png --item bag.png
    """
    from hf_mhex.data.samples import load_sample
    from hf_mhex.families import family_of
    from hf_mhex.hub.card import about_of, write_card
    from hf_mhex.loading import source_config

    place = find_device(device)
    column, sample = family_of(source_config(folder).get("model_type")).input.column, about_of(folder).get("sample")
    shown: list = list(items or [])
    if not shown and sample:
        data = load_sample(sample)["test"]
        shown = [data[row][column] for row in range(3)]
    written = [str(path) for path in write_card(folder, repo_id, revision, shown, output, place)]
    if json_:
        typer.echo(json.dumps(written))
        return
    echo("\n".join(written))
