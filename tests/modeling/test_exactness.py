"""Are the maps exact, and are they METHOD's? Completeness, the Jacobian, a slow loop, and mutants to be caught."""

import functools

import pytest
import torch
import torch.nn.functional as F

from hf_mhex.modeling import mhex, mhex_maps
from networks import image_batch, lively_bert, lively_resnet, text_batch
from slow_method import caught, slow_saliency

CONTRASTS = [None, "mean", "runner_up", "softmax", 2]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@functools.cache
def network(family, dtype=torch.float64):
    return {"bert": lively_bert, "resnet": lively_resnet}[family](dtype)


def inputs_for(family, dtype=torch.float64, **kwargs):
    return text_batch(**kwargs) if family == "bert" else image_batch(dtype=dtype, **kwargs)


def assert_exact(model, inputs, **options):
    """Every block's map and the combined one sum to what they explain."""
    answer = model.generate_saliency(**inputs, **options)
    dtype = answer.saliency.dtype
    bound = TOLERANCE[dtype] * max(1, answer.logits.abs().max().item())
    leading = answer.explained.ndim
    assert (answer.saliency.flatten(leading).sum(-1) - answer.explained).abs().max() <= bound
    blocks = options.get("blocks") or range(model.num_blocks)
    weights = answer.explained.new_zeros(*answer.target.shape, model.config.num_labels)
    for row in range(answer.logits.shape[0]):
        for place in range(answer.target[row].numel()):
            chosen = int(answer.target[row].view(-1)[place])
            weights[row].view(-1, model.config.num_labels)[place, chosen] += 1
            reference = contrast_weights(options.get("contrast"), answer.logits[row], chosen)
            weights[row].view(-1, model.config.num_labels)[place] -= reference
    for block, found in zip(blocks, answer.block_saliency):
        logits = answer.block_logits[:, block]
        expected = (weights * (logits if leading == 1 else logits[:, None])).sum(-1)
        assert (found.flatten(leading).sum(-1) - expected).abs().max() <= bound
    return answer


