"""Which measures of maps are there as local `evaluate` modules? Those that need nothing but maps or probabilities.

`evaluate.load(str(module_path("grid_pointing")))` loads one; measures that ask the network again are functions alone.
"""

from __future__ import annotations

from pathlib import Path

NAMES = ("average_drop", "completeness", "grid_pointing", "map_similarity", "pointing_game")


def module_path(name: str) -> Path:
    """The file of a module, for `evaluate.load`; ValueError for a name that is none of them."""
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}; got {name!r}.")
    return Path(__file__).with_name(f"{name}.py")
