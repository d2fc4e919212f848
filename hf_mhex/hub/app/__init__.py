"""Which page explains a prediction in the browser? A Gradio app for both families (extra `app`)."""

from hf_mhex.hub.app.page import build_app

__all__ = ["build_app"]
