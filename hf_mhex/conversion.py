"""Conversion of plain checkpoints into MHEX models, with a report of every key."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path

import torch

from hf_mhex.environment import downloading, missing_download
from hf_mhex.families import FAMILIES, Family, family_for_source
from hf_mhex.loading import file_of, source_config
from hf_mhex.modeling.mhex_config import PREPROCESSING

CLASSIFIER_KEYS = ("fc.", "head.", "head_dist.", "fc_norm.", "attn_pool.", "classifier.")  # of timm's and torchvision's
POINTING = {"rectified": True, "binary_share": 0.5, "instance_share": 0.05}  # of images; docs/levers.md says what for
LOADING = ("attn_implementation", "device_map", "use_safetensors", "cache_dir")  # that from_pretrained of a text takes
OUTSIDE_BODY = ("embeddings.", "encoder.", "transformer.", "layers.", "final_norm.")  # keys that a text body must use


@dataclass(frozen=True)
class ConversionReport:
    """What became of the keys: `used` and `new` (fresh weights) are the model's, `unused` the source's."""

    used: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        gates = sum(".gate." in key for key in self.new)
        heads = sum(key.startswith("heads.") for key in self.new)
        others = len(self.new) - gates - heads
        parts = [f"{len(self.used)} used", f"{len(self.new)} new ({gates} gates, {heads} heads, {others} others)"]
        unused = f"{len(self.unused)} unused" + (f": {', '.join(self.unused)}" if self.unused else "")
        return "keys: " + "; ".join([*parts, unused])


def convert(
    source: str | PathLike,
    num_labels: int | None = None,
    id2label: Mapping | None = None,
    *,
    architecture: str | None = None,
    pretrained: bool = False,
    revision: str | None = None,
    output_loading_info: bool = False,
    **config_fields,
):
    """An MHEX classifier in eval mode from a plain network; it computes the plain network's features exactly.

    Args:
        source: a folder or Hub id of a checkpoint that transformers (with or without a head, which is left out) or timm
            saved, the name of a timm network, or a weights file (`architecture` then names its network).
        num_labels: number of labels; `id2label` sets it too.
        id2label: names of the labels by index; or `label2id`, the indices by name.
        architecture: timm's name of the network that a weights file is of.
        pretrained: take the weights that timm publishes for a name (over the network or from the cache); other sources
            bring their own, and refuse it.
        revision: branch, tag or commit of a Hub repository; refused for other sources of timm.
        output_loading_info: also return the `ConversionReport`.
        config_fields: fields of the family's configuration, and `dtype`; of texts also `attn_implementation`,
            `device_map`, `cache_dir` and `use_safetensors`, as `from_pretrained` has them. Classifiers of images take
            those of `POINTING` where they are not given, so that their maps point, and in `preprocessing` how their
            source's images are made.

    Raises ValueError for a source of no family, weights that do not fit and labels that contradict each other,
    TypeError for a field that no configuration has, FileNotFoundError for a missing file.
    """
    import timm

    path, name = Path(source), fspath(source)
    fields: dict = {"num_labels": num_labels, "output_loading_info": output_loading_info}
    fields |= config_fields | ({} if id2label is None else {"id2label": id2label})
    if path.is_file() or architecture is not None:
        if architecture is None:
            raise ValueError(
                f"source={name!r} is a weights file; name its network, architecture='resnet50' for example."
            )
        refuse_pretrained(pretrained, name)
        refuse_revision(revision, name)
        return from_timm(architecture, checkpoint_path=path, **fields)
    if not path.exists() and timm.is_model(name):
        refuse_revision(revision, name)
        return from_timm(name, pretrained=pretrained, **fields)
    if path.suffix in (".safetensors", ".pth", ".pt", ".bin", ".npz") or (path.is_absolute() and not path.exists()):
        raise FileNotFoundError(f"source={name!r} is no file and no folder.")
    try:
        config = source_config(source, revision)
    except OSError as error:
        if path.is_dir():
            raise
        close = get_close_matches(name, timm.list_models(), n=3)
        hint = f" (timm has {', '.join(close)})" if close else ""
        reason = missing_download(error) or f"{str(error).strip().splitlines()[0].rstrip('.')}."
        raise ValueError(f"source={name!r} is no folder, no timm network{hint} and no Hub id: {reason}") from error
    refuse_pretrained(pretrained, name)
    if "architecture" in config and config.get("model_type") in (None, "timm_wrapper"):  # as transformers reads timm's
        weights = timm_weights(source, revision)
        if weights is None:
            place = "the folder" if path.is_dir() else "model.safetensors on the Hub"
            raise ValueError(f"source={name!r} is timm's {config['architecture']!r} without weights in {place}.")
        kwargs = {**(config.get("model_args") or {}), **(fields.pop("architecture_kwargs", None) or {})}
        made = timm_preprocessing(config)
        if "img_size" in kwargs:
            made.pop("input_size", None)
        made |= fields.pop("preprocessing", None) or {}
        fields = {"num_channels": kwargs.pop("in_chans", 3), "preprocessing": made or None, **fields}
        pooling = () if "class_token" in kwargs else ("global_pool",)  # without a class token timm's norm depends on it
        kwargs = {key: value for key, value in kwargs.items() if key not in ("num_classes", *pooling)}
        names = config.get("id2label") or config.get("label_names")
        if names and not count_labels(fields):
            fields["id2label"] = dict(names if isinstance(names, Mapping) else enumerate(names))
        return from_timm(config["architecture"], checkpoint_path=weights, architecture_kwargs=kwargs or None, **fields)
    return from_transformers(source, revision=revision, **fields)


def timm_weights(source: str | PathLike, revision: str | None) -> str | PathLike | None:
    """The weights file of a folder or a Hub id that timm saved; None where there is none."""
    if (path := Path(source)).is_dir():
        return next((file for file in sorted(path.glob("*.safetensors")) + sorted(path.glob("*.bin"))), None)
    return file_of(source, "model.safetensors", revision)


def timm_preprocessing(config: Mapping) -> dict:
    """How images are made for what timm saved with `config`: what it says itself, then what timm knows of its tag."""
    from timm.models import get_arch_pretrained_cfgs

    saved = config.get("pretrained_cfg") or config  # older releases have its fields at the top
    tagged = get_arch_pretrained_cfgs(config["architecture"]).get(f"{config['architecture']}.{saved.get('tag')}")
    found = {name: saved.get(name) or getattr(tagged, name, None) for name in PREPROCESSING}
    return {name: value for name, value in found.items() if value is not None}


def refuse_pretrained(pretrained: bool, source: str) -> None:
    """ValueError where a source with weights of its own would silently keep them."""
    if pretrained:
        cure = "leave pretrained out, or give a timm network's name as the source"
        raise ValueError(f"pretrained=True takes timm's weights, but source={source!r} brings its own; {cure}.")


def refuse_revision(revision: str | None, source: str) -> None:
    """ValueError where a source that is not on the Hub would silently be another than that of the revision."""
    if revision is not None:
        raise ValueError(f"revision={revision!r} is of a Hub repository, which source={source!r} is not; leave it out.")


def count_labels(fields: Mapping) -> int:
    """How many labels the fields of a configuration name; 0 where they say nothing of them."""
    return fields.get("num_labels") or len(fields.get("id2label") or fields.get("label2id") or ())


def from_timm(
    architecture: str,
    pretrained: bool = False,
    checkpoint_path: str | PathLike | None = None,
    num_labels: int | None = None,
    output_loading_info: bool = False,
    **config_fields,
):
    """An MHEX image classifier from a timm network: fresh, with timm's published weights, or with a local file's.

    Args:
        architecture: a name that timm registers, with or without a tag ("resnet50", "resnet50.a1_in1k").
        pretrained: load the weights that timm publishes for the name (over the network or from the cache).
        checkpoint_path: a local `.safetensors` or PyTorch file (read with `weights_only=True`) of the same network in
            timm's or torchvision's naming; prefixes such as "module." are taken off, its classifier is left out, and a
            first convolution for another number of input channels is adapted as timm does.
        num_labels, output_loading_info, config_fields: as in `convert`.

    Raises ValueError and others as `convert`.
    """
    import timm

    if pretrained and checkpoint_path is not None:
        raise ValueError("pretrained=True and checkpoint_path exclude each other; give one of them.")
    family = timm_family(architecture, config_fields)
    fields = check_fields(family, pointing(label_fields(num_labels, config_fields)))
    dtype = dtype_of(fields)
    model = family.classifier(family.config(architecture=architecture, **fields))
    state: Mapping[str, torch.Tensor] = {}
    source = ""
    if checkpoint_path is not None:
        source, state = f"checkpoint_path={fspath(checkpoint_path)!r}", read_checkpoint(checkpoint_path)
    elif pretrained:
        source = f"timm's {architecture!r}"
        try:
            with downloading(f"timm's weights of {architecture!r}"):
                state = timm.create_model(architecture, pretrained=True).state_dict()
        except RuntimeError as error:
            raise ValueError(f"pretrained=True: {str(error).splitlines()[0]}") from error
    report = load_trunk(model, state, source)
    model.to(dtype).eval()
    return (model, report) if output_loading_info else model


def dtype_of(fields: dict) -> torch.dtype | None:
    """The number type that a network of timm is to have, taken out of the fields; TypeError for none."""
    found = [fields.pop(name, None) for name in ("dtype", "torch_dtype")]
    dtype = next((value for value in found if value is not None), None)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a floating type of torch, as torch.float16, got {dtype!r}.")
    return dtype


def timm_family(architecture: str, fields: Mapping) -> Family:
    """The family that a timm network belongs to; ValueError, naming the nearest, where there is none."""
    import timm

    if not isinstance(architecture, str) or not timm.is_model(architecture):
        close = get_close_matches(str(architecture), timm.list_models(), n=3)
        raise ValueError(
            f"architecture={architecture!r} is not registered in timm {timm.__version__}; close are {', '.join(close)}."
        )
    try:
        with torch.device("meta"):
            kind = type(timm.create_model(architecture, pretrained=False, num_classes=0)).__name__
    except RuntimeError as error:
        raise ValueError(f"architecture={architecture!r} cannot be made: {str(error).splitlines()[0]}") from error
    family = family_for_source("timm", kind)
    if family is None:
        known = [source for found in FAMILIES.values() if found.library == "timm" for source in found.sources]
        raise ValueError(f"architecture={architecture!r} is timm's {kind}; MHEX is made from its {', '.join(known)}.")
    return family


def read_checkpoint(path: str | PathLike) -> Mapping[str, torch.Tensor]:
    """The state dict of a local weights file; ValueError where it holds anything but tensors, or none."""
    from timm.models import load_state_dict

    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint_path={fspath(path)!r} is no file; give a local weights file.")
    try:
        state = load_state_dict(fspath(path), weights_only=True)
    except Exception as error:
        raise ValueError(
            f"checkpoint_path={fspath(path)!r} cannot be read as weights (safetensors, or a PyTorch file of tensors): "
            + ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        ) from error
    tensors = {
        key.removeprefix("timm_model."): value for key, value in state.items() if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise ValueError(f"checkpoint_path={fspath(path)!r} holds no tensors by name; give a state dict.")
    return tensors


def load_trunk(model, state: Mapping[str, torch.Tensor], source: str) -> ConversionReport:
    """Load plain weights into the trunk of `model` and report; an empty `state` leaves every key new.

    Raises ValueError where weights of the trunk are missing from `state` or have another shape, where `state` has
    weights beside the trunk's and a classifier's (it is of another network then), and where it reads another number of
    channels, unless that is 3.
    """
    from timm.models import adapt_input_conv

    trunk, prefix = model.base_model.trunk, f"{model.base_model_prefix}.trunk."
    own = trunk.state_dict()
    rename = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    state = dict(rename(dict(state), trunk)) if rename and state and not own.keys() & state.keys() else dict(state)
    first = trunk.pretrained_cfg["first_conv"] + ".weight"
    channels = model.config.num_channels
    if first in state and first in own and (found := state[first].shape[1]) != channels:
        if found != 3:
            raise ValueError(f"{source} reads images of {found} channels; give num_channels={found}, got {channels}.")
        state[first] = adapt_input_conv(channels, state[first])
    fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    new = [key for key in own if key not in fits]
    missing = [key for key in new if ".gate." not in key and not key.endswith("num_batches_tracked")]
    unused = [key for key in state if key not in fits]
    foreign = [key for key in unused if key not in own and not key.startswith(CLASSIFIER_KEYS)]
    if state and (missing or foreign):
        what = (
            f"{len(missing)} of its weights are missing there or have another shape, among them"
            if missing
            else (f"{len(foreign)} of the source's weights have no place in it, among them")
        )
        raise ValueError(
            f"{source} does not fit architecture={model.config.architecture!r}: {what} "
            f"{', '.join((missing or foreign)[:3])}. Name the architecture that the weights come from."
        )
    trunk.load_state_dict(fits, strict=False)
    return ConversionReport(
        used=tuple(prefix + key for key in fits),
        new=tuple(key for key in model.state_dict() if key.removeprefix(prefix) not in fits),
        unused=tuple(unused),
    )


def from_transformers(
    source: str | PathLike,
    num_labels: int | None = None,
    output_loading_info: bool = False,
    revision: str | None = None,
    **config_fields,
):
    """An MHEX text classifier from a transformers checkpoint: its `from_pretrained`, with a report.

    Args:
        source: a local folder or a Hub id, with or without any head: heads are left out.
        num_labels, output_loading_info, revision, config_fields: as in `convert`.

    Raises ValueError and others as `convert`.
    """
    found = str(source_config(source, revision).get("model_type"))
    family = FAMILIES.get(found) or family_for_source("transformers", found)
    if family is not None and found in family.mapped:
        return from_mapped(family, source, num_labels, output_loading_info, revision, config_fields)
    if family is not None and family.library != "transformers":
        made = family.classifier.__name__
        raise ValueError(
            f"source={fspath(source)!r} is an MHEX model already: hf_mhex.load reads it as it is, and for other labels "
            f"hf_mhex.{made}.from_pretrained(source, num_labels=..., ignore_mismatched_sizes=True) makes new heads."
        )
    if family is None:
        known = [name for other in FAMILIES.values() if other.library == "transformers" for name in other.sources]
        known += [name for other in FAMILIES.values() for name in other.mapped]
        close = get_close_matches(str(found), known, n=1)
        near = f" (nearest: {close[0]})" if close else ""
        raise ValueError(f"source={fspath(source)!r} is a {found!r} model; MHEX is made from {', '.join(known)}{near}.")
    fields = check_fields(family, label_fields(num_labels, config_fields), LOADING)
    if (count := count_labels(fields)) and count != count_labels(source_config(source, revision)):
        fields = {"problem_type": None, **fields}  # the source's is of its own labels
    with downloading(f"source={fspath(source)!r}"):
        model, info = family.classifier.from_pretrained(
            source, revision=revision, output_loading_info=True, ignore_mismatched_sizes=True, **fields
        )
    new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    missing = sorted(key for key in new if ".gate." not in key and not key.startswith("heads."))
    if missing:
        raise ValueError(
            f"source={fspath(source)!r} lacks {len(missing)} of the body's weights or has them in another shape, among "
            f"them {', '.join(missing[:3])}."
        )
    bare = {key: key.removeprefix(f"{model.base_model_prefix}.") for key in info["unexpected_keys"]}
    foreign = sorted(key for key, name in bare.items() if name.startswith(OUTSIDE_BODY) and "position_ids" not in name)
    if foreign:
        raise ValueError(
            f"source={fspath(source)!r} has {len(foreign)} weights of a body that its config.json does not describe, "
            f"among them {', '.join(foreign[:3])}."
        )
    keys = list(model.state_dict())
    report = ConversionReport(
        used=tuple(key for key in keys if key not in new),
        new=tuple(key for key in keys if key in new),
        unused=tuple(sorted(info["unexpected_keys"])),
    )
    model.eval()
    return (model, report) if output_loading_info else model


def from_mapped(
    family: Family, source: str | PathLike, num_labels: int | None, output_loading_info: bool, revision, fields: dict
):
    """An MHEX image classifier from a transformers checkpoint whose weights `family.mapping` gives timm's names."""
    arguments = fields.pop("architecture_kwargs", None) or {}
    read, state, unused = import_module(family.mapping).read_plain(source, revision, arguments.get("img_size"))
    read["architecture_kwargs"] |= arguments
    own, count = read.pop("id2label"), num_labels or count_labels(fields)
    if not count:
        read["id2label"] = own
    elif count != len(own):
        del read["problem_type"]
    read["preprocessing"] = {**read["preprocessing"], **(fields.pop("preprocessing", None) or {})} or None
    fields = check_fields(family, pointing(label_fields(num_labels, {**read, **fields})))
    dtype = dtype_of(fields)
    model = family.classifier(family.config(**fields))
    report = load_trunk(model, state, f"source={fspath(source)!r}")
    report = dataclasses.replace(report, unused=(*report.unused, *unused))
    model.to(dtype).eval()
    return (model, report) if output_loading_info else model


