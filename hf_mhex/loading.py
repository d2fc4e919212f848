"""Loading of saved MHEX models with their processors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from os import PathLike, fspath
from pathlib import Path

import torch

from hf_mhex.environment import downloading, missing_download
from hf_mhex.families import FAMILIES, family_of


def source_config(source: str | PathLike, revision: str | None = None) -> dict:
    """The config.json of a local folder or a Hub id; OSError where there is none.

    It is a ConnectionError where the Hub would have to be asked and cannot be.
    """
    from transformers import PreTrainedConfig

    if Path(source).is_dir() and not Path(source, "config.json").is_file():
        raise FileNotFoundError(f"source={fspath(source)!r} holds no model: no config.json in the folder.")
    with downloading(f"source={fspath(source)!r}"):
        return PreTrainedConfig.get_config_dict(source, revision=revision)[0]


def file_of(source: str | PathLike, name: str, revision: str | None = None) -> str | None:
    """The path of a file of a local folder or a Hub id; None where there is none.

    It is a ConnectionError where the Hub would have to be asked and cannot be.
    """
    from transformers.utils import cached_file

    with downloading(f"{name} of {fspath(source)!r}"):
        try:
            return cached_file(source, name, revision=revision)
        except OSError as error:
            if missing_download(error):
                raise
            return None


def load(source: str | PathLike, revision: str | None = None, **kwargs):
    """The classifier in eval mode and its tokenizer, image processor or feature extractor, of a folder or a Hub id.

    The code that runs is this package's, never the repository's, and weights are read from safetensors only.

    Args:
        source: a folder that `save_pretrained` wrote, or a Hub id.
        revision: branch, tag or commit; a commit pins what is loaded. A Hub id without one is warned of, once.
        kwargs: handed to the model's `from_pretrained` (dtype, device_map, ...).

    Raises ValueError for a model of another family and for one without some of its weights; OSError, with transformers'
    own words, for one that is not there, and for weights that cannot be read.
    """
    found = source_config(source, revision).get("model_type")
    if found not in FAMILIES:
        raise ValueError(
            f"source={fspath(source)!r} is a {found!r} model, not one of {', '.join(FAMILIES)}; "
            "`mhex convert` makes one from a plain checkpoint."
        )
    family = FAMILIES[found]
    with downloading(f"source={fspath(source)!r}"), reading_weights(source):
        commit = None if Path(source).is_dir() else _commit(fspath(source), revision)
        model, info = family.classifier.from_pretrained(
            source, revision=commit, use_safetensors=True, **kwargs | {"output_loading_info": True}
        )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"source={fspath(source)!r} lacks {len(missing)} of the model's weights, among them "
            f"{', '.join(missing[:3])}, which would be random; to train them, use "
            f"hf_mhex.{family.classifier.__name__}.from_pretrained(source)."
        )
    model.eval()
    if commit:
        model.config._commit_hash = commit  # as older transformers do; it is not saved
        if revision is None:
            _warn_unpinned(fspath(source), commit)
    return model, _processor(family, source, commit)


@contextmanager
def reading_weights(source: str | PathLike) -> Iterator[None]:
    """Let weights that are no safetensors raise an OSError that names the file, of a folder the first such one."""
    from safetensors import SafetensorError, safe_open

    try:
        yield
    except SafetensorError as error:
        broken = fspath(source)
        for path in sorted(Path(source).glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt"):
                    pass
            except SafetensorError:
                broken = fspath(path)
                break
        raise OSError(
            f"the weights of {broken!r} cannot be read ({error}): truncated, or a Git-LFS pointer; fetch them again."
        ) from error


def load_processor(model):
    """The tokenizer or image processor that was saved with a model; ValueError where none was.

    Args:
        model: a classifier that `load` gave, whose commit it is of, or `from_pretrained`, where newer transformers
            (5.24) keep no commit: then the processor is that of the default branch.
    """
    source = model.name_or_path
    try:
        if not source:
            raise OSError("it was not loaded from anywhere")
        return _processor(family_of(model), source, getattr(model.config, "_commit_hash", None))
    except OSError as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"processor must be given: none was saved with the model ({said}).") from error


def _commit(source: str, revision: str | None) -> str:
    """The commit that a Hub id's revision is at, which names its folder in the cache."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source, "config.json", revision=revision)).parent.name


def _processor(family, source: str | PathLike, revision: str | None):
    import transformers

    with downloading(f"the {family.input.processor} of {fspath(source)!r}"):
        return getattr(transformers, family.input.auto_processor).from_pretrained(source, revision=revision)


@cache
def _warn_unpinned(source: str, commit: str) -> None:
    """Say once that what stands in a repository may change; `commit` is what was loaded."""
    said = f"{source!r} was loaded without a revision and may be another model tomorrow"
    warnings.warn(f"{said}; pin it by revision={commit!r}.", stacklevel=3)


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
        matrix = model.equivalent_matrix(number)
        with torch.no_grad():
            weight = gate(torch.eye(gate.out_features, dtype=matrix.dtype, device=matrix.device), rows=True)
        blocks.append(
            {
                "channels": weight.shape[0],
                "gate_norm": weight.norm().item(),
                "gate_spectral_norm": torch.linalg.matrix_norm(weight, 2).item(),
                "equivalent_norm": matrix.norm().item(),
            }
        )
    config = model.config
    return {
        "family": type(config).model_type,
        "architecture": getattr(config, "architecture", None) or type(config).model_type.removeprefix("mhex_"),
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "problem_type": config.problem_type,
        "gate_scale": config.gate_scale,
        "head_decay": config.head_decay,
        **sizes,
        "megabytes": round(sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6, 1),
        "blocks": blocks,
    }
