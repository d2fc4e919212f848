"""Does a converted model compute the very features of the network that it comes from? In eval and in train mode."""

import functools
import pickle
import zipfile

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
)

import hf_mhex
from hf_mhex import MHEXBertForSequenceClassification
from minilm import MINILM
from networks import BERT, image_batch, text_batch

SMALL = {"layers": [1, 2, 1, 2], "channels": [8, 16, 24, 32]}  # of any registered network: its blocks, stem and norms


@torch.no_grad()
def scatter(model, seed=0):
    """Random weights that say something: no norm's weight is 0, statistics are not 0 and 1, tokens differ."""
    torch.manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.ndim == 1:
            value.normal_(std=0.3)
        elif value.ndim == 2:
            value.normal_(std=1.0 if "embeddings" in name else 0.15)
    return model


def under_one_seed(forward, *args, **kwargs):
    torch.manual_seed(3)
    with torch.no_grad():
        return forward(*args, **kwargs)


# ---- BERT

HEADS = {
    BertModel: ["pooler.dense.bias", "pooler.dense.weight"],
    BertForMaskedLM: ["cls.predictions."],
    BertForSequenceClassification: ["bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier."],
    BertForPreTraining: [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.predictions.",
        "cls.seq_relationship.",
    ],
}
NEW_IN_BERT = [f"bert.encoder.layer.{block}.gate.weight" for block in range(3)] + [
    f"heads.{block}.weight" for block in range(3)
]


def save_bert(folder, model_class=BertModel, **fields):
    """A plain BERT of three layers, saved; its body."""
    model = scatter(model_class(BertConfig(**{**BERT, **fields})))
    model.save_pretrained(folder)
    return model if model_class is BertModel else model.bert


@pytest.mark.parametrize("source", HEADS)
@pytest.mark.parametrize("way", ["from_pretrained", "from_bert"])
def test_bert_features_are_the_sources(tmp_path, source, way):
    plain = save_bert(tmp_path, source).eval()
    if way == "from_bert":
        model = hf_mhex.from_bert(tmp_path, num_labels=4)
    else:
        model = MHEXBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    assert not model.training and model.config.num_labels == 4
    inputs = text_batch()
    with torch.no_grad():
        expected = plain(**inputs, output_hidden_states=True)
        found = model(**inputs, output_hidden_states=True)
        body = model.bert(**inputs).last_hidden_state
    assert expected.last_hidden_state[0].std(dim=0).mean() > 0.15  # tokens differ
    assert torch.equal(body, expected.last_hidden_state)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.hidden_states, expected.hidden_states))
    assert len(found.hidden_states) == 4 and found.logits.shape == (4, 4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert_drops_out_as_its_source_does(tmp_path, attention):
    save_bert(tmp_path)
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "attn_implementation": attention}
    plain = BertModel.from_pretrained(tmp_path, **rates).train()
    model = MHEXBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4, **rates).train()
    inputs = text_batch()
    expected = under_one_seed(plain, **inputs).last_hidden_state
    found = under_one_seed(model.bert, **inputs).last_hidden_state
    assert torch.equal(found, expected)
    assert (plain.eval()(**inputs).last_hidden_state - expected).abs().max() > 0.1  # something was dropped


def test_a_gate_that_is_not_one_is_seen(tmp_path):
    plain = save_bert(tmp_path).eval()
    model = MHEXBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    inputs = text_batch()
    nn.init.normal_(model.bert.gates[1].weight, std=0.3)
    with torch.no_grad():
        expected = plain(**inputs).last_hidden_state
        found = model.bert(**inputs).last_hidden_state
    assert (found - expected).abs().max() > 1e-2


