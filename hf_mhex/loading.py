"""How does a saved MHEX model come back ready for use? Model and processor together, in eval mode."""

from __future__ import annotations

from os import PathLike, fspath

import torch
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedConfig

from hf_mhex.modeling.modeling_mhex_bert import MHEXBertForSequenceClassification
from hf_mhex.modeling.modeling_mhex_resnet import MHEXResNetForImageClassification

FAMILIES = {
    "mhex_bert": (MHEXBertForSequenceClassification, AutoTokenizer),
    "mhex_resnet": (MHEXResNetForImageClassification, AutoImageProcessor),
}


def model_type_of(source: str | PathLike, revision: str | None = None) -> str:
    """The `model_type` in the config.json of a local folder or a Hub id; ValueError where there is none."""
    found = PreTrainedConfig.get_config_dict(source, revision=revision)[0].get("model_type")
    if found is None:
        raise ValueError(f"source={fspath(source)!r} holds no model: no config.json that names a model_type.")
    return found


def load(source: str | PathLike, revision: str | None = None, **kwargs):
    """The classifier in eval mode, and its tokenizer or image processor, from a local folder or a Hub id.

    The code that runs is this package's, never the repository's, and weights are read from safetensors only.

    Args:
        source: a folder that `save_pretrained` wrote, or a Hub id.
        revision: branch, tag or commit; a commit pins what is loaded.
        kwargs: handed to the model's `from_pretrained` (dtype, device_map, ...).

    Raises ValueError for a model of another family; OSError, with transformers' own words, for one that is not there.
    """
    found = model_type_of(source, revision)
    if found not in FAMILIES:
        raise ValueError(
            f"source={fspath(source)!r} is a {found!r} model, not one of {', '.join(FAMILIES)}; `mhex convert` makes "
            "one from a BERT or a timm ResNet."
        )
    model_class, processor_class = FAMILIES[found]
    model = model_class.from_pretrained(source, revision=revision, use_safetensors=True, **kwargs).eval()
    return model, processor_class.from_pretrained(source, revision=revision)


def describe(model) -> dict:
    """What a classifier is, as numbers and names: family, labels, sizes, and per block the norms of its two matrices.

    `gate_norm` is the Frobenius norm of W1 (0: the gate is the same for every input), `gate_spectral_norm` its largest
    singular value, `equivalent_norm` the Frobenius norm of W_eq = W2 W1.
    """
    sizes = {"parameters": 0, "gate_parameters": 0, "head_parameters": 0}
    for name, parameter in model.named_parameters():
        sizes["parameters"] += parameter.numel()
        sizes["gate_parameters"] += ".gate." in name and parameter.numel()
        sizes["head_parameters"] += name.startswith("heads.") and parameter.numel()
    blocks = []
    for number, gate in enumerate(model.base_model.gates):
        weight = gate.equivalent(torch.eye(gate.out_features, device=gate.weight.device)).detach()
        blocks.append(
            {
                "channels": weight.shape[0],
                "gate_norm": weight.norm().item(),
                "gate_spectral_norm": torch.linalg.matrix_norm(weight, 2).item(),
                "equivalent_norm": model.equivalent_matrix(number).norm().item(),
            }
        )
    config = model.config
    return {
        "family": config.model_type,
        "architecture": getattr(config, "architecture", "bert"),
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "problem_type": config.problem_type,
        "gate_scale": config.gate_scale,
        "head_decay": config.head_decay,
        **sizes,
        "megabytes": round(sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6, 1),
        "blocks": blocks,
    }
