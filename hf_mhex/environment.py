"""What did a published figure run on? The versions, the source commit and the kind of machine, without its name."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("hf-mhex", "torch", "transformers", "timm")


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result, and the processor's kind with its usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    return versions | {"machine": f"{platform.machine()}, {cores} cores"}


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

    None for an installed package, also where its folder lies inside somebody else's checkout.
    """
    if shutil.which("git") is None or _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str | None:
    """What git prints about this module's folder, or None where it refuses."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
