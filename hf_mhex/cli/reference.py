"""`mhex reference`: the published models, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reference(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a reference model; a wrong one lists them.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change.")] = None,
    revision: Annotated[str, typer.Option(help="Tag that the card's snippet pins.")] = "v0.1.0",
    output: Annotated[Path, typer.Option(help="Folder for models and their runs.")] = Path("outputs/reference"),
    cards: Annotated[Path | None, typer.Option(help="Folder that also gets card, facts, results and picture.")] = None,
) -> None:
    """Train a reference model, judge its maps on test rows, and lay it down ready for the Hub.

    A stopped one goes on where it was.

    Example: mhex reference mhex-resnet-pneumoniamnist source=pneumoniamnist.npz
    """
    from hf_mhex.journal import without_folders
    from hf_mhex.training.reference import make_reference

    command = " ".join(["mhex reference", name, *map(without_folders, overrides or [])])
    typer.echo(str(make_reference(name, overrides or [], output, revision, command, cards)))
