"""A model comes back as it was saved: bit for bit, in other dtypes, by the Auto classes and from meta tensors."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

import hf_mhex
from hf_mhex import MHEXResNetConfig, MHEXResNetForImageClassification
from networks import FIELDS, NAMES, RESNET, batch_for, family_named, image_batch, lively, small_config

BLUR = {"architecture": "resnetblur18", "architecture_kwargs": RESNET["architecture_kwargs"]}


def auto_class(name):
    return getattr(transformers, family_named(name).input.auto_model)


def identical(state, other):
    """Whether two state dicts hold the same bits in the same dtypes under the same keys."""
    return list(state) == list(other) and all(
        value.dtype == other[key].dtype and torch.equal(value, other[key]) for key, value in state.items()
    )


def aligned(model):
    """The model with its weights in memory of their own: a kernel may round by where a file's bytes happen to lie."""
    for weight in model.parameters():
        weight.data = weight.data.clone()
    return model


def identical_answers(model, other, inputs):
    answers = [network.generate_saliency(**inputs, target="all") for network in (model, other)]
    one, two = answers
    assert one.logits.std() > 0.1 and one.saliency.std() > 0
    names = ("saliency", "explained", "logits", "block_logits", "target")
    return all(torch.equal(one[name], two[name]) for name in names) and all(
        torch.equal(ours, theirs) for ours, theirs in zip(one.block_saliency, two.block_saliency, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("meta", [False, True], ids=["plain", "device_map"])
def test_a_model_comes_back_bit_for_bit(tmp_path, name, meta):
    model = lively(name, torch.float32, num_labels=5, head_decay=0.3, problem_type="multi_label_classification")
    model.save_pretrained(tmp_path)
    options = {"device_map": "cpu", "low_cpu_mem_usage": True} if meta else {}
    again, info = family_named(name).classifier.from_pretrained(tmp_path, output_loading_info=True, **options)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert identical(again.state_dict(), model.state_dict()) and not again.training
    assert identical_answers(model, aligned(again), batch_for(name))
    assert again.config.to_diff_dict() == model.config.to_diff_dict()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_holds_the_weights_and_the_family_by_name(tmp_path, name):
    model = lively(name, torch.float32)
    model.save_pretrained(tmp_path)
    assert identical(
        dict(sorted(load_file(tmp_path / "model.safetensors").items())), dict(sorted(model.state_dict().items()))
    )
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == f"mhex_{name}" and saved["architectures"] == [family_named(name).classifier.__name__]
    assert saved["head_decay"] == 0.5 and saved["gate_scale"] == 2.0 and saved["mhex_version"] == hf_mhex.__version__
    family = family_named(name)
    modules = {module.rpartition(".")[2]: classes for module, classes in list(family.files.items())[:2]}
    found = {found.partition(".")[::2] for found in saved["auto_map"].values()}
    assert found == {(module, class_name) for module, classes in modules.items() for class_name in classes}
    assert set(saved["custom_pipelines"]) == {family.input.saliency_task}
    for module in (*modules, "mhex", "mhex_blocks", "mhex_maps", "mhex_loss", "mhex_config", "pipeline_mhex"):
        assert (tmp_path / f"{module}.py").exists()


@pytest.mark.parametrize("name", NAMES)
def test_shards_come_back_bit_for_bit(tmp_path, name):
    model = lively(name, torch.float32)
    model.save_pretrained(tmp_path, max_shard_size="15KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again = family_named(name).classifier.from_pretrained(tmp_path)
    assert identical(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_saved_and_read_as_such(tmp_path, name):
    model = lively(name, torch.float32).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    again = family_named(name).classifier.from_pretrained(tmp_path, dtype="auto")
    assert again.dtype == torch.bfloat16 and identical(again.state_dict(), model.state_dict())
    if name != "modernbert":  # `.to` rounds its rotary frequencies too, which are in no file
        assert identical_answers(model, again, batch_for(name))
    wide = family_named(name).classifier.from_pretrained(tmp_path, dtype=torch.float32)
    assert {value.dtype for value in wide.parameters()} == {torch.float32}
    floats = {key: value.float() for key, value in model.state_dict().items()}
    assert all(torch.equal(value.float(), floats[key]) for key, value in wide.state_dict().items())
    back = wide.to(torch.bfloat16)
    assert identical(back.state_dict(), model.state_dict())


def starts_with(std, head):
    """Whether the weights look as if drawn from a normal distribution of standard deviation `std` / sqrt(C)."""
    drawn = head.weight.detach() * head.in_features**0.5 / std
    return 0.7 < drawn.std() < 1.3 and drawn.mean().abs() < 0.5 and drawn.abs().max() < 5


@pytest.mark.parametrize("name", NAMES)
def test_another_label_count_makes_new_heads_only(tmp_path, name):
    model = lively(name, torch.float32)
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        family_named(name).classifier.from_pretrained(tmp_path, num_labels=7)
    again, info = family_named(name).classifier.from_pretrained(
        tmp_path, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
    )
    heads = {f"heads.{block}.weight" for block in range(model.num_blocks)}
    assert {key for key, *_ in info["mismatched_keys"]} == heads and not info["missing_keys"]
    states = [{k: v for k, v in m.state_dict().items() if k not in heads} for m in (model, again)]
    assert identical(*states)
    for head in again.heads:
        assert head.weight.shape[0] == 7 and starts_with(16, head)
    assert again(**batch_for(name)).logits.shape[1] == 7


@pytest.mark.parametrize("name", NAMES)
def test_a_body_and_a_classifier_read_each_other_s_folders(tmp_path, name):
    model = lively(name, torch.float32)
    model.save_pretrained(tmp_path / "classifier")
    model.base_model.save_pretrained(tmp_path / "body")
    for folder in ("classifier", "body"):
        body = family_named(name).body.from_pretrained(tmp_path / folder)
        own = model.base_model.state_dict()
        assert all(torch.equal(body.state_dict()[key], value) for key, value in own.items())
        features = [m(**batch_for(name)).last_hidden_state for m in (aligned(body), model.base_model)]
        assert torch.equal(*features)
    again, info = family_named(name).classifier.from_pretrained(
        tmp_path / "body", num_labels=4, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {f"heads.{block}.weight" for block in range(model.num_blocks)}
    assert identical(again.base_model.state_dict(), model.base_model.state_dict())


# ---- the Auto classes


@pytest.mark.parametrize("name", NAMES)
def test_auto_classes_give_our_classes(tmp_path, name):
    config = AutoConfig.for_model(f"mhex_{name}", **FIELDS[name], num_labels=5)
    assert type(config) is family_named(name).config and config.num_labels == 5
    assert type(AutoModel.from_config(config)) is family_named(name).body
    model = auto_class(name).from_config(config)
    assert type(model) is family_named(name).classifier and model.heads[0].weight.shape[0] == 5
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is family_named(name).config
    assert type(AutoModel.from_pretrained(tmp_path)) is family_named(name).body
    again = auto_class(name).from_pretrained(tmp_path)
    assert type(again) is family_named(name).classifier and identical(again.state_dict(), model.state_dict())


def test_auto_config_needs_the_name_alone():
    config = AutoConfig.for_model("mhex_resnet", architecture="resnet18", num_labels=5)
    assert (type(config), config.architecture, config.num_labels) == (MHEXResNetConfig, "resnet18", 5)
    assert config.num_channels == 3 and config.architecture_kwargs is None
    assert AutoConfig.for_model("mhex_bert").hidden_size == 768


# ---- new weights and meta tensors


def gates_are_one(model, inputs):
    """Whether every gate is exactly 1 for these inputs: `g * x + f` is `x + f` in every block."""
    gates, scores = model.base_model.gates, model.base_model(**inputs).gate_scores
    assert len(scores) == len(gates) and (model(**inputs).logits == 0).all()
    opened = all((gate.scale * score.sigmoid() == 1).all() for gate, score in zip(gates, scores))
    return opened and all((gate.weight == 0).all() for gate in gates)


@pytest.mark.parametrize("name", NAMES)
def test_new_gates_are_exactly_one_and_new_heads_are_not_zero(name):
    model = family_named(name).classifier(small_config(name)).eval()
    assert gates_are_one(model, batch_for(name))
    assert all(head.weight.std() > 0.01 for head in model.heads)


def test_the_paper_s_gates_start_at_one_half():
    model = MHEXResNetForImageClassification(MHEXResNetConfig.paper(**RESNET)).eval()
    gate = model.resnet.gates[0]
    assert (gate.scale * gate(torch.rand(2, 8)).sigmoid() == 0.5).all()


def test_a_fresh_trunk_starts_as_timm_starts_it():
    torch.manual_seed(0)
    trunk = MHEXResNetForImageClassification(MHEXResNetConfig(**RESNET)).resnet.trunk
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        for block in stage:
            assert (block.bn2.weight == 0).all() and (block.bn1.weight == 1).all()
            fan_out = block.conv2.weight.shape[0] * 9
            assert 0.85 < block.conv2.weight.std() / (2 / fan_out) ** 0.5 < 1.15


@pytest.mark.parametrize("name", NAMES)
def test_meta_models_have_the_keys_of_real_ones_and_no_storage(name):
    config = small_config(name)
    with torch.device("meta"):
        model = family_named(name).classifier(config)
    assert all(value.is_meta for value in model.parameters())
    real = family_named(name).classifier(config)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}


@pytest.mark.parametrize("way", ["from_pretrained", "device_map", "auto", "meta"])
def test_blur_pools_are_whole_after_loading(tmp_path, way):
    model = lively("resnet", torch.float32, **BLUR)
    model.save_pretrained(tmp_path)
    if way == "meta":
        with torch.device("meta"):
            again = MHEXResNetForImageClassification(model.config)
        again.to_empty(device="cpu")
        for value in again.state_dict().values():
            value.fill_(float("nan") if value.is_floating_point() else 0)
        for buffer in again.buffers():
            buffer.fill_(float("nan") if buffer.is_floating_point() else 0)
        again.init_weights()
        again.load_state_dict(load_file(tmp_path / "model.safetensors"))
        again.eval()
    else:
        options = {"device_map": {"device_map": "cpu"}}.get(way, {})
        source = AutoModelForImageClassification if way == "auto" else MHEXResNetForImageClassification
        again = source.from_pretrained(tmp_path, **options)
    buffers = {name: value for name, value in model.named_buffers() if name not in model.state_dict()}
    assert len(buffers) > 3  # the blur kernels are in no file
    ours = dict(again.named_buffers())
    assert all(torch.equal(ours[name], value) for name, value in buffers.items())
    assert identical_answers(model, again, image_batch(size=(64, 64)))


def test_offloaded_to_meta_nothing_is_read(tmp_path):
    model = lively("resnet", torch.float32, **BLUR)
    model.save_pretrained(tmp_path)
    again = MHEXResNetForImageClassification.from_pretrained(tmp_path, device_map="meta")
    assert all(value.is_meta for value in again.parameters())
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_missing_gates_and_heads_start_as_new_ones_do(tmp_path, name):
    model = lively(name, torch.float32)
    lost = [key for key in model.state_dict() if "gate" in key or key.startswith("heads.")]
    kept = {key: value for key, value in model.state_dict().items() if key not in lost}
    model.save_pretrained(tmp_path, state_dict=kept)
    again, info = family_named(name).classifier.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == set(lost) and len(lost) == 2 * model.num_blocks
    assert gates_are_one(again, batch_for(name))
    assert all(starts_with(16, head) for head in again.heads)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in kept.items())
