"""Conversion: which files are read and how, what is reported, what is saved, and what is refused in which words."""

import functools
import json
import pickle
import zipfile

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

import hf_mhex
from networks import CONVERTED, FIELDS, IMAGES, TEXTS, family_named, image_batch, lively
from plain_networks import NETWORKS, SMALL, features, image_state, inputs_for, pair, plain_part, save_text, scatter

HEADS = (AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification)


def new_keys(model):
    return [key for key in model.state_dict() if ".gate." in key or key.startswith("heads.")]


@pytest.mark.parametrize(
    "name, source", [(name, source) for name in TEXTS for source in HEADS] + [("bert", AutoModelForPreTraining)]
)
@torch.no_grad()
def test_heads_of_texts_are_left_out_and_reported(tmp_path, name, source):
    save_text(name, tmp_path, source)
    model, report = hf_mhex.convert(tmp_path, num_labels=4, output_loading_info=True)
    plain = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(features(model, inputs_for(name)), features(plain, inputs_for(name)))
    assert list(report.new) == new_keys(model)
    assert list(report.used) == [key for key in model.state_dict() if key not in report.new]
    saved, prefix = set(load_file(tmp_path / "model.safetensors")), f"{model.base_model_prefix}."
    assert set(report.unused) < saved and len(set(report.unused)) == len(report.unused)
    assert {prefix + key.removeprefix(prefix) for key in saved - set(report.unused)} == set(report.used)
    assert f"{len(report.used)} used; 6 new (3 gates, 3 heads, 0 others)" in str(report)
    assert all(key in str(report) for key in report.unused)


TAUGHT = {"rectified": True, "binary_share": 0.5, "instance_share": 0.05}
UNTAUGHT = {"rectified": False, "binary_share": 0.0, "instance_share": 0.0}


@pytest.mark.parametrize(
    "given, found",
    [
        ({"num_labels": 3}, TAUGHT),
        ({"id2label": {0: "a", 1: "b"}}, TAUGHT),
        ({}, TAUGHT),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, TAUGHT),
        ({"num_labels": 3, "instance_share": 0}, TAUGHT | {"instance_share": 0}),
        ({"num_labels": 3, "binary_share": 0}, TAUGHT | {"binary_share": 0, "instance_share": 0.0}),
        ({"num_labels": 3, **UNTAUGHT}, UNTAUGHT),
        ({"num_labels": 1}, UNTAUGHT),
        ({"num_labels": 3, "problem_type": "regression"}, UNTAUGHT),
    ],
)
@pytest.mark.parametrize("name", IMAGES)
def test_images_start_with_a_loss_that_makes_maps_point(name, given, found):
    """Where it suits the labels and nothing else is asked for; a step has a loss, whatever was given."""
    architecture, arguments = NETWORKS[name]
    model = hf_mhex.convert(architecture, architecture_kwargs=arguments, **given)
    assert {field: getattr(model.config, field) for field in found} == found
    count = model.config.num_labels
    labels = torch.tensor([0, 1, 2, 0]) % count
    if count == 1 or "problem_type" in given:
        labels = torch.nn.functional.one_hot(labels, count).float()
    assert model(**inputs_for(name), labels=labels).loss.isfinite()


@pytest.mark.parametrize("name", TEXTS)
def test_texts_start_with_the_loss_of_the_method(tmp_path, name):
    save_text(name, tmp_path)
    config = hf_mhex.convert(tmp_path, num_labels=3).config
    assert {field: getattr(config, field) for field in UNTAUGHT} == UNTAUGHT