def from_bert(source: str | PathLike, num_labels: int | None = None, output_loading_info: bool = False, **fields):
    """MHEX-BERT from any BERT checkpoint; `from_transformers` for a BERT alone."""
    found = str(source_config(source, fields.get("revision")).get("model_type"))
    family = FAMILIES.get(found) or family_for_source("transformers", found)
    if family is None or "bert" not in family.sources:
        raise ValueError(f"source={fspath(source)!r} is a {found!r} model, no 'bert'; use hf_mhex.convert.")
    return from_transformers(source, num_labels, output_loading_info, **fields)


def pointing(fields: Mapping) -> dict:
    """Fields of a classifier of images with those of `POINTING` that are not given and that its loss has."""
    labels = len(fields["id2label"]) if fields.get("id2label") else fields.get("num_labels") or 2
    if labels == 1 or fields.get("problem_type") == "regression":
        return dict(fields)
    found = {**POINTING, **fields}
    if not found["binary_share"] and "instance_share" not in fields:
        del found["instance_share"]  # a share of the binary loss
    return found


def check_fields(family: Family, fields: dict, loading: tuple[str, ...] = ()) -> dict:
    """The fields of a configuration; TypeError, naming the closest, for one that the family does not have.

    loading: arguments of `from_pretrained` that are taken too.
    """
    known = {field.name for field in dataclasses.fields(family.config)}
    known |= {"num_labels", "dtype", "torch_dtype", *loading}
    for name in fields:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(known))}."
            raise TypeError(f"{name!r} is no field of {family.config.__name__}; {hint}")
    return fields


