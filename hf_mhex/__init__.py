"""Models that explain themselves: MHEX classifiers for transformers, and what one does with them.

Importing it registers the families with transformers' Auto classes and pipelines. Names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module

from hf_mhex.families import FAMILIES, Family, register_family  # noqa: F401

_HOMES = {
    "hf_mhex.adapters": ("lora_config",),
    "hf_mhex.conversion": ("ConversionReport", "convert", "from_bert", "from_timm"),
    "hf_mhex.data.samples": ("load_sample",),
    "hf_mhex.explaining.batch": ("Explainer",),
    "hf_mhex.explaining.dataset": ("DatasetExplanation", "explain_dataset"),
    "hf_mhex.explaining.display": ("Display", "show"),
    "hf_mhex.explaining.explanation": ("Explanation", "explain"),
    "hf_mhex.hub.publishing": ("publish",),
    "hf_mhex.loading": ("load",),
    "hf_mhex.modeling.mhex": ("MHEXClassifierOutput", "MHEXSaliency"),
    "hf_mhex.modeling.mhex_config": ("VERSION",),
    "hf_mhex.modeling.pipeline_mhex": ("ImageSaliencyPipeline", "SignalSaliencyPipeline", "TextSaliencyPipeline"),
    "hf_mhex.processors": ("image_processor_for",),
    "hf_mhex.testing": ("check_model",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted({"FAMILIES", "Family", "register_family", "__version__", *_HOME_OF} - {"VERSION"})
__all__ += [name for family in FAMILIES.values() for names in family.files.values() for name in names]


def __getattr__(name: str):
    if name == "__version__":
        return import_module("hf_mhex.modeling.mhex_config").VERSION
    home = _HOME_OF.get(name)
    for family in FAMILIES.values() if home is None else ():
        home = next((module for module, names in family.files.items() if name in names), home)
    if home is None:
        raise AttributeError(f"module 'hf_mhex' has no attribute {name!r}")
    from hf_mhex.environment import named_extra

    with named_extra():
        return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