def test_token_types_positions_and_embeddings_reach_the_source_s_layers(tmp_path):
    plain = save_bert(tmp_path).eval()
    model = MHEXBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    inputs = text_batch()
    more = {
        "token_type_ids": torch.arange(13)[None] % 2 * inputs["attention_mask"],
        "position_ids": torch.arange(13)[None] + 5,
    }
    embeds = {"inputs_embeds": torch.randn(4, 13, 32), "attention_mask": inputs["attention_mask"]}
    with torch.no_grad():
        for given in (inputs | more, embeds, {"input_ids": inputs["input_ids"]}):
            assert torch.equal(model.bert(**given).last_hidden_state, plain(**given).last_hidden_state)


@pytest.mark.parametrize(
    "fields",
    [
        {"vocab_size": 333, "type_vocab_size": 1, "max_position_embeddings": 70, "pad_token_id": 1},
        {"hidden_act": "relu", "layer_norm_eps": 1e-5, "num_hidden_layers": 1},
        {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 20},
    ],
)
def test_berts_of_other_shapes(tmp_path, fields):
    plain = save_bert(tmp_path, BertForMaskedLM, **fields).eval()
    model = MHEXBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    inputs = text_batch()
    with torch.no_grad():
        assert torch.equal(model.bert(**inputs).last_hidden_state, plain(**inputs).last_hidden_state)
    assert all(getattr(model.config, name) == value for name, value in fields.items())


def test_the_real_minilm_is_kept_exactly():
    plain, tokenizer = BertModel.from_pretrained(MINILM), AutoTokenizer.from_pretrained(MINILM)
    model = MHEXBertForSequenceClassification.from_pretrained(MINILM, num_labels=2)
    inputs = tokenizer(["The battery is bad, the screen is fine.", "good"], padding=True, return_tensors="pt")
    for train in (False, True):
        expected = under_one_seed(plain.train(train), **inputs).last_hidden_state
        assert torch.equal(under_one_seed(model.bert.train(train), **inputs).last_hidden_state, expected)


@pytest.mark.parametrize("source", HEADS)
def test_the_report_on_a_bert_names_every_key(tmp_path, source):
    save_bert(tmp_path, source)
    model, report = hf_mhex.from_bert(tmp_path, num_labels=4, output_loading_info=True)
    assert list(report.new) == NEW_IN_BERT
    assert list(report.used) == [key for key in model.state_dict() if key not in NEW_IN_BERT]
    saved = set(load_file(tmp_path / "model.safetensors"))
    prefix = "bert." if source is BertModel else ""
    assert {prefix + key for key in saved - set(report.unused)} == set(report.used)
    assert set(report.unused) <= saved and len(set(report.unused)) == len(report.unused)
    assert all(any(key.startswith(head) for head in HEADS[source]) for key in report.unused)
    assert all(any(key.startswith(head) for key in report.unused) for head in HEADS[source])
    assert f"{len(report.used)} used; 6 new (3 gates, 3 heads, 0 others)" in str(report)
    assert all(key in str(report) for key in report.unused)


def test_a_model_of_another_type_is_refused(tmp_path):
    DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_heads=2, n_layers=1, hidden_dim=16)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="'distilbert' model; MHEX-BERT starts from a 'bert'"):
        hf_mhex.from_bert(tmp_path, num_labels=4)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_a_bert_without_its_body_is_refused(tmp_path, change):
    save_bert(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    key = "encoder.layer.1.output.dense.weight"
    if change == "missing":
        del state[key]
    else:
        state[key] = torch.zeros(32, 50)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"lacks 1 of the body's weights.*bert\.{key}"):
        hf_mhex.from_bert(tmp_path, num_labels=4)


def test_a_converted_bert_is_saved_as_an_mhex_bert(tmp_path):
    save_bert(tmp_path / "plain", BertForSequenceClassification)
    names = {0: "bad", 1: "good", 2: "unclear"}
    model = hf_mhex.from_bert(tmp_path / "plain", id2label=names, gate_scale=1.5, head_decay=0.25)
    model.save_pretrained(tmp_path / "ours")
    again, info = MHEXBertForSequenceClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert '"model_type": "mhex_bert"' in (tmp_path / "ours" / "config.json").read_text()
    assert again.config.id2label == names and again.config.label2id == {"bad": 0, "good": 1, "unclear": 2}
    assert (again.config.gate_scale, again.config.head_decay) == (1.5, 0.25)
    assert again.config.architectures == ["MHEXBertForSequenceClassification"]
    third, report = hf_mhex.from_bert(tmp_path / "ours", output_loading_info=True)
    assert not report.new and not report.unused
    for other in (again, third):
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


