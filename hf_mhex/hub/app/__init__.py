"""Page that explains predictions in the browser, with Gradio (extra `app`)."""

from __future__ import annotations

from collections.abc import Sequence

from hf_mhex.environment import missing_extra


def build_app(models: Sequence[str], device=None):
    """The app, see `page.build_app`. Raises RuntimeError where the extra is missing."""
    try:
        from hf_mhex.hub.app import page
    except ModuleNotFoundError as error:
        raise RuntimeError(missing_extra(error) or str(error)) from error
    return page.build_app(models, device)