LAYOUTS = {
    "safetensors": lambda state, folder: save_file(state, folder / "w.safetensors"),
    "plain": lambda state, folder: torch.save(state, folder / "w.pth"),
    "data parallel": lambda state, folder: torch.save(
        {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, folder / "w.pth.tar"
    ),
    "compiled": lambda state, folder: torch.save(
        {"model": {f"_orig_mod.{key}": value for key, value in state.items()}}, folder / "w.pt"
    ),
    "old format": lambda state, folder: torch.save(state, folder / "w.bin", _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize(
    "name, layout", [(name, "safetensors") for name in IMAGES] + [("resnet", layout) for layout in list(LAYOUTS)[1:]]
)
def test_files_of_images_are_read_and_reported(tmp_path, name, layout):
    state, (architecture, arguments) = image_state(name), NETWORKS[name]
    LAYOUTS[layout](state, tmp_path)
    (path,) = tmp_path.iterdir()
    fields = {"architecture": architecture, "architecture_kwargs": arguments, "output_loading_info": True}
    model, report = hf_mhex.convert(path, 4, **fields)
    own, head = plain_part(model).state_dict(), ("fc.", "head.")
    kept = [key for key in state if not key.startswith(head)]
    assert all(torch.equal(own[key], state[key]) for key in kept)
    assert set(report.used) == {f"{model.base_model_prefix}.trunk.{key}" for key in kept}
    assert list(report.new) == new_keys(model) and set(report.unused) == set(state) - set(kept)
    assert all(key.startswith(head) for key in report.unused) and report.unused


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("name", [*IMAGES, "bottlenecks"])
@torch.no_grad()
def test_other_input_channels_are_adapted_as_timm_does(tmp_path, name, channels):
    architecture, arguments = NETWORKS[name]
    path = tmp_path / "plain.safetensors"
    save_file(image_state(name), path)
    given = {"file": str(path), "custom_load": False}  # before timm 1.0.25 a ViT's own loader takes it for numpy's
    plain = timm.create_model(
        architecture, pretrained=True, pretrained_cfg_overlay=given, in_chans=channels, **arguments
    )
    plain = plain.eval()
    model = hf_mhex.convert(path, architecture=architecture, num_channels=channels, architecture_kwargs=arguments)
    inputs = image_batch(size=(64, 96), channels=channels)
    expected = features(plain, inputs)
    assert expected.std() > 0.1 and torch.equal(features(model, inputs), expected)


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_published_weights_are_those_that_timm_loads(tmp_path, monkeypatch, channels):
    path = tmp_path / "published.safetensors"
    save_file(image_state("torchvision's size"), path)
    published = functools.partial(timm.create_model, pretrained_cfg_overlay={"file": str(path)})
    plain = published("resnet18", pretrained=True, in_chans=channels).eval()
    monkeypatch.setattr(timm, "create_model", published)  # the file stands for what would be downloaded
    model, report = hf_mhex.convert("resnet18", 4, pretrained=True, num_channels=channels, output_loading_info=True)
    inputs = image_batch(size=(64, 96), channels=channels)
    assert torch.equal(features(model, inputs), features(plain, inputs))
    assert set(report.unused) == {"fc.weight", "fc.bias"}


@torch.no_grad()
def test_a_folder_that_timm_saved_is_read(tmp_path):
    architecture, arguments = NETWORKS["resnet"]
    plain = scatter(timm.create_model(architecture, **arguments)).eval()
    timm.models.save_for_hf(plain, tmp_path, model_args=arguments, safe_serialization=True)
    model = hf_mhex.convert(tmp_path, num_labels=4)
    assert torch.equal(features(model, inputs_for("resnet")), features(plain, inputs_for("resnet")))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="is timm's 'resnet18' without weights in the folder"):
        hf_mhex.convert(tmp_path, num_labels=4)


def timm_folder(folder, **changes):
    """A small network that timm saved, with changes in what it says of its images."""
    architecture, arguments = NETWORKS["resnet"]
    plain = scatter(timm.create_model(architecture, **arguments)).eval()
    timm.models.save_for_hf(plain, folder, model_args=arguments, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        config["pretrained_cfg"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    return plain


def test_a_folder_that_timm_saved_keeps_its_preprocessing(tmp_path):
    values = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}
    timm_folder(tmp_path, tag="own", crop_pct=0.8, input_size=[3, 40, 40], crop_mode="squash", **values)
    model = hf_mhex.convert(tmp_path)
    processor = hf_mhex.image_processor_for(model.config)
    assert processor.size == {"height": 50, "width": 50} and processor.crop_size == {"height": 40, "width": 40}
    assert [list(processor.image_mean), list(processor.image_std)] == [values["mean"], values["std"]]
    assert processor.resample == 2
    gray = hf_mhex.convert(tmp_path, num_channels=1, preprocessing={"crop_mode": "center"})
    processor = hf_mhex.image_processor_for(gray.config)
    assert processor.image_mean == pytest.approx([0.2]) and processor.size == {"shortest_edge": 50}


@pytest.mark.parametrize("arguments", [None, SMALL])
@torch.no_grad()
def test_a_folder_of_timm_s_that_transformers_saved_is_read(tmp_path, arguments):
    config = TimmWrapperConfig(architecture="resnet10t", model_args=arguments)
    plain = scatter(TimmWrapperForImageClassification(config)).eval()
    plain.save_pretrained(tmp_path)
    model = hf_mhex.convert(tmp_path, num_labels=4)
    assert torch.equal(features(model, inputs_for("resnet")), features(plain.timm_model, inputs_for("resnet")))


def test_a_tag_says_what_a_folder_of_timm_leaves_out(tmp_path):
    nothing = dict.fromkeys(("mean", "std", "crop_pct", "interpolation", "input_size"))
    timm_folder(tmp_path, tag="fb_swsl_ig1b_ft_in1k", **nothing)
    known = timm.get_pretrained_cfg("resnet18.fb_swsl_ig1b_ft_in1k")
    found = hf_mhex.convert(tmp_path).config.preprocessing
    assert found["interpolation"] == known.interpolation and tuple(found["mean"]) == known.mean
    assert found["crop_pct"] == known.crop_pct
    assert known.interpolation != timm.get_pretrained_cfg("resnet18").interpolation


@torch.no_grad()
def test_a_hub_id_of_timm_brings_its_weights(tmp_path, monkeypatch):
    commit = "c0ffee" * 6 + "c0ff"
    repository = tmp_path / "models--timm--resnet18.own"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    plain = timm_folder(folder, mean=[0.1, 0.2, 0.3])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for revision in (None, commit):
        model = hf_mhex.convert("timm/resnet18.own", num_labels=4, revision=revision)
        assert torch.equal(features(model, inputs_for("resnet")), features(plain, inputs_for("resnet")))
        assert model.config.preprocessing["mean"] == [0.1, 0.2, 0.3]
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConnectionError, match="model.safetensors of 'timm/resnet18.own': not on this machine, and HF_"):
        hf_mhex.convert("timm/resnet18.own")


def test_weights_of_other_channels_name_their_number(tmp_path):
    path, (architecture, arguments) = tmp_path / "bands.safetensors", NETWORKS["resnet"]
    save_file(timm.create_model(architecture, in_chans=4, **arguments).state_dict(), path)
    fields = {"architecture": architecture, "architecture_kwargs": arguments}
    for channels in (1, 3, 5):
        said = f"bands.safetensors' reads images of 4 channels; give num_channels=4, got {channels}"
        with pytest.raises(ValueError, match=said):
            hf_mhex.convert(path, num_channels=channels, **fields)
    assert hf_mhex.convert(path, num_channels=4, **fields).config.num_channels == 4


def test_a_tag_that_timm_does_not_know_is_named():
    with pytest.raises(ValueError, match="architecture='resnet18.nothing' cannot be made: .*nothing"):
        hf_mhex.convert("resnet18.nothing")


def test_weights_that_timm_does_not_publish_are_named():
    with pytest.raises(ValueError, match="pretrained=True: No pretrained weights exist for"):
        hf_mhex.convert("seresnet18", pretrained=True)


def test_without_weights_everything_is_new_and_labels_are_carried():
    names = {0: "normal", 1: "pneumonia"}
    options = {"num_labels": None, "head_decay": 0.3, "output_loading_info": True}
    model, report = hf_mhex.convert("resnet10t", id2label=names, **options)
    assert hf_mhex.convert("resnet10t", num_labels=None).config.num_labels == 2
    assert not report.used and not report.unused and list(report.new) == list(model.state_dict())
    assert model.config.id2label == names and model.config.label2id == {"normal": 0, "pneumonia": 1}
    assert model.config.num_labels == 2 and model.config.head_decay == 0.3
    assert all((gate.weight == 0).all() for gate in model.base_model.gates)
    assert all(head.weight.std() > 0.01 for head in model.heads)


@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_model_is_saved_as_what_it_is(tmp_path, name):
    (tmp_path / "plain").mkdir()
    _, model = pair(name, tmp_path / "plain")
    model.save_pretrained(tmp_path / "ours")
    family, config = family_named(name), json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["model_type"] == family.model_type and config["architectures"] == [family.classifier.__name__]
    module = f"modeling_{family.model_type}"
    assert config["auto_map"][family.input.auto_model] == f"{module}.{family.classifier.__name__}"
    assert config["auto_map"]["AutoModel"] == f"{module}.{family.body.__name__}"
    again, info = family.classifier.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
    if name in TEXTS:
        third, report = hf_mhex.convert(tmp_path / "ours", output_loading_info=True)
        assert not report.new and not report.unused
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in third.state_dict().items())


# ---- sources that do not fit


def shallower(fields):
    """The fields of a network with one block fewer."""
    fewer = dict(fields)
    for key in {"num_hidden_layers", "n_layers", "depth"} & fewer.keys():
        fewer[key] -= 1
    for key in {"layers", "depths"} & fewer.keys():
        fewer[key] = [1] * len(fewer[key])
    return fewer


@pytest.mark.parametrize("name", CONVERTED)
def test_weights_of_a_deeper_network_are_refused(tmp_path, name):
    if name in TEXTS:
        save_text(name, tmp_path)
        CONFIG_MAPPING[family_named(name).sources[0]](**shallower(FIELDS[name])).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="weights of a body that its config.json does not describe"):
            hf_mhex.convert(tmp_path, num_labels=4)
    else:
        path, (architecture, arguments) = tmp_path / "deep.safetensors", NETWORKS[name]
        save_file(image_state(name), path)
        with pytest.raises(ValueError, match="deep.safetensors.*does not fit.* of the source's weights have no place"):
            hf_mhex.convert(path, 4, architecture=architecture, architecture_kwargs=shallower(arguments))


