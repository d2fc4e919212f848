"""`mhex push`: a saved model, or the app, goes to the Hub in one commit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson
from hf_mhex.cli.terminal import echo


def push(
    source: Annotated[str, typer.Argument(help="A saved model's folder; with --space, ids of models for it to show.")],
    repo_id: Annotated[str, typer.Argument(help="user/name on the Hub.")],
    space: Annotated[bool, typer.Option("--space", help="Publish the app, showing SOURCE (id@revision,...).")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    pull_request: Annotated[bool, typer.Option("--pr", help="Open a pull request instead of committing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; list what would go.")] = False,
    tag: Annotated[str | None, typer.Option(help="Name for this release; made from the files if left out.")] = None,
    message: Annotated[str | None, typer.Option(help="Title of the commit.")] = None,
    json_: AsJson = False,
) -> None:
    """Send weights, code, tokenizer or image processor, card, pictures and metrics, and say what went where.

    Example: mhex push outputs/demo/mhex-resnet-fashion-mnist user/clothes --dry-run

    Example: mhex push user/clothes@v1,user/reviews@v1 user/why --space
    """
    from hf_mhex.hub.publishing import publish, publish_space

    shared: dict = {"private": private, "create_pr": pull_request, "dry_run": dry_run}
    shared |= {"message": message} if message is not None else {}
    if space:
        if tag is not None:
            raise ValueError(f"--tag {tag!r} is for a model's release; a Space gets none, leave it out.")
        found = publish_space(source.split(","), repo_id, **shared)
    else:
        found = publish(Path(source), repo_id, tag=tag, **shared)
    if json_:
        typer.echo(json.dumps(asdict(found)))
        return
    verb = "would send" if dry_run else "sent"
    echo(f"{found.url}: {verb} {len(found.sent)} files, {sum(found.sent.values()) / 1e6:.1f} MB")
    for path, size in found.sent.items():
        echo(f"  {path}  {size:,} bytes")
    for path in found.removed:
        echo(f"  {path}  {'would be ' * dry_run}removed there")
    if found.unchanged:
        echo(f"already there: {', '.join(found.unchanged)}")
    for path, reason in found.left_out.items():
        echo(f"left here: {path} ({reason})")
    if found.pull_request:
        echo(f"pull request: {found.pull_request}")
    if found.commit:
        echo(f"commit {found.commit}" + (f", tag {found.tag}" if found.tag else ""))
        if found.snippet:
            echo(f"\n{found.snippet}")
