"""Training: recipes, a Trainer, and what only our recipes teach with. Names are loaded when first used."""

from importlib import import_module

_HOMES = {
    "MHEXTrainer": "trainer",
    "PartConsistency": "consistency",
    "balanced_weights": "losses",
    "load_recipe": "recipe",
    "mosaic_loss": "losses",
    "mosaics_of": "inputs",
    "part_consistency_loss": "consistency",
    "recipe_names": "recipe",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
