"""Models as one graph: `torch.compile(fullgraph=True)` of forward and the maps, in any size and option."""

import functools

import pytest
import torch

from networks import IMAGES, NAMES, ONE_GRAPH, WHOLE_PATCHES, batch_for, family_named, lively

pytestmark = ONE_GRAPH
FULL = ["bert", "resnet"]  # take every option; the other families a few, and those in the slow tests
OPTIONS = [
    ("generate_saliency", {}),
    ("generate_saliency", {"target": 1, "contrast": "mean"}),
    ("generate_saliency", {"target": "all", "contrast": "softmax"}),
    ("generate_saliency", {"target": 2, "contrast": 0}),
    ("generate_saliency", {"blocks": [0, -1], "decay": 0.9, "normalize": "minmax", "contrast": "runner_up"}),
    ("generate_saliency", {"target": torch.tensor([2, 0, 1]), "upsample": False}),
    ("paper_saliency", {"contrast": "runner_up"}),
    ("paper_saliency", {"mode": "contribution", "sign": "positive", "sharpness": 0.3, "normalize": "percentile"}),
]


def slow_but(fast, cases):
    """The cases as parameters, all but those of the families `fast` marked as slow: tracing takes seconds a case."""
    return [pytest.param(*case, marks=() if case[0] in fast else pytest.mark.slow) for case in cases]


@functools.cache
def network(name):
    return lively(name, torch.float32)


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


@pytest.mark.parametrize("name", slow_but(["resnet"], [(name,) for name in NAMES]))
def test_forward_is_one_graph(name):
    model, inputs = network(name), batch_for(name)
    agree(compiled(model, "aot_eager" if name in FULL else "eager")(**inputs), model(**inputs))


SALIENCIES = slow_but(["bert"], [(name, *OPTIONS[0]) for name in NAMES])
SALIENCIES += slow_but([], [(name, *options) for options in (OPTIONS[3], OPTIONS[-1]) for name in FULL])
ROLLED_OUT = [name for name in NAMES if family_named(name).body.can_roll_out]
SALIENCIES += slow_but([], [(name, OPTIONS[0][0], {"rollout": True}) for name in ROLLED_OUT])


@pytest.mark.parametrize("name, method, options", SALIENCIES)
def test_a_saliency_is_one_graph(name, method, options):
    model, inputs = network(name), batch_for(name)
    saliency = functools.partial(getattr(model, method), **options)
    agree(compiled(saliency, "eager")(**inputs), saliency(**inputs))


@pytest.mark.parametrize("name", slow_but([], [(name,) for name in NAMES]))
def test_one_graph_serves_every_size(name):
    model, graphs = network(name), []

    def count(graph, _examples):
        graphs.append(graph)
        return graph.forward

    function = compiled(model.generate_saliency, count, dynamic=True)
    sizes = (
        [{"size": (65, 97)}, {"size": (96, 64)}] if name in IMAGES else [{"length": 13}, {"length": 9}]
    )  # no side of 1 at the last block
    for size in [{}] if name in WHOLE_PATCHES else sizes:  # timm's own windows and positions are of one size
        for batch in (2, 5):
            inputs = batch_for(name, batch=batch, **size)
            agree(function(**inputs), model.generate_saliency(**inputs))
    assert len(graphs) == 1


@pytest.mark.parametrize("name", FULL)
def test_compiling_in_training_mode_is_refused(name):
    with pytest.raises(Exception, match=r"call model\.eval\(\) first"):
        compiled(lively(name, torch.float32).train().generate_saliency, "eager")(**batch_for(name))


@pytest.mark.slow
@pytest.mark.parametrize("method, options", OPTIONS)
@pytest.mark.parametrize("name", FULL)
def test_every_option_in_inductor(name, method, options):
    model, inputs = network(name), batch_for(name, batch=3)
    saliency = functools.partial(getattr(model, method), **options)
    agree(compiled(saliency, "inductor")(**inputs), saliency(**inputs), 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_training_step_is_one_graph(name):
    model, inputs = network(name), batch_for(name, batch=3)
    labels = torch.tensor([0, 3, 1])
    model(**inputs, labels=labels).loss.backward()
    expected = {key: weight.grad.clone() for key, weight in model.named_parameters()}
    model.zero_grad()
    compiled(model, "aot_eager")(**inputs, labels=labels).loss.backward()
    for key, weight in model.named_parameters():
        assert torch.allclose(weight.grad, expected[key], rtol=1e-4, atol=1e-5), key
    model.zero_grad()
