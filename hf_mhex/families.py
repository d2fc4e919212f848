"""Register of the families of models: what each is made from, and what its kind of input asks for.

A family is two files of remote code, `configuration_mhex_NAME.py` and `modeling_mhex_NAME.py`, and one entry here.
Registration with transformers' Auto classes, pipelines, conversion, the command line, cards and the tests read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wrapt import when_imported


@dataclass(frozen=True)
class Kind:
    """A kind of input and what comes with it.

    Args:
        name: "image", "text" or "signal".
        task: transformers' task for its classifiers. saliency_task, pipeline: ours, and its class in pipeline_mhex.py.
        auto_model, auto_processor: transformers' Auto classes.
        processor, processor_file: what the processor is called, and the file that it saves.
        main_input: name of the model's main input.
        column: usual name of the input's column; `columns` are other usual ones.
        suffix: end of a classifier's name.
        sample: embedded sample of this kind. example: an input in a card's snippet.
        extractor: module and class of a processor of our own, which travels with the weights; None for a stock one.
    """

    name: str
    task: str
    saliency_task: str
    pipeline: str
    auto_model: str
    auto_processor: str
    processor: str
    processor_file: str
    main_input: str
    column: str
    columns: tuple[str, ...]
    suffix: str
    sample: str
    example: str
    extractor: tuple[str, str] | None = None


KINDS = {
    "image": Kind(
        name="image",
        task="image-classification",
        saliency_task="image-saliency",
        pipeline="ImageSaliencyPipeline",
        auto_model="AutoModelForImageClassification",
        auto_processor="AutoImageProcessor",
        processor="image processor",
        processor_file="preprocessor_config.json",
        main_input="pixel_values",
        column="image",
        columns=("image", "img", "picture"),
        suffix="ForImageClassification",
        sample="fashion_mnist",
        example='"picture.png"',
    ),
    "text": Kind(
        name="text",
        task="text-classification",
        saliency_task="text-saliency",
        pipeline="TextSaliencyPipeline",
        auto_model="AutoModelForSequenceClassification",
        auto_processor="AutoTokenizer",
        processor="tokenizer",
        processor_file="tokenizer.json",
        main_input="input_ids",
        column="text",
        columns=("text", "sentence", "content", "review"),
        suffix="ForSequenceClassification",
        sample="product_reviews",
        example='"The camera is great, but the battery is poor."',
    ),
    "signal": Kind(
        name="signal",
        task="audio-classification",
        saliency_task="signal-saliency",
        pipeline="SignalSaliencyPipeline",
        auto_model="AutoModelForAudioClassification",
        auto_processor="AutoFeatureExtractor",
        processor="feature extractor",
        processor_file="preprocessor_config.json",
        main_input="input_values",
        column="signal",
        columns=("signal", "spectrum", "values", "input_values"),
        suffix="ForClassification",
        sample="coffee",
        example="spectrum",
        extractor=("feature_extraction_mhex_signal", "MHEXSignalFeatureExtractor"),
    ),
}


@dataclass(frozen=True)
class Attention:
    """Where a gated block keeps its attention, as names below the block.

    Args:
        project: the linear map W_O that all heads write through.
        heads: the number of heads.
        norm: the LayerNorm that reads the shortcut plus what W_O wrote; None where nothing stands in between.
        scale: what scales the output of W_O channel by channel; None for nothing.
    """

    project: str
    heads: str
    norm: str | None = None
    scale: str | None = None


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        name: as in its files' names, "bert".
        title: as in its classes' names, "Bert" for MHEXBertConfig.
        kind: a key of KINDS.
        library: where a plain checkpoint comes from, "transformers" or "timm"; "own" for a network of ours.
        sources: the model types (transformers) or the network's class (timm) that it is made from; none of an own one.
        package: package of its two files.
        mapped: model types of transformers whose weights `mapping`, a module with `read_plain`, gives timm's names.
        attention: where its blocks keep their heads; None for blocks without, and for windowed ones.
        label: its name in prose, "BERT"; `title` where it is left out.

    Raises ValueError for an entry that cannot be.
    """

    name: str
    title: str
    kind: str
    library: str
    sources: tuple[str, ...]
    package: str = "hf_mhex.modeling"
    attention: Attention | None = None
    label: str = ""
    mapped: tuple[str, ...] = ()
    mapping: str = ""

    def __post_init__(self):
        object.__setattr__(self, "label", self.label or self.title)
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} of family {self.name!r} must be one of {', '.join(KINDS)}.")
        if self.library not in ("transformers", "timm", "own"):
            raise ValueError(
                f"library={self.library!r} of family {self.name!r} must be 'transformers', 'timm' or 'own'."
            )
        if not self.sources and self.library != "own":
            raise ValueError(f"sources of family {self.name!r} must name what it is made from.")

    @property
    def model_type(self) -> str:
        """The `model_type` of its configurations."""
        return f"mhex_{self.name}"

    @property
    def input(self) -> Kind:
        """Its kind of input."""
        return KINDS[self.kind]

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """Its modules of remote code, and the classes that each defines."""
        prefix = f"MHEX{self.title}"
        found = {
            f"{self.package}.configuration_{self.model_type}": (f"{prefix}Config",),
            f"{self.package}.modeling_{self.model_type}": (f"{prefix}Model", prefix + self.input.suffix),
        }
        if self.input.extractor:
            module, name = self.input.extractor
            found[f"hf_mhex.modeling.{module}"] = (name,)
        return found

    def load_class(self, name: str) -> Any:
        """One of its classes by name."""
        return next(getattr(import_module(module), name) for module, names in self.files.items() if name in names)

    @property
    def config(self) -> type[Any]:
        """Its configuration class."""
        return self.load_class(f"MHEX{self.title}Config")

    @property
    def body(self) -> type[Any]:
        """The class of its body."""
        return self.load_class(f"MHEX{self.title}Model")

    @property
    def classifier(self) -> type[Any]:
        """The class of its classifier."""
        return self.load_class(f"MHEX{self.title}{self.input.suffix}")