def label_fields(num_labels: int | None, fields: dict) -> dict:
    """Config fields with `num_labels`, `id2label` and `label2id` in agreement; ValueError where they contradict."""
    names, numbers = fields.get("id2label"), fields.get("label2id")
    if num_labels is not None and (isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 1):
        raise ValueError(f"num_labels must be an int of at least 1, got {num_labels!r}.")
    if numbers is not None and (not isinstance(numbers, Mapping) or not numbers):
        raise ValueError(f"label2id must be a dict of the labels' indices by name, got {numbers!r}; give id2label.")
    if names is None and numbers is not None:
        names = {index: name for name, index in sorted(numbers.items(), key=lambda entry: int(entry[1]))}
        if len(names) < len(numbers):
            raise ValueError(f"label2id must give every label an index of its own, got {dict(numbers)}.")
    if names is None:
        return fields if num_labels is None else {**fields, "num_labels": num_labels}
    if not isinstance(names, Mapping) or not names:
        raise ValueError(
            f"id2label must be a dict of the labels' names by index, got {names!r}; dict(enumerate(names))."
        )
    names = {int(index): str(name) for index, name in names.items()}
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"id2label must name the labels 0 to {len(names) - 1}, got {sorted(names)}.")
    if len(set(names.values())) < len(names):
        raise ValueError(f"id2label must give every label a name of its own, got {list(names.values())}.")
    if num_labels not in (None, len(names)):
        given = "label2id" if fields.get("id2label") is None else "id2label"
        raise ValueError(f"num_labels={num_labels} contradicts {given}, which names {len(names)} labels.")
    own = {name: index for index, name in names.items()}
    if numbers is not None and own != {str(name): int(index) for name, index in numbers.items()}:
        raise ValueError(f"label2id={dict(numbers)} contradicts id2label={names}; leave label2id out.")
    return {**fields, "id2label": names, "label2id": own}
