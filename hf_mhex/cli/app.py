"""`mhex app`: ask models why in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import Device, find_device


def app(
    models: Annotated[list[str] | None, typer.Argument(help="Saved folders or Hub ids (id@revision).")] = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 for a free one.", min=0, max=65535)] = 7860,
    device: Device = None,
) -> None:
    """Serve a page on this machine that explains images and texts; without MODELS, with those of `mhex demo`.

    Example: mhex app outputs/demo/mhex-resnet-fashion-mnist --port 7860
    """
    models = models or [str(path.parent) for path in sorted(Path("outputs/demo").glob("*/config.json"))]
    if not models:
        raise ValueError("MODELS: none given, and no models of the demo in outputs/demo; run `mhex demo` first.")
    from hf_mhex.hub.app import build_app

    build_app(models, find_device(device)).launch(server_name="127.0.0.1", server_port=port or None, share=False)