FAMILIES: dict[str, Family] = {}  # by model type


def register_family(family: Family) -> Family:
    """Add a family; from then on it is loaded, converted, explained and published like the others.

    Raises ValueError for a model type or a source that is taken, and for files that are not there.
    """
    if family.model_type in FAMILIES:
        raise ValueError(f"model_type={family.model_type!r} is registered already; give the family another name.")
    for other in FAMILIES.values():
        taken = sorted(set(other.sources) & set(family.sources)) if other.library == family.library else []
        if taken:
            raise ValueError(f"sources={taken} belong to family {other.name!r} already.")
    for module in family.files:
        home, _, name = module.rpartition(".")
        package = find_spec(home)
        folders = (package.submodule_search_locations or ()) if package else ()
        if not any(Path(folder, f"{name}.py").is_file() for folder in folders):
            raise ValueError(f"family {family.name!r} has no {name}.py; add it to {home}.")
    FAMILIES[family.model_type] = family
    configuration = next(iter(family.files))
    when_imported("transformers.models.auto.configuration_auto")(lambda auto: _register_config(auto, family))
    when_imported(configuration)(lambda _: _register_models(family))
    return family


def unregister_family(family: Family) -> None:
    """Take a family out of the register (transformers' Auto classes keep it)."""
    del FAMILIES[family.model_type]


def family_of(model_or_type) -> Family:
    """The family of a model, a configuration or a model type; ValueError, naming the nearest, for another."""
    config = getattr(model_or_type, "config", model_or_type)
    name = config if isinstance(config, str) or config is None else type(config).model_type
    if name not in FAMILIES:
        close = get_close_matches(str(name), FAMILIES, n=1) or list(FAMILIES)
        raise ValueError(
            f"model_type={name!r} is no MHEX model; near it is {', '.join(close)}. `hf_mhex.convert` makes one."
        )
    return FAMILIES[name]