# ---- ResNet

NETWORKS = {
    "resnet18": ("resnet18", SMALL),
    "resnet18, torchvision's size": ("resnet18", {}),
    "resnet10t": ("resnet10t", SMALL),
    "resnet14t": ("resnet14t", SMALL),
    "resnet26d": ("resnet26d", SMALL),
    "resnet50s": ("resnet50s", SMALL),
    "group norm": ("resnet50_gn", {"layers": [1, 1, 1, 2], "channels": [32, 32, 32, 64]}),
    "squeeze and excitation": ("seresnext26d_32x4d", {**SMALL, "channels": [16, 16, 32, 32]}),
    "senet": ("senet154", {**SMALL, "cardinality": 4, "base_width": 16}),
    "replaced stem pool": ("resnetrs50", SMALL),
    "efficient channel attention": ("ecaresnet26t", SMALL),
    "pruned": ("ecaresnet50d_pruned", {}),
    "blur pool": ("resnetblur18", SMALL),
    "average pool": ("resnetaa50d", SMALL),
    "output stride 8": ("resnet26d", {**SMALL, "output_stride": 8}),
    "output stride 16": ("resnet18", {**SMALL, "output_stride": 16}),
    "drop path": ("resnet26d", {**SMALL, "drop_path_rate": 0.1}),
    "drop block": ("resnet18", {**SMALL, "drop_block_rate": 0.1}),
    "drop block in bottlenecks": ("resnet50d", {**SMALL, "drop_block_rate": 0.1, "drop_path_rate": 0.3}),
}
RANDOM = ["drop path", "drop block", "drop block in bottlenecks"]


@functools.cache
def plain_state(name):
    """The random weights of timm's network of that kind; with classifier."""
    architecture, arguments = NETWORKS[name]
    return scatter(timm.create_model(architecture, **arguments)).state_dict()


