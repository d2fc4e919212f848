"""What does a Space with the app consist of? Three small files and this package's source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path

from hf_mhex.hub.contents import Contents

PACKAGE = Path(__file__).parents[1]
# modeling/ is added from its own place; the app imports none of the others
LEFT_OUT = ("baselines/", "benchmarks/", "cli/", "evaluation/", "export/", "modeling/", "training/")
PINNED = re.compile(r"[\w.-]+/[\w.-]+@[\w./-]+")


def space_contents(models: Sequence[str], repo_id: str) -> Contents:
    """The Space's files. Raises ValueError for a model that is no Hub id with a revision."""
    for model in models:
        if not PINNED.fullmatch(model):
            raise ValueError(f"models must be Hub ids with a pinned revision, such as 'user/name@v1'; got {model!r}.")
    if not models:
        raise ValueError("models must name at least one Hub id with a revision, such as 'user/name@v1'.")
    files: dict[str, Path | bytes] = {
        "README.md": _card(models, repo_id).encode(),
        "app.py": _starter(models).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in _requirements()).encode(),
    }
    modeling = Path(import_module("hf_mhex.modeling").__file__).parent
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(LEFT_OUT):
            files[f"hf_mhex/{name}"] = path
    for pattern in ("*.parquet", "*.LICENSE", "*.md"):  # the samples that the app offers, with their licences
        for path in sorted((PACKAGE / "data" / "samples").glob(pattern)):
            files[f"hf_mhex/data/samples/{path.name}"] = path
    for path in sorted(modeling.glob("*.py")):
        files[f"hf_mhex/modeling/{path.name}"] = path
    return Contents("space", files)


def _card(models: Sequence[str], repo_id: str) -> str:
    shown = "".join(f"- {model.partition('@')[0]}\n" for model in models)
    return (
        f"---\ntitle: {repo_id.split('/')[-1]}\nemoji: 🔎\ncolorFrom: red\ncolorTo: blue\nsdk: gradio\n"
        f"sdk_version: {_gradio_version()}\napp_file: app.py\nlicense: apache-2.0\nmodels:\n{shown}---\n\n"
        "Ask an image or a text classifier why: its saliency adds up to the logit that it explains "
        "(Multi-Head Explainer, arXiv 2501.01311).\n"
    )


def _starter(models: Sequence[str]) -> str:
    return (
        '"""The page that this Space serves."""\n\n'
        "from hf_mhex.hub.app import build_app\n\n"
        f"build_app({list(models)!r}).launch()\n"
    )


def _gradio_version() -> str:
    """The version that the extra `app` asks for at least: the app was tried with it."""
    declared = next(line for line in requires("hf-mhex") or [] if line.startswith("gradio"))
    return re.search(r">=([\d.]+)", declared).group(1)


def _requirements() -> list[str]:
    """What the package needs to run the app, as it declares it; the Space's own machinery brings gradio."""
    return [line for line in requires("hf-mhex") or [] if "extra ==" not in line]
