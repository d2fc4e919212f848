"""`mhex env`: what a bug report needs."""

from __future__ import annotations

import json

import typer

from hf_mhex.cli.options import AsJson
from hf_mhex.cli.terminal import echo


def env(json_: AsJson = False) -> None:
    """Show versions, platform, device and the extras that are installed: paste it into a bug report.

    Example: mhex env
    """
    from hf_mhex.environment import bug_report

    found = bug_report()
    if json_:
        typer.echo(json.dumps(found))
        return
    echo("\n".join(f"{name}: {value}" for name, value in found.items()))