def pair(name, folder, **fields):
    """timm's network and ours, converted from a file of its weights; both in eval mode."""
    architecture, arguments = NETWORKS[name]
    plain = timm.create_model(architecture, **arguments)
    plain.load_state_dict(plain_state(name))
    save_file(plain_state(name), folder / "plain.safetensors")
    fields = {"checkpoint_path": folder / "plain.safetensors", "num_labels": 4, **fields}
    return plain.eval(), hf_mhex.from_timm(architecture, architecture_kwargs=arguments or None, **fields).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_resnet_features_are_the_sources(tmp_path, name):
    plain, model = pair(name, tmp_path)
    pixels = image_batch(size=(64, 96))["pixel_values"]
    with torch.no_grad():
        expected, middle = plain.forward_intermediates(pixels)
        found = model(pixels, output_hidden_states=True)
        body = model.resnet(pixels).last_hidden_state
    assert expected.isfinite().all() and expected.std() > 0.1
    assert torch.equal(body, expected) and torch.equal(body, plain.forward_features(pixels))
    assert torch.equal(found.hidden_states[-1], expected)
    for ours, theirs in zip(found.hidden_states[1:], middle[1:], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_resnet_trains_as_its_source_does(tmp_path, name):
    plain, model = pair(name, tmp_path)
    pixels = image_batch(batch=4, size=(64, 96))["pixel_values"]
    still = plain.forward_features(pixels)
    expected = under_one_seed(plain.train().forward_features, pixels)
    found = under_one_seed(model.train().resnet, pixels).last_hidden_state
    assert (expected - still).abs().max() > 0.1 or name == "group norm"  # the mode is heard
    assert torch.equal(found, expected)
    ours = model.resnet.trunk.state_dict()
    statistics = [key for key in plain.state_dict() if "running" in key or "num_batches" in key]
    assert len(statistics) > 10 or name == "group norm"
    for key in statistics:
        assert torch.equal(ours[key], plain.state_dict()[key]), key
        assert not torch.equal(ours[key], plain_state(name)[key]), key  # the step was taken
    torch.manual_seed(4)
    other = model.resnet(pixels).last_hidden_state
    assert torch.allclose(other, found, atol=1e-4) == (name not in RANDOM)  # two seeds differ where chance plays


@pytest.mark.parametrize("name", ["resnet18", "resnet26d"])
def test_resnet_gradients_are_the_sources(tmp_path, name):
    plain, model = pair(name, tmp_path)
    pixels = image_batch(batch=4, size=(64, 96))["pixel_values"]
    weights = torch.randn(plain.train().forward_features(pixels).shape)
    (plain.forward_features(pixels) * weights).sum().backward()
    (model.train().resnet(pixels).last_hidden_state * weights).sum().backward()
    ours = dict(model.resnet.trunk.named_parameters())
    for key, parameter in plain.named_parameters():
        if not key.startswith("fc."):
            bound = 1e-4 * parameter.grad.abs().max()
            assert bound > 0 and (ours[key].grad - parameter.grad).abs().max() <= bound, key


def test_a_resnet_gate_that_is_not_one_is_seen(tmp_path):
    plain, model = pair("resnet18", tmp_path)
    pixels = image_batch(size=(64, 96))["pixel_values"]
    nn.init.normal_(model.resnet.gates[2].weight)
    with torch.no_grad():
        assert (model.resnet(pixels).last_hidden_state - plain.forward_features(pixels)).abs().max() > 1e-2


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_are_read_in_every_usual_layout(tmp_path, layout):
    LAYOUTS[layout](plain_state("resnet18"), tmp_path)
    (path,) = tmp_path.iterdir()
    fields = {"architecture_kwargs": SMALL, "num_labels": 4, "output_loading_info": True}
    model, report = hf_mhex.from_timm("resnet18", checkpoint_path=str(path), **fields)
    own = model.resnet.trunk.state_dict()
    state = plain_state("resnet18")
    assert all(torch.equal(own[key], value) for key, value in state.items() if not key.startswith("fc."))
    assert set(report.used) == {f"resnet.trunk.{key}" for key in state if not key.startswith("fc.")}
    gates = [f"resnet.trunk.layer{s}.{b}.gate.weight" for s, b in ((1, 0), (2, 0), (2, 1), (3, 0), (4, 0), (4, 1))]
    assert list(report.new) == gates + [f"heads.{block}.weight" for block in range(6)]
    assert set(report.unused) == {"fc.weight", "fc.bias"}


def test_torchvision_weights_give_torchvision_features(tmp_path):
    theirs = scatter(torchvision.models.resnet18()).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    model = hf_mhex.from_timm("resnet18", checkpoint_path=tmp_path / "resnet18.pth", num_labels=4).eval()
    pixels = image_batch(size=(64, 96))["pixel_values"]
    features = nn.Sequential(*list(theirs.children())[:-2])
    with torch.no_grad():
        expected = features(pixels)
        found = model.resnet(pixels).last_hidden_state
    assert expected.std() > 0.1 and (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("name", ["resnet18", "resnet26d"])
def test_other_input_channels_are_adapted_as_timm_does(tmp_path, name, channels):
    architecture, arguments = NETWORKS[name]
    path = tmp_path / "plain.safetensors"
    save_file(plain_state(name), path)
    plain = timm.create_model(
        architecture, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, in_chans=channels, **arguments
    ).eval()
    model = hf_mhex.from_timm(architecture, checkpoint_path=path, num_channels=channels, architecture_kwargs=arguments)
    pixels = image_batch(size=(64, 96), channels=channels)["pixel_values"]
    with torch.no_grad():
        expected = plain.forward_features(pixels)
        assert expected.std() > 0.1
        assert torch.equal(model.eval().resnet(pixels).last_hidden_state, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_published_weights_are_those_that_timm_loads(tmp_path, monkeypatch, channels):
    path = tmp_path / "published.safetensors"
    save_file(plain_state("resnet18, torchvision's size"), path)
    published = functools.partial(timm.create_model, pretrained_cfg_overlay={"file": str(path)})
    plain = published("resnet18", pretrained=True, in_chans=channels).eval()
    monkeypatch.setattr(timm, "create_model", published)  # the file stands for what would be downloaded
    model, report = hf_mhex.from_timm(
        "resnet18", pretrained=True, num_channels=channels, num_labels=4, output_loading_info=True
    )
    pixels = image_batch(size=(64, 96), channels=channels)["pixel_values"]
    with torch.no_grad():
        assert torch.equal(model.eval().resnet(pixels).last_hidden_state, plain.forward_features(pixels))
    assert set(report.unused) == {"fc.weight", "fc.bias"}


def test_without_weights_everything_is_new_and_labels_are_carried():
    names = {0: "normal", 1: "pneumonia"}
    model, report = hf_mhex.from_timm("resnet10t", id2label=names, head_decay=0.3, output_loading_info=True)
    assert not report.used and not report.unused and list(report.new) == list(model.state_dict())
    assert model.config.id2label == names and model.config.label2id == {"normal": 0, "pneumonia": 1}
    assert model.config.num_labels == 2 and model.config.head_decay == 0.3
    assert all((gate.weight == 0).all() for gate in model.resnet.gates)
    assert all(head.weight.std() > 0.01 for head in model.heads)


# ---- files that do not fit


@pytest.mark.parametrize("architecture", ["resnet34", "resnet50", "resnet18d"])
def test_weights_of_another_architecture_are_refused(tmp_path, architecture):
    path = tmp_path / "resnet18.safetensors"
    save_file(plain_state("resnet18, torchvision's size"), path)
    with pytest.raises(
        ValueError, match=f"resnet18.safetensors.*does not fit architecture='{architecture}'.*layer|conv"
    ):
        hf_mhex.from_timm(architecture, checkpoint_path=path, num_labels=4)


class Intruder:
    """What a pickle may do when it is read: here, create a file."""

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
    write({**plain_state("resnet18"), "note": Intruder(trace)}, path)
    with pytest.raises(ValueError, match=f"weights{suffix}.*cannot be read as weights"):
        hf_mhex.from_timm("resnet18", checkpoint_path=path, architecture_kwargs=SMALL, num_labels=4)
    assert not trace.exists()
    if suffix == ".pth":
        torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
        assert trace.exists()  # the intruder is real


def write_empty_zip(path):
    with zipfile.ZipFile(path, "w"):
        pass


UNREADABLE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("weights\n"),
    "cut short": lambda path: (torch.save(plain_state("resnet18"), path), path.write_bytes(path.read_bytes()[:5000])),
    "empty zip": write_empty_zip,
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
        hf_mhex.from_timm("resnet18", checkpoint_path=path, num_labels=4)


def test_missing_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"checkpoint_path='{path}' is no file"):
            hf_mhex.from_timm("resnet18", checkpoint_path=path, num_labels=4)


def test_two_sources_of_weights_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="pretrained=True and checkpoint_path exclude each other"):
        hf_mhex.from_timm("resnet18", pretrained=True, checkpoint_path=tmp_path / "none.pth")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"id2label": {0: "a", 2: "b"}}, "id2label must name the labels 0 to 1"),
        ({"id2label": {0: "a", 1: "a"}}, "a name of its own"),
        ({"id2label": {0: "a", 1: "b"}, "num_labels": 3}, "num_labels=3 contradicts id2label, which names 2"),
    ],
)
def test_labels_that_contradict_each_other_are_refused(tmp_path, fields, words):
    save_bert(tmp_path)
    with pytest.raises(ValueError, match=words):
        hf_mhex.from_timm("resnet10t", **fields)
    with pytest.raises(ValueError, match=words):
        hf_mhex.from_bert(tmp_path, **fields)
