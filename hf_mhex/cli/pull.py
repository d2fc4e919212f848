"""`mhex pull`: a published model comes to this machine, at a commit that is said."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Revision
from hf_mhex.cli.terminal import echo


def pull(
    repo_id: Annotated[str, typer.Argument(help="user/name on the Hub.")],
    revision: Revision = None,
    output: Annotated[Path | None, typer.Option(help="New folder for the files; the cache if left out.")] = None,
    json_: AsJson = False,
) -> None:
    """Fetch a model from the Hub, say the commit, and how to load just that again.

    Example: mhex pull user/clothes --revision v1.0 --output clothes
    """
    from hf_mhex.hub.pulling import pull as fetch

    found = fetch(repo_id, revision, output)
    if json_:
        typer.echo(json.dumps(asdict(found)))
        return
    echo(f"{found.folder}: {len(found.files)} files, {sum(found.files.values()) / 1e6:.1f} MB")
    echo(f"{found.repo_id} at commit {found.commit}")
    echo(found.snippet)
