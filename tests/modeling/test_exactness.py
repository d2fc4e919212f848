"""Exactness: completeness, the Jacobian, a slow loop in float64, and mutants that must be caught."""

import functools

import pytest
import torch
import torch.nn.functional as F

from hf_mhex.modeling import mhex, mhex_blocks, mhex_maps
from networks import IMAGES, NAMES, SIGNALS, TEXTS, batch_for, image_batch, lively, lively_resnet
from slow_method import caught, resized, slow_saliency

FULL = ["bert", "resnet"]  # take the whole grid; the other families a smaller one
CONTRASTS = [None, "mean", "runner_up", "softmax", 2]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@functools.cache
def network(name, dtype=torch.float64, **fields):
    return lively(name, dtype, **fields)


def small_batch(name):
    """Three rows; images so small that a slow loop is not slow."""
    if name in TEXTS:
        return batch_for(name, batch=3)
    if name in SIGNALS:
        return batch_for(name, torch.float64, length=29)
    return batch_for(name, torch.float64, size={"resnet": (37, 29), "convnext": (33, 37)}.get(name, (24, 16)))


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


@pytest.mark.parametrize("name", NAMES)
def test_the_networks_say_something(name):
    model, inputs = network(name), batch_for(name, torch.float64)
    output = model(**inputs)
    assert output.logits.abs().max() >= 0.5
    assert output.block_logits.abs().amax((0, 2)).min() >= 0.5
    scores = model.base_model(**inputs).gate_scores
    assert all((2 * a.sigmoid() - 1).abs().mean() > 0.1 for a in scores)


