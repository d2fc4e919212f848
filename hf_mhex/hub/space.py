"""Contents of a Space with the app: three small files and this package's source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path

from huggingface_hub import SpaceCardData
from huggingface_hub.utils import validate_repo_id
from packaging.requirements import Requirement

from hf_mhex.hub.contents import Contents

PACKAGE = Path(__file__).parents[1]
# modeling/ is added from its own place; the app imports none of the others, but measures what the model says of parts
LEFT_OUT = ("benchmarks/", "cli/", "export/", "modeling/", "training/")
PINNED = re.compile(r"[\w.-]+/[\w.-]+@[\w./-]+")


def space_contents(models: Sequence[str], repo_id: str) -> Contents:
    """The Space's files. Raises ValueError for a name that is no Hub id, and a model without a revision."""
    validate_repo_id(repo_id)
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
    modeling = Path(import_module("hf_mhex.modeling").__path__[0])
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
    data = SpaceCardData(
        title=repo_id.split("/")[-1],
        emoji="🔎",
        colorFrom="red",
        colorTo="blue",
        sdk="gradio",
        sdk_version=_gradio_version(),
        app_file="app.py",
        license="apache-2.0",
        models=[model.partition("@")[0] for model in models],
    )
    return (
        f"---\n{data.to_yaml()}\n---\n\n"
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
    [declared] = [needed for needed in _declared() if needed.name == "gradio"]
    [lowest] = re.findall(r">=([\d.]+)", str(declared.specifier))
    return lowest


def _requirements() -> list[str]:
    """What the package needs to run the app, as it declares it; the Space's own machinery brings gradio."""
    return [f"{needed.name}{needed.specifier}" for needed in _declared() if needed.name not in ("gradio", "hf-mhex")]


def _declared() -> list[Requirement]:
    """The package's requirements, those of the extras for the app and its samples among them."""
    found = [Requirement(line) for line in requires("hf-mhex") or []]
    extras = [{"extra": extra} for extra in ("", "app", "data")]
    return [needed for needed in found if not needed.marker or any(map(needed.marker.evaluate, extras))]
