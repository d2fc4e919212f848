"""Which model does a recipe train? MHEX or its plain twin, with the processor that goes with it."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, BertConfig, PreTrainedModel

from hf_mhex.conversion import from_bert, from_timm, read_checkpoint
from hf_mhex.loading import load
from hf_mhex.modeling.configuration_mhex_resnet import MHEXResNetConfig
from hf_mhex.processors import image_processor_for
from hf_mhex.training.demo import minilm_folder
from hf_mhex.training.plain import PlainBert, PlainResNet
from hf_mhex.training.settings import ModelSettings, ProcessingSettings

MHEX_ONLY = ("gate_scale", "head_decay", "deep_supervision_weight", "rectified", "instance_share")


def build(settings: ModelSettings, processing: ProcessingSettings, names: list[str]) -> tuple[PreTrainedModel, object]:
    """The model for the labels `names` and its tokenizer or image processor.

    Raises ValueError or TypeError for a source or config fields that do not fit.
    """
    fields = dict(settings.config or {}) | {"problem_type": settings.problem_type, "id2label": dict(enumerate(names))}
    if settings.kind == "plain":
        fields = {name: value for name, value in fields.items() if name not in MHEX_ONLY}
        fields["label2id"] = {name: number for number, name in enumerate(names)}
    return (build_text if settings.family == "bert" else build_image)(settings, processing, fields)


def build_text(settings: ModelSettings, processing: ProcessingSettings, fields: dict):
    """A BERT from a folder, a Hub id or the demo's MiniLM."""
    source = minilm_folder() if settings.weights == "minilm" else settings.weights
    if settings.kind == "mhex":
        model = from_bert(source, **fields)
    else:
        given = AutoConfig.from_pretrained(source).to_dict()
        loss_fields = {name: fields.pop(name) for name in ("label_smoothing", "binary_share") if name in fields}
        config = BertConfig.from_dict({**given, "model_type": "bert"}, **fields)
        for name in ("label_smoothing", "binary_share", "instance_share", "deep_supervision_weight"):
            setattr(config, name, loss_fields.get(name, 0.0))
        model = PlainBert.from_pretrained(source, config=config, ignore_mismatched_sizes=True)
    longest = min(processing.max_length, model.config.max_position_embeddings)
    return model, AutoTokenizer.from_pretrained(source, model_max_length=longest)


def build_image(settings: ModelSettings, processing: ProcessingSettings, fields: dict):
    """A ResNet: timm's, fresh or with weights, or an MHEX folder to go on from."""
    if settings.weights and Path(settings.weights).is_dir():
        if settings.kind == "plain":
            raise ValueError("model.weights is an MHEX folder, which kind=plain cannot start from; give weights.")
        trained = load(settings.weights)[0]
        model = type(trained).from_pretrained(settings.weights, ignore_mismatched_sizes=True, **fields)
        return model, AutoImageProcessor.from_pretrained(settings.weights)
    fields |= {"num_channels": settings.num_channels, "architecture_kwargs": settings.architecture_kwargs}
    if settings.kind == "mhex":
        model = from_timm(settings.architecture, settings.pretrained, settings.weights, **fields)
    else:
        model = plain_resnet(settings, fields)
    wanted = {name: getattr(processing, name) for name in ("image_size", "crop_pct", "mean", "std")}
    return model, image_processor_for(model.config, **wanted)


def plain_resnet(settings: ModelSettings, fields: dict) -> PlainResNet:
    """timm's network under a fresh classifier, with the same weights as its MHEX twin starts from."""
    model = PlainResNet(MHEXResNetConfig(architecture=settings.architecture, **fields))
    state = {}
    if settings.weights:
        state = read_checkpoint(settings.weights)
    elif settings.pretrained:
        import timm

        state = timm.create_model(settings.architecture, pretrained=True).state_dict()
    own = model.network.state_dict()
    fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    missing = [key for key in own if key not in fits and not key.startswith("fc.") and "num_batches" not in key]
    if state and missing:
        raise ValueError(f"model.weights={settings.weights!r} lacks {len(missing)} weights, among them {missing[0]}.")
    model.network.load_state_dict(
        {key: value for key, value in fits.items() if not key.startswith("fc.")}, strict=False
    )
    return model
