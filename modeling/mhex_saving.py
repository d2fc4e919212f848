"""What does a saved classifier say about the pipeline that travels with it? Its task, its class and its Auto class."""

from typing import TYPE_CHECKING

from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

if TYPE_CHECKING:  # never run: transformers copies into a saved folder what the text of its files imports
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class CarriesPipelineMixin:
    """A configuration that writes `custom_pipelines` into config.json, so that `pipeline(saliency_task, ...)` finds it.

    `saliency_task`, `saliency_pipeline` and `saliency_model` (task, class of pipeline_mhex.py, Auto class) and
    `saliency_body` (what `AutoModel` makes of a classifier's folder, as everywhere in transformers) are the
    configuration's class attributes. Loaded as the repository's own code, the configuration shows the entry, which
    makes `pipeline` load the repository's class; loaded by an installed package, which registers its own, it does not.
    """

    def __post_init__(self, **kwargs):
        if not type(self).__module__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict:
        """As everywhere, and for a classifier with the entry as names: `pipeline` puts classes, which no JSON takes."""
        found = super().to_dict()
        found.pop("custom_pipelines", None)
        if any("For" in name for name in self.architectures or ()):
            entry = {"impl": f"pipeline_mhex.{self.saliency_pipeline}", "pt": [self.saliency_model]}
            found["custom_pipelines"] = {self.saliency_task: entry}
            if found.get("auto_map"):
                body = f"modeling_{self.model_type}.{self.saliency_body}"
                found["auto_map"] = {**found["auto_map"], "AutoModel": body}
        return found