def contrast_weights(contrast, logits, chosen):
    others = logits.clone()
    others[chosen] = -torch.inf
    labels = len(logits)
    if contrast is None:
        return torch.zeros_like(logits)
    if contrast == "mean":
        return (torch.arange(labels) != chosen).to(logits) / (labels - 1)
    if contrast == "softmax":
        return others.softmax(-1)
    return F.one_hot(others.argmax() if contrast == "runner_up" else torch.tensor(contrast), labels).to(logits)


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_the_networks_say_something(family):
    model, inputs = network(family), inputs_for(family)
    output = model(**inputs)
    assert output.logits.abs().max() >= 0.5
    assert output.block_logits.abs().amax((0, 2)).min() >= 0.5
    scores = model.base_model(**inputs).gate_scores
    assert all((2 * a.sigmoid() - 1).abs().mean() > 0.1 for a in scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("target", [None, 0, 3, "all"])
@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_completeness(family, target, contrast, dtype):
    model = network(family, dtype)
    answer = assert_exact(model, inputs_for(family, dtype), target=target, contrast=contrast)
    if contrast is None and target is None:
        assert torch.allclose(answer.explained, answer.logits.amax(-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("blocks", [None, [0], [-1], [2, 0], [0, 1, 2]])
@pytest.mark.parametrize("decay", [None, 0, 0.8, 1])
@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_completeness_for_blocks_and_decays(family, decay, blocks):
    model = network(family, torch.float32)
    for contrast in (None, "softmax"):
        inputs = inputs_for(family, torch.float32)
        assert_exact(
            model,
            inputs,
            blocks=blocks,
            decay=decay,
            contrast=contrast,
            target=[1, 0, 3, 2][: 4 - (family == "resnet")],
        )


@pytest.mark.parametrize("size", [(32, 32), (97, 61), (33, 128), (1, 1), (64, 7)])
@pytest.mark.parametrize("batch", [1, 7])
def test_completeness_at_any_image_size(size, batch):
    assert_exact(network("resnet", torch.float32), image_batch(batch, size), target="all")


@pytest.mark.parametrize("batch, length", [(1, 1), (2, 40), (9, 17)])
def test_completeness_at_any_text_length(batch, length):
    assert_exact(network("bert", torch.float32), text_batch(batch, length), target="all", contrast="runner_up")
    without_mask = {"input_ids": text_batch(batch, length)["input_ids"]}
    assert_exact(network("bert", torch.float32), without_mask, target="all")


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_contributions_are_jacobian_times_features(family):
    model, inputs = network(family), inputs_for(family)
    answer = model.generate_saliency(**inputs, target="all")
    features, valid = caught(model, inputs)
    for block, (x, f, _, _) in enumerate(features):
        z = (x + f).requires_grad_()
        scores = model.base_model.gates[block]((z,), valid)[1]
        logits = model.heads[block](scores)
        for label in range(model.config.num_labels):
            (jacobian,) = torch.autograd.grad(logits[:, label].sum(), z, retain_graph=True)
            expected = (jacobian * z).sum(1)
            assert torch.allclose(answer.block_saliency[block][:, label], expected, rtol=0, atol=1e-10)


OPTIONS = [
    {},
    {"target": 2},
    {"target": [3, 0, 1]},
    {"contrast": "mean"},
    {"contrast": "runner_up", "target": 1},
    {"contrast": "softmax"},
    {"contrast": 0, "target": [1, 2, 3]},
    {"contrast": 1, "target": 1},
    {"blocks": [0, -1], "decay": 0.8},
    {"blocks": [1], "decay": 0.3},
    {"decay": 0},
    {"decay": 1},
    {"mode": "cam"},
    {"mode": "cam", "target": 3, "sign": "positive"},
    {"mode": "cam", "sharpness": 0.3},
    {"sign": "positive"},
    {"sign": "positive", "contrast": "softmax", "target": 0},
    {"sharpness": 0.4, "target": 1},
    {"sharpness": (0.5, 0.0)},
    {"sharpness": (0.0, 0.6), "contrast": "mean"},
    {"sharpness": 1.0},
]


@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda options: ",".join(f"{k}={v}" for k, v in options.items()) or "-"
)
@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_every_argument_against_the_slow_loop(family, options):
    model = network(family)
    inputs = inputs_for(family, batch=3, **({} if family == "bert" else {"size": (37, 29)}))
    answer = model.generate_saliency(**inputs, **options)
    logits, block_logits, block_maps, combined = slow_saliency(model, inputs, **options)
    close = functools.partial(torch.allclose, rtol=0, atol=1e-9)
    assert close(answer.logits, logits)
    assert close(answer.block_logits, block_logits)
    assert len(answer.block_saliency) == len(block_maps)
    assert all(close(found, expected) for found, expected in zip(answer.block_saliency, block_maps))
    assert combined.abs().max() > 1e-3 or options.get("contrast") == options.get("target") == 1
    assert close(answer.saliency, combined)
    assert close(answer.explained, combined.flatten(1).sum(-1))
    every = model.generate_saliency(**inputs, **{**options, "target": "all"})
    rows = torch.arange(len(answer.target))
    assert close(every.saliency[rows, answer.target], answer.saliency)
    assert close(every.explained[rows, answer.target], answer.explained)


RECTIFIED = [{}, {"target": [3, 0, 1], "contrast": "mean"}, {"contrast": "softmax", "blocks": [0, -1]}, {"mode": "cam"}]


@pytest.mark.parametrize("options", RECTIFIED, ids=str)
@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_rectified_features_against_the_slow_loop(family, options):
    """Gates, heads and maps read ReLU(x + f): exact as ever, and not what they are without."""
    make = lively_bert if family == "bert" else lively_resnet
    model, plain = make(rectified=True), make()
    plain.load_state_dict(model.state_dict())
    inputs = inputs_for(family, batch=3, **({} if family == "bert" else {"size": (37, 29)}))
    answer = model.generate_saliency(**inputs, **options)
    logits, block_logits, block_maps, combined = slow_saliency(model, inputs, **options)
    for found, expected in zip(answer.block_saliency, block_maps):
        assert torch.allclose(found, expected, rtol=0, atol=1e-9)
    assert torch.allclose(answer.block_logits, block_logits, rtol=0, atol=1e-9)
    assert torch.allclose(answer.saliency, combined, rtol=0, atol=1e-9)
    assert not torch.allclose(plain(**inputs).logits, logits, rtol=0, atol=1e-2)
    if "mode" not in options:
        assert_exact(model, inputs, **options)


@pytest.mark.parametrize("labels", [4, 40])
def test_kept_features_and_maps_of_all_classes_agree(labels):
    """Below C = 4 K features are kept, above it all classes' maps: a late target gives what an early one gives."""
    model, inputs = lively_resnet(num_labels=labels), image_batch(dtype=torch.float64)
    for mode in ("contribution", "cam"):
        late = model.generate_saliency(**inputs, mode=mode)
        early = model.generate_saliency(**inputs, mode=mode, target=late.target)
        assert torch.allclose(late.saliency, early.saliency, rtol=0, atol=1e-10)


def pool_padding_too(summands, valid=None, first_sum=None):
    return sum(summands).flatten(2).mean(-1).relu()


def map_without_indicator(rows, features, mode):
    return mhex_maps.block_map(rows, features._replace(p=torch.ones_like(features.p)), mode)


def map_of_gated_features(rows, features, mode):
    return mhex_maps.block_map(rows * 2 * torch.sigmoid(features.p)[:, None], features, mode)


def plain_bilinear(maps, size):
    scale = maps.shape[-1] * maps.shape[-2] / (size[0] * size[1])
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False) * scale


def no_upsampled_scale(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


MUTANTS = [
    ("bert", mhex, "pooled_descriptor", pool_padding_too),
    ("bert", mhex, "block_map", map_without_indicator),
    ("resnet", mhex, "block_map", map_without_indicator),
    ("bert", mhex, "block_map", map_of_gated_features),
    ("resnet", mhex, "block_map", map_of_gated_features),
    ("resnet", mhex_maps, "upsample_map", plain_bilinear),
    ("resnet", mhex_maps, "upsample_map", no_upsampled_scale),
]


@pytest.mark.parametrize("family, module, name, mutant", MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_mutants_are_caught(monkeypatch, family, module, name, mutant):
    model, inputs = network(family), inputs_for(family)
    assert_exact(model, inputs, target="all")
    monkeypatch.setattr(module, name, mutant)
    with pytest.raises(AssertionError):
        assert_exact(model, inputs, target="all")


@pytest.mark.parametrize(
    "old, new", [((7, 7), (224, 224)), ((28, 28), (61, 61)), ((14, 9), (97, 61)), ((1, 3), (2, 2))]
)
def test_upsampling_keeps_constants_and_sums(old, new):
    constant = torch.full((2, 1, *old), 0.7, dtype=torch.float64)
    result = mhex_maps.upsample_map(constant, new)
    expected = 0.7 * old[0] * old[1] / (new[0] * new[1])
    assert torch.allclose(result, torch.full_like(result, expected), rtol=1e-12)
    ramp = torch.randn(2, 3, *old, dtype=torch.float64)
    assert torch.allclose(mhex_maps.upsample_map(ramp, new).sum((-1, -2)), ramp.sum((-1, -2)), atol=1e-12)


@pytest.mark.parametrize("how", ["minmax", "percentile"])
def test_flat_maps_normalize_to_zeros(how):
    for value in (0.0, 3.7, -1e6):
        flat = torch.full((1, 2, 5, 5), value) * (1 + 1e-8 * torch.rand(1, 2, 5, 5))
        assert torch.equal(mhex_maps.normalize_map(flat, how), torch.zeros_like(flat))


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_normalization(family):
    model, inputs = network(family), inputs_for(family)
    raw = model.generate_saliency(**inputs)
    for how, share in (("minmax", 0.0), ("percentile", 0.01)):
        answer = model.generate_saliency(**inputs, normalize=how)
        assert torch.equal(answer.explained, raw.explained)
        for row, found in enumerate(answer.saliency):
            inside = torch.ones_like(found, dtype=torch.bool)
            if family == "bert":
                inside = inputs["attention_mask"][row].bool()
            values = raw.saliency[row][inside]
            low, high = values.quantile(share), values.quantile(1 - share)
            expected = ((values - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(values)
            assert torch.allclose(found[inside], expected, atol=1e-12)
            assert (found[~inside] == 0).all()