@pytest.mark.parametrize("architecture", ["resnet34", "resnet50", "resnet18d"])
def test_weights_of_another_architecture_are_refused(tmp_path, architecture):
    path = tmp_path / "resnet18.safetensors"
    save_file(image_state("torchvision's size"), path)
    with pytest.raises(ValueError, match=f"18.safetensors.*does not fit architecture='{architecture}'.*layer|conv"):
        hf_mhex.convert(path, 4, architecture=architecture)


@pytest.mark.parametrize("change", ["missing", "shape"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_model_without_its_body_is_refused(tmp_path, name, change):
    save_text(name, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    key = next(key for key, value in state.items() if value.ndim == 2 and ".1." in key)
    if change == "missing":
        del state[key]
    else:
        state[key] = torch.zeros(32, 50)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"lacks 1 of the body's weights.*\.{key}"):
        hf_mhex.convert(tmp_path, num_labels=4)


def test_sources_of_no_family_are_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "robert"}')
    with pytest.raises(ValueError, match=r"is a 'robert' model; MHEX is made from bert.*\(nearest: roberta\)"):
        hf_mhex.convert(tmp_path)
    with pytest.raises(ValueError, match="is a 'robert' model, no 'bert'; use hf_mhex.convert"):
        hf_mhex.from_bert(tmp_path)
    with pytest.raises(ValueError, match="architecture='vgg11' is timm's VGG; MHEX is made from its ResNet, ConvNeXt"):
        hf_mhex.convert("vgg11")
    said = r"'resnet5O' is no folder, no timm network \(timm has resnet50, .*\) and no Hub id: HF_HUB_OFFLINE is set"
    with pytest.raises(ValueError, match=said):
        hf_mhex.convert("resnet5O")


def test_missing_files_and_folders_are_named(tmp_path):
    missing = tmp_path / "none.pth"
    with pytest.raises(FileNotFoundError, match=f"source='{missing}' is no file and no folder"):
        hf_mhex.convert(missing, num_labels=4)
    with pytest.raises(FileNotFoundError, match=f"source='{tmp_path}' holds no model: no config.json"):
        hf_mhex.convert(tmp_path, num_labels=4)
    for path in (missing, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"checkpoint_path='{path}' is no file"):
            hf_mhex.convert(path, 4, architecture="resnet18")


def test_a_weights_file_needs_its_architecture(tmp_path):
    LAYOUTS["safetensors"](image_state("resnet"), tmp_path)
    with pytest.raises(ValueError, match="w.safetensors' is a weights file; name its network, architecture="):
        hf_mhex.convert(tmp_path / "w.safetensors", 4)
    with pytest.raises(ValueError, match="pretrained=True and checkpoint_path exclude each other"):
        hf_mhex.from_timm("resnet18", pretrained=True, checkpoint_path=tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", CONVERTED)
def test_a_typo_in_a_field_names_the_nearest(tmp_path, name):
    source = NETWORKS[name][0] if name in IMAGES else tmp_path
    if name in TEXTS:
        save_text(name, tmp_path)
    with pytest.raises(TypeError, match=r"'gate_scal' is no field of MHEX\w+Config; did you mean 'gate_scale'\?"):
        hf_mhex.convert(source, num_labels=4, gate_scal=1.0)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"id2label": {0: "a", 2: "b"}}, "id2label must name the labels 0 to 1"),
        ({"id2label": {0: "a", 1: "a"}}, "a name of its own"),
        ({"id2label": {0: "a", 1: "b"}, "num_labels": 3}, "num_labels=3 contradicts id2label, which names 2"),
        ({"label2id": {"a": 0, "b": 1}, "num_labels": 3}, "num_labels=3 contradicts label2id, which names 2"),
        ({"label2id": {"a": 0, "b": 2}}, "must name the labels 0 to 1, got .0, 2."),
        ({"label2id": {"a": 0, "b": 0}}, "label2id must give every label an index of its own"),
        ({"label2id": ["a", "b"]}, r"label2id must be a dict .* got \['a', 'b'\]"),
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}}, "label2id=.* contradicts id2label=.*leave"),
        ({"id2label": {}}, "id2label must be a dict of the labels' names by index, got {}"),
        ({"id2label": ["a", "b"]}, r"id2label must be a dict .* got \['a', 'b'\]"),
        ({"num_labels": 0}, "num_labels must be an int of at least 1, got 0"),
        ({"num_labels": "2"}, "num_labels must be an int of at least 1, got '2'"),
    ],
)
def test_labels_that_contradict_each_other_are_refused(tmp_path, fields, words):
    save_text("bert", tmp_path)
    for source in ("resnet10t", tmp_path):
        with pytest.raises(ValueError, match=words):
            hf_mhex.convert(source, **fields)


