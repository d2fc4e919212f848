"""Is the model one graph? `torch.compile(fullgraph=True)` of forward and generate_saliency, in any size and option."""

import functools

import pytest
import torch

from networks import image_batch, lively_bert, lively_resnet, text_batch

FAMILIES = ["bert", "resnet"]
OPTIONS = [
    {},
    {"target": 1, "contrast": "mean"},
    {"target": "all", "contrast": "softmax"},
    {"mode": "cam", "contrast": "runner_up"},
    {"blocks": [0, -1], "decay": 0.9, "normalize": "minmax"},
    {"sign": "positive", "sharpness": 0.3, "normalize": "percentile"},
    {"target": torch.tensor([2, 0, 1]), "upsample": False},
]


@functools.cache
def network(family):
    return {"bert": lively_bert, "resnet": lively_resnet}[family](torch.float32)


def inputs_for(family, batch=3, **kwargs):
    return text_batch(batch, **kwargs) if family == "bert" else image_batch(batch, **kwargs)


def compiled(function, backend, **kwargs):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend, **kwargs)


def agree(found, expected, bound=1e-5):
    """Every tensor of two outputs, relative to its size."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        for one, two in zip(found[name], value) if isinstance(value, tuple) else [(found[name], value)]:
            assert one.dtype == two.dtype and one.shape == two.shape
            assert (one - two).abs().max() <= bound * max(1, two.abs().max().item()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_is_one_graph(family):
    model, inputs = network(family), inputs_for(family)
    agree(compiled(model, "aot_eager")(**inputs), model(**inputs))


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[5]])
@pytest.mark.parametrize("family", FAMILIES)
def test_saliency_is_one_graph(family, options):
    model, inputs = network(family), inputs_for(family)
    saliency = functools.partial(model.generate_saliency, **options)
    agree(compiled(saliency, "eager")(**inputs), saliency(**inputs))


def test_a_rolled_out_saliency_is_one_graph():
    model, inputs = network("bert"), inputs_for("bert")
    saliency = functools.partial(model.generate_saliency, rollout=True)
    agree(compiled(saliency, "eager")(**inputs), saliency(**inputs))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_graph_serves_every_size(family):
    model, graphs = network(family), []

    def count(graph, _examples):
        graphs.append(graph)
        return graph.forward

    function = compiled(model.generate_saliency, count, dynamic=True)
    sizes = [{"length": 13}, {"length": 9}] if family == "bert" else [{"size": (41, 33)}, {"size": (64, 48)}]
    for batch in (2, 5):
        for size in sizes:
            inputs = inputs_for(family, batch, **size)
            agree(function(**inputs), model.generate_saliency(**inputs))
    assert len(graphs) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_compiling_in_training_mode_is_refused(family):
    model = {"bert": lively_bert, "resnet": lively_resnet}[family](torch.float32).train()
    with pytest.raises(Exception, match=r"call model\.eval\(\) first"):
        compiled(model.generate_saliency, "eager")(**inputs_for(family))


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_option_in_inductor(family, options):
    model, inputs = network(family), inputs_for(family)
    saliency = functools.partial(model.generate_saliency, **options)
    agree(compiled(saliency, "inductor")(**inputs), saliency(**inputs), 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_training_step_is_one_graph(family):
    model, inputs = network(family), inputs_for(family)
    labels = torch.tensor([0, 3, 1])
    model(**inputs, labels=labels).loss.backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    compiled(model, "aot_eager")(**inputs, labels=labels).loss.backward()
    for name, weight in model.named_parameters():
        assert torch.allclose(weight.grad, expected[name], rtol=1e-4, atol=1e-5), name
    model.zero_grad()
