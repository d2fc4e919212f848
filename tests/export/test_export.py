"""Do exported graphs say what PyTorch says? ONNX in onnxruntime and torch.export, every size, batch and padding."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import hf_mhex
from hf_mhex.export.graphs import (
    compare_quantised,
    export_onnx,
    export_program,
    graph_of,
    largest_error,
    open_onnx,
    quantize_onnx,
    run_onnx,
    sample_batches,
)
from minilm import MINILM
from networks import image_batch, lively_bert, lively_resnet, text_batch

onnx = pytest.importorskip("onnx", reason="ONNX and its runtime are in the extra export: make test-extras")

MODELS = {"bert": lively_bert, "resnet": lively_resnet}


def inputs_for(family, batch, size):
    if family == "resnet":
        return image_batch(batch, size)
    inputs = text_batch(batch, size)
    return inputs | {"token_type_ids": torch.zeros_like(inputs["input_ids"])}


def sizes_of(family):
    return ((41, 33), (97, 61), (160, 224)) if family == "resnet" else (2, 17, 40)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Family to (model, ONNX file)."""
    folder = tmp_path_factory.mktemp("onnx")
    models = {family: make(torch.float32) for family, make in MODELS.items()}
    return {family: (model, export_onnx(model, folder / f"{family}.onnx")) for family, model in models.items()}


@pytest.mark.parametrize("family", MODELS)
def test_onnx_agrees_in_every_size_and_batch(exported, family):
    model, path = exported[family]
    session = open_onnx(path)
    for size in sizes_of(family):
        for batch in (1, 7):
            inputs = inputs_for(family, batch, size)
            expected, found = model.generate_saliency(**inputs), run_onnx(session, inputs)
            for name, value in found.items():
                assert value.shape == tuple(expected[name].shape)
                assert np.abs(value - expected[name].numpy()).max() <= 1e-4
            assert np.abs(found["saliency"].reshape(batch, -1).sum(1) - found["logits"].max(1)).max() <= 1e-4
            if family == "bert":
                assert (found["saliency"][inputs["attention_mask"].numpy() == 0] == 0).all()


@pytest.mark.parametrize("family", MODELS)
def test_names_axes_and_labels_of_the_file(exported, family):
    model, path = exported[family]
    file = onnx.load(path)
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*file.graph.input, *file.graph.output]
    }
    size = ["height", "width"] if family == "resnet" else ["length"]
    for name in ("pixel_values",) if family == "resnet" else ("input_ids", "attention_mask", "token_type_ids"):
        assert axes[name] == ["batch", *([3] if family == "resnet" else []), *size]
    assert axes["saliency"] == ["batch", *size] and axes["logits"] == ["batch", 4]
    assert axes["block_logits"] == ["batch", model.num_blocks, 4]
    assert json.loads({prop.key: prop.value for prop in file.metadata_props}["labels"]) == list(
        model.config.id2label.values()
    )


@pytest.mark.parametrize("family", MODELS)
def test_eight_bits_leave_maps_that_add_up(exported, family, tmp_path):
    model, path = exported[family]
    small = quantize_onnx(path, tmp_path / "small.onnx")
    found = compare_quantised(path, small, list(graph_of(model).cases()))
    assert found.megabytes_after < found.megabytes_before
    assert 0 < found.logits < 0.2 and found.correlation > 0.95 and 0 < found.map < 0.3
    assert found.completeness < 1e-4 and found.labels >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_program_agrees_in_every_size_and_batch(family, tmp_path):
    model = MODELS[family](torch.float32)
    torch.export.save(export_program(model, contrast="softmax"), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for size in sizes_of(family):
        for batch in (1, 7):
            inputs = inputs_for(family, batch, size)
            expected, found = model.generate_saliency(**inputs, contrast="softmax"), program(**inputs)
            assert set(found) == {"logits", "saliency", "block_logits"}
            assert all((found[name] - expected[name]).abs().max() <= 1e-4 for name in found)
    assert largest_error(model, tmp_path / "model.pt2", contrast="softmax") <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"target": 2},
        {"contrast": "runner_up", "mode": "cam"},
        {"sharpness": 0.2, "normalize": "minmax"},
        {"blocks": [0]},
    ],
)
@pytest.mark.parametrize("family", MODELS)
def test_onnx_with_options(family, options, tmp_path):
    model = MODELS[family](torch.float32)
    assert largest_error(model, export_onnx(model, tmp_path / "model.onnx", **options), **options) <= 1e-4


@pytest.mark.slow
def test_onnx_of_a_rolled_out_text(tmp_path):
    model = MODELS["bert"](torch.float32)
    assert largest_error(model, export_onnx(model, tmp_path / "model.onnx", rollout=True), rollout=True) <= 1e-4


@pytest.mark.slow
def test_real_sizes(tmp_path):
    """ResNet-50 and MiniLM, with an 8-bit report over the embedded samples."""
    torch.manual_seed(0)
    resnet = hf_mhex.from_timm("resnet50", num_labels=10).eval()
    bert = hf_mhex.from_bert(MINILM, num_labels=2).eval()
    for model in (resnet, bert):
        for weight in (gate.weight for gate in model.base_model.gates):
            torch.nn.init.normal_(weight, std=0.05)
        path = export_onnx(model, tmp_path / f"{model.config.model_type}.onnx")
        assert largest_error(model, path) <= 1e-4
    small = quantize_onnx(path, tmp_path / "small.onnx")
    found = compare_quantised(path, small, sample_batches(bert, AutoTokenizer.from_pretrained(MINILM)))
    assert found.megabytes_after < 0.8 * found.megabytes_before and found.completeness < 1e-4


def test_wrong_calls(tmp_path):
    model = lively_resnet(torch.float32)
    for options, words in (
        ({"target": "all"}, "target must be None or a class index in an exported graph, got 'all'"),
        ({"target": 9}, "target must lie in"),
        ({"contrast": "worst"}, "contrast must be"),
    ):
        with pytest.raises(ValueError, match=words):
            export_onnx(model, tmp_path / "x.onnx", **options)
    with pytest.raises(TypeError, match="'upsample' is no option of an exported graph"):
        graph_of(model, upsample=False)
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        graph_of(lively_resnet(torch.float32).train())
    with pytest.raises(ValueError, match=r"must be in float32 to become ONNX, got torch\.bfloat16"):
        export_onnx(model.to(torch.bfloat16), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