@pytest.mark.parametrize("name", ["resnet", "signal"])
def test_a_model_of_ours_with_weights_of_its_own_names_the_way_to_new_heads(tmp_path, name):
    model = lively(name, torch.float32)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is an MHEX model already: hf_mhex.load .*ignore_mismatched_sizes") as error:
        hf_mhex.convert(tmp_path, num_labels=7)
    assert f"hf_mhex.{type(model).__name__}.from_pretrained" in str(error.value)
    again = getattr(hf_mhex, type(model).__name__).from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert all(len(head.weight) == 7 and head.weight.std() > 0 for head in again.heads)


@pytest.mark.parametrize("given", [{}, {"num_labels": 2}, {"num_labels": 3}, {"id2label": {0: "x", 1: "y", 2: "z"}}])
def test_labels_of_a_source_stay_and_its_kind_of_problem_stays_with_their_number(tmp_path, given):
    save_text("bert", tmp_path / "text", id2label={0: "sad", 1: "glad"}, problem_type="multi_label_classification")
    timm_folder(tmp_path / "timm")
    timm_config = json.loads((tmp_path / "timm" / "config.json").read_text())
    (tmp_path / "timm" / "config.json").write_text(json.dumps(timm_config | {"label_names": ["sad", "glad"]}))
    config = TimmWrapperConfig(architecture="resnet10t", model_args=SMALL, id2label={0: "sad", 1: "glad"})
    TimmWrapperForImageClassification(config).save_pretrained(tmp_path / "both")
    for folder in ("text", "timm", "both"):
        found = hf_mhex.convert(tmp_path / folder, **given).config
        if not given:
            assert found.id2label == {0: "sad", 1: "glad"}
        assert found.num_labels == (len(given.get("id2label", ())) or given.get("num_labels", 2))
        if folder == "text":
            assert found.problem_type == ("multi_label_classification" if found.num_labels == 2 else None)