GRID = [(name, target, contrast) for name in FULL for target in (None, 0, 3, "all") for contrast in CONTRASTS]
GRID += [(name, *pair) for name in NAMES if name not in FULL for pair in ((None, None), ("all", "softmax"), (0, 2))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name, target, contrast", GRID)
def test_completeness(name, target, contrast, dtype):
    model = network(name, dtype)
    answer = assert_exact(model, batch_for(name, dtype), target=target, contrast=contrast)
    if contrast is None and target is None:
        assert torch.allclose(answer.explained, answer.logits.amax(-1), rtol=0, atol=1e-6)


BLOCKS = [(name, blocks, decay) for name in FULL for blocks in (None, [0], [-1], [2, 0]) for decay in (None, 0, 0.8, 1)]
BLOCKS += [(name, [2, 0], 0.8) for name in NAMES if name not in FULL]


@pytest.mark.parametrize("name, blocks, decay", BLOCKS)
def test_completeness_for_blocks_and_decays(name, blocks, decay):
    model, inputs = network(name, torch.float32), batch_for(name, batch=3)
    for contrast in (None, "softmax"):
        assert_exact(model, inputs, blocks=blocks, decay=decay, contrast=contrast, target=[1, 0, 3])


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (32, 128), (97, 61), (1, 1), (64, 7)])
@pytest.mark.parametrize("name", IMAGES)
def test_completeness_at_any_image_size(name, size):
    smallest, step = {"convnext": (32, 1), "resnet": (1, 1)}.get(name, (8, 8))  # what timm's own network takes
    size = tuple(max(smallest, side // step * step) for side in size)
    for batch in (1, 7):
        assert_exact(network(name, torch.float32), image_batch(batch, size), target="all")


@pytest.mark.parametrize("batch, length", [(1, 1), (2, 40), (9, 17)])
@pytest.mark.parametrize("name", TEXTS)
def test_completeness_at_any_text_length(name, batch, length):
    model, inputs = network(name, torch.float32), batch_for(name, batch=batch, length=length)
    assert_exact(model, inputs, target="all", contrast="runner_up")
    assert_exact(model, {"input_ids": inputs["input_ids"]}, target="all")


@pytest.mark.parametrize("name", NAMES)
def test_contributions_are_jacobian_times_features(name):
    model, inputs = network(name), batch_for(name, torch.float64)
    answer = model.generate_saliency(**inputs, target="all")
    features, valid = caught(model, inputs)
    for block, (x, f, _, _) in enumerate(features):
        z = (x + f).requires_grad_()
        p = mhex_maps.pooled_descriptor((z.flatten(2),), valid)
        logits = model.heads[block](model.base_model.gates[block](p))
        for label in range(model.config.num_labels):
            (jacobian,) = torch.autograd.grad(logits[:, label].sum(), z, retain_graph=True)
            expected = (jacobian * z).sum(1)
            assert torch.allclose(answer.block_saliency[block][:, label], expected, rtol=0, atol=1e-10)


OPTIONS = [
    {},
    {"target": [3, 0, 1]},
    {"contrast": "softmax"},
    {"target": 2},
    {"contrast": "mean"},
    {"contrast": "runner_up", "target": 1},
    {"contrast": 0, "target": [1, 2, 3]},
    {"contrast": 1, "target": [1, 1, 1]},
    {"blocks": [0, -1], "decay": 0.8},
    {"blocks": [1], "decay": 0.3},
    {"decay": 0},
    {"decay": 1},
]
PAPER = [
    {},
    {"target": 3, "sign": "positive", "sharpness": (0.35, 0.1)},
    {"sharpness": 0.3},
    {"mode": "contribution", "sign": "positive"},
    {"mode": "contribution", "sign": "positive", "contrast": "softmax", "target": 0},
    {"mode": "contribution", "sharpness": 0.4, "target": 1, "decay": 0.5},
    {"mode": "contribution", "sharpness": (0.5, 0.0)},
    {"sharpness": (0.0, 0.6), "contrast": "mean"},
    {"sharpness": 1.0, "blocks": [0, -1]},
]


def grid(options, few):
    """Every option for the families of FULL, the first `few` for the others."""
    return [(name, option) for name in NAMES for option in (options if name in FULL else options[:few])]


def agree(answer, expected):
    """Compare logits, block logits and maps with those of the slow loop."""
    logits, block_logits, block_maps, combined = expected
    close = functools.partial(torch.allclose, rtol=0, atol=1e-9)
    assert close(answer.logits, logits)
    assert close(answer.block_logits, block_logits)
    assert len(answer.block_saliency) == len(block_maps)
    assert all(close(found, expected) for found, expected in zip(answer.block_saliency, block_maps))
    assert close(answer.saliency, combined)


@pytest.mark.parametrize("name, options", grid(OPTIONS, 3), ids=str)
def test_exact_saliency_against_the_slow_loop(name, options):
    model, inputs = network(name), small_batch(name)
    answer = model.generate_saliency(**inputs, **options)
    expected = slow_saliency(model, inputs, **options)
    agree(answer, expected)
    assert expected[3].abs().max() > 1e-3 or options.get("target") == [1, 1, 1]
    assert torch.allclose(answer.explained, expected[3].flatten(1).sum(-1), rtol=0, atol=1e-9)
    every = model.generate_saliency(**inputs, **{**options, "target": "all"})
    rows = torch.arange(len(answer.target))
    assert torch.allclose(every.saliency[rows, answer.target], answer.saliency, rtol=0, atol=1e-9)
    assert torch.allclose(every.explained[rows, answer.target], answer.explained, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name, options", grid(PAPER, 2), ids=str)
def test_paper_saliency_against_the_slow_loop(name, options):
    """CAMs by default, 0.9 a block, resized with values kept, min-max last; they add up to nothing."""
    model, inputs = network(name), small_batch(name)
    answer = model.paper_saliency(**inputs, **options, normalize=None)
    expected = slow_saliency(model, inputs, **{"mode": "cam", "decay": 0.9, **options}, enlarge=resized)
    agree(answer, expected)
    assert answer.explained is None and expected[3].abs().max() > 1e-3
    scaled = model.paper_saliency(**inputs, **options)
    valid = inputs.get("attention_mask", torch.ones_like(expected[3])).bool()
    for found, raw, inside in zip(scaled.saliency, expected[3], valid):
        low, high = raw[inside].min(), raw[inside].max()
        wanted = (raw[inside] - low) / (high - low) if high > low else torch.zeros_like(raw[inside])
        assert torch.allclose(found[inside], wanted, rtol=0, atol=1e-8) and not found[~inside].any()


RECTIFIED = [{}, {"target": [3, 0, 1], "contrast": "mean"}, {"contrast": "softmax", "blocks": [0, -1]}]


@pytest.mark.parametrize("name, options", grid(RECTIFIED, 1), ids=str)
def test_rectified_features_against_the_slow_loop(name, options):
    """Gates, heads and maps read ReLU(x + f): exact as ever, and not what they are without."""
    model, inputs = network(name, rectified=True), small_batch(name)
    expected = slow_saliency(model, inputs, **options)
    agree(model.generate_saliency(**inputs, **options), expected)
    assert_exact(model, inputs, **options)
    plain = lively(name)
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(plain(**inputs).logits, expected[0], rtol=0, atol=1e-2)
    cams = slow_saliency(model, inputs, **options, mode="cam", decay=0.9, enlarge=resized)
    agree(model.paper_saliency(**inputs, **options, normalize=None), cams)


@pytest.mark.parametrize("labels", [4, 40])
def test_kept_features_and_maps_of_all_classes_agree(labels):
    """Below C = 4 K features are kept, above it all classes' maps: a late target gives what an early one gives."""
    model, inputs = lively_resnet(num_labels=labels), image_batch(dtype=torch.float64)
    for explain in (model.generate_saliency, model.paper_saliency):
        late = explain(**inputs)
        early = explain(**inputs, target=late.target)
        assert torch.allclose(late.saliency, early.saliency, rtol=0, atol=1e-10)


def pool_padding_too(summands, valid=None, first_sum=None):
    return sum(summands).mean(-1).relu()


def map_without_indicator(rows, features):
    return mhex_maps.block_map(rows, features._replace(p=torch.ones_like(features.p)))


def map_of_gated_features(rows, features):
    return mhex_maps.block_map(rows * 2 * torch.sigmoid(features.p)[:, None], features)


def plain_bilinear(maps, size):
    scale = maps.shape[-1] * maps.shape[-2] / (size[0] * size[1])
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False) * scale


def no_upsampled_scale(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


MUTANTS = [(name, None, mutant) for name in FULL for mutant in (map_without_indicator, map_of_gated_features)]
MUTANTS += [("bert", (mhex_blocks, "pooled_descriptor"), pool_padding_too)]
MUTANTS += [("resnet", (mhex_maps, "upsample_map"), mutant) for mutant in (plain_bilinear, no_upsampled_scale)]


@pytest.mark.parametrize("name, place, mutant", MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_mutants_are_caught(monkeypatch, name, place, mutant):
    model, inputs = network(name), batch_for(name, torch.float64)
    assert_exact(model, inputs, target="all")
    if place is None:  # the map is a default of the pass that makes it
        explain = mhex.MHEXClassifierMixin._explain
        monkeypatch.setattr(explain, "__defaults__", (mutant, *explain.__defaults__[1:]))
    else:
        monkeypatch.setattr(*place, mutant)
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


@pytest.mark.parametrize("name", FULL)
def test_normalization(name):
    model, inputs = network(name), batch_for(name, torch.float64)
    raw = model.generate_saliency(**inputs)
    for how, share in (("minmax", 0.0), ("percentile", 0.01)):
        answer = model.generate_saliency(**inputs, normalize=how)
        assert torch.equal(answer.explained, raw.explained)
        inside = inputs.get("attention_mask", torch.ones_like(raw.saliency)).bool()
        for row, found in enumerate(answer.saliency):
            values = raw.saliency[row][inside[row]]
            low, high = values.quantile(share), values.quantile(1 - share)
            expected = ((values - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(values)
            assert torch.allclose(found[inside[row]], expected, atol=1e-12)
            assert (found[~inside[row]] == 0).all()


def test_a_mean_of_zero_up_to_rounding_has_one_side():
    """Whatever the order of summation, and so the batch size and the device."""
    half = torch.rand(1, 6, 500, generator=torch.Generator().manual_seed(0))
    z = torch.cat([half, -half], dim=2)
    z[:, 0] += 1
    found = [mhex_maps.pooled_descriptor((z[:, :, torch.randperm(1000)],)) for _ in range(20)]
    assert all((p[:, 1:] == 0).all() and p[0, 0] > 0.9 for p in found)