def family_for_source(library: str, source: str) -> Family | None:
    """The family that is made from a model type of transformers or a class of timm, or None."""
    for family in FAMILIES.values():
        mapped = family.mapped if library == "transformers" else ()
        if source in mapped or (family.library == library and source in family.sources):
            return family
    return None


class _Lazy:
    """A class of remote code that is imported when it is first asked for something."""

    def __init__(self, family: Family, name: str, **known):
        self.__name__, self._family = name, family
        vars(self).update(known)

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._family.load_class(self.__name__), name)

    def __call__(self, *args, **kwargs):
        return self._family.load_class(self.__name__)(*args, **kwargs)

    def __mro_entries__(self, bases):
        return (self._family.load_class(self.__name__),)


def _register_config(auto, family: Family) -> None:
    """Tell transformers' AutoConfig about a family. Its configuration is not imported, which may be under way now."""
    (name,) = next(iter(family.files.values()))
    auto.CONFIG_MAPPING.register(family.model_type, _Lazy(family, name, model_type=family.model_type), exist_ok=True)


def _register_models(family: Family) -> None:
    """Tell transformers' other Auto classes, once the configuration is there; the model files are not imported."""
    from transformers.models.auto import modeling_auto

    body, classifier = list(family.files.values())[1]
    for auto_class, name in (("AutoModel", body), (family.input.auto_model, classifier)):
        model = _Lazy(family, name, config_class=family.config)
        getattr(modeling_auto, auto_class).register(family.config, model, exist_ok=True)
    if family.input.extractor:
        import transformers

        extractor = _Lazy(family, family.input.extractor[1])
        getattr(transformers, family.input.auto_processor).register(family.config, extractor, exist_ok=True)


@when_imported("hf_mhex.modeling.pipeline_mhex")
def _register_pipelines(module) -> None:
    """Register the saliency pipelines."""
    import transformers
    from transformers import pipelines

    for kind in KINDS.values():
        pipelines.PIPELINE_REGISTRY.register_pipeline(
            kind.saliency_task,
            getattr(module, kind.pipeline),
            pt_model=getattr(transformers, kind.auto_model),
            type=kind.name,
        )


@when_imported("transformers.pipelines")
def _import_pipelines(_) -> None:
    """Import ours once transformers' are there; where ours import them, they go on by themselves."""
    import_module("hf_mhex.modeling.pipeline_mhex")


_BERT = Attention("attention.output.dense", "attention.self.num_attention_heads", "attention.output.LayerNorm")
_DISTILBERT = Attention("attention.out_lin", "attention.n_heads", "sa_layer_norm")
_MODERNBERT = Attention("attn.Wo", "attn.config.num_attention_heads")
_VIT = Attention("attn.proj", "attn.num_heads", scale="ls1")

for _family in (
    Family("bert", "Bert", "text", "transformers", ("bert",), attention=_BERT, label="BERT"),
    Family(
        "roberta",
        "Roberta",
        "text",
        "transformers",
        ("roberta", "xlm-roberta", "camembert"),
        attention=_BERT,
        label="RoBERTa",
    ),
    Family(
        "modernbert", "ModernBert", "text", "transformers", ("modernbert",), attention=_MODERNBERT, label="ModernBERT"
    ),
    Family(
        "distilbert", "DistilBert", "text", "transformers", ("distilbert",), attention=_DISTILBERT, label="DistilBERT"
    ),
    Family("deberta_v2", "DebertaV2", "text", "transformers", ("deberta-v2",), attention=_BERT, label="DeBERTa-v2"),
    Family("resnet", "ResNet", "image", "timm", ("ResNet",)),
    Family("convnext", "ConvNeXt", "image", "timm", ("ConvNeXt",)),
    Family(
        "vit",
        "ViT",
        "image",
        "timm",
        ("VisionTransformer",),
        attention=_VIT,
        mapped=("vit", "deit", "dinov2", "dinov2_with_registers"),
        mapping="hf_mhex.transformers_vit",
    ),
    Family("swin", "Swin", "image", "timm", ("SwinTransformer",)),
    Family("signal", "Signal", "signal", "own", ()),
):
    register_family(_family)