def test_what_cannot_be_said_of_a_source_is_refused(tmp_path):
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "ten.safetensors")
    for source, fields in (("resnet10t", {}), (tmp_path / "ten.safetensors", {"architecture": "resnet10t"})):
        with pytest.raises(ValueError, match="revision='main' is of a Hub repository, which source=.* is not"):
            hf_mhex.convert(source, revision="main", **fields)
        with pytest.raises(TypeError, match="'device_map' is no field"):
            hf_mhex.convert(source, device_map="meta", **fields)
        with pytest.raises(TypeError, match="dtype must be a floating type of torch, as torch.float16, got 'half16'"):
            hf_mhex.convert(source, dtype="half16", **fields)
        for dtype in (torch.bfloat16, "bfloat16"):
            assert hf_mhex.convert(source, dtype=dtype, **fields).dtype == torch.bfloat16


def test_labels_are_named_by_their_indices_alone(tmp_path):
    save_text("bert", tmp_path)
    for source in ("resnet10t", tmp_path):
        config = hf_mhex.convert(source, label2id={"no": 1, "yes": 0, "may": 2}).config
        assert list(config.id2label.items()) == [(0, "yes"), (1, "no"), (2, "may")] and config.num_labels == 3
    both = {"id2label": {0: "yes", 1: "no"}, "label2id": {"yes": 0, "no": 1}}
    assert hf_mhex.convert("resnet10t", **both).config.id2label == both["id2label"]


