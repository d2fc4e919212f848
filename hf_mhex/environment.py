"""What did a published figure run on? The versions and the kind of machine, without its name."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

PACKAGES = ("hf-mhex", "torch", "transformers", "timm")


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result, and the processor's kind with its usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    return versions | {"machine": f"{platform.machine()}, {cores} cores"}