def test_weights_of_timm_s_are_refused_for_a_source_that_brings_its_own(tmp_path):
    save_text("bert", tmp_path)
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "ten.safetensors")
    for source, fields in ((tmp_path, {}), (tmp_path / "ten.safetensors", {"architecture": "resnet10t"})):
        with pytest.raises(ValueError, match="pretrained=True takes timm's weights, but source=.*leave pretrained out"):
            hf_mhex.convert(source, num_labels=2, pretrained=True, **fields)


class Intruder:
    """A pickle that does something when it is read: here, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def bare_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))  # torch's own


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("write", [torch.save, bare_pickle], ids=["torch.save", "pickle"])
def test_pickled_objects_are_refused_and_never_unpickled(tmp_path, write, suffix):
    path, trace = tmp_path / f"weights{suffix}", tmp_path / "created"
    write({**image_state("resnet"), "note": Intruder(trace)}, path)
    with pytest.raises(ValueError, match=f"weights{suffix}.*cannot be read as weights"):
        hf_mhex.convert(path, 4, architecture="resnet18", architecture_kwargs=SMALL)
    assert not trace.exists()
    if suffix == ".pth":
        torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
        assert trace.exists()  # the intruder is real


UNREADABLE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("weights\n"),
    "cut short": lambda path: (torch.save(image_state("resnet"), path), path.write_bytes(path.read_bytes()[:5000])),
    "empty zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "no names": lambda path: torch.save([torch.zeros(3)], path),
    "one tensor": lambda path: torch.save(torch.zeros(3), path),
    "no tensors": lambda path: torch.save({"epoch": 3}, path),
    "empty dictionary": lambda path: torch.save({}, path),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_files_without_weights_are_refused(tmp_path, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    UNREADABLE[kind](path)
    with pytest.raises(ValueError, match=rf"checkpoint_path='.*weights{suffix}' (cannot be read|holds no tensors)"):
        hf_mhex.convert(path, 4, architecture="resnet18")
