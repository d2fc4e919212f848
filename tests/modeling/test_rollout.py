"""Maps carried back through attention: their sums stay, and their shares are those of a slow derivation."""

import functools
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from networks import NAMES, batch_for, family_named, lively, small_config
from slow_method import attention_of

CARRIED = ["bert", "roberta", "distilbert", "modernbert", "vit"]
REFUSED = [name for name in NAMES if name not in CARRIED]


@functools.cache
def network(name, dtype=torch.float64):
    return lively(name, dtype)


def slow_shares(weights, value, output, x):
    """The shares of one layer and one row with loops over tokens and heads, from the vectors that are added up.

    weights [H, T, T], value [T, C], output [C, C], x [T, C].
    """
    tokens, size = len(x), value.shape[1] // len(weights)
    result = x.new_zeros(tokens, tokens)
    for i in range(tokens):
        parts = []
        for j in range(tokens):
            part = x[i].clone() if i == j else torch.zeros_like(x[i])
            for head in range(len(weights)):
                own = slice(head * size, (head + 1) * size)
                part += weights[head, i, j] * (output[:, own] @ value[j, own])
            parts.append(part)
        total = sum(parts)
        for j, part in enumerate(parts):
            result[i, j] = part @ total / (total @ total)
    return result


def sized(name, tokens, batch=2):
    """A batch of so many tokens, of an image so many patches."""
    width = 8 if tokens < 1000 else 32
    size = {"size": (8 * tokens // width, 8 * width)} if name == "vit" else {"length": tokens}
    return batch_for(name, torch.float64, batch=batch, **size)


# Shares are kept where they are no larger than the features: 32 and 24. Rows go in groups of four times a head's width.
SIZES = [(name, 8, {}) for name in CARRIED] + [("bert", 40, {})]
LONG = [(name, 40, {}) for name in CARRIED if name != "bert"]  # the derivation goes by loops: seconds a case
LONG += [(name, tokens, {"num_attention_heads": 8}) for name in ("bert", "modernbert") for tokens in (30, 40)]
SIZES += [pytest.param(*case, marks=pytest.mark.slow) for case in LONG]


@pytest.mark.parametrize("name, tokens, fields", SIZES)
@torch.no_grad()
def test_shares_are_those_of_a_slow_derivation(name, tokens, fields):
    model = lively(name, **fields) if fields else network(name)
    inputs = sized(name, tokens)
    layers = attention_of(model, inputs)
    plain = model.generate_saliency(**inputs, target=1)
    carried = model.generate_saliency(**inputs, target=1, rollout=True)
    for row in range(2):
        rolled = torch.eye(len(layers[0][3][row]), dtype=torch.float64)
        for block, (weights, value, output, x) in enumerate(layers):
            rolled = slow_shares(weights[row], value[row], output, x[row]) @ rolled
            map_, found = (answer.block_saliency[block][row].flatten() for answer in (plain, carried))
            extra = len(rolled) - len(map_)  # tokens without a place: what came from them stays where it arrived
            expected = map_ @ rolled[extra:, extra:] + map_ * rolled[extra:, :extra].sum(1)
            bound = 1e-7 if name == "modernbert" else 1e-10  # its plain attention takes the softmax in float32
            torch.testing.assert_close(found, expected, rtol=0, atol=bound)
            assert (expected - map_).abs().max() > 1e-3


@pytest.mark.parametrize("name", CARRIED)
def test_rows_of_long_inputs_are_those_of_short_ones(name, monkeypatch):
    """Maps whose shares are made a second time are those of shares that were kept, in any choice of blocks."""
    model, inputs = network(name), sized(name, 40, batch=3)
    for options in OPTIONS:
        found = model.generate_saliency(**inputs, **options, rollout=True)
        with monkeypatch.context() as patched:
            patched.setattr(torch.compiler, "is_compiling", lambda: True)  # graphs keep them whatever their size
            kept = model.generate_saliency(**inputs, **options, rollout=True)
        for one, two in zip((found.saliency, *found.block_saliency), (kept.saliency, *kept.block_saliency)):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


OPTIONS = [
    {},
    {"target": "all"},
    {"contrast": "softmax"},
    {"target": [1, 0, 2], "contrast": "mean", "blocks": [0, -1], "decay": 0.8},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", CARRIED)
def test_sums_stay_and_padding_gets_nothing(name, options, dtype):
    model, inputs = network(name, dtype), batch_for(name, dtype, batch=3)
    bound = 1e-5 if dtype == torch.float32 else 1e-10
    plain = model.generate_saliency(**inputs, **options)
    carried = model.generate_saliency(**inputs, **options, rollout=True)
    scale = max(1, plain.logits.abs().max().item())
    leading = plain.explained.ndim
    pairs = zip((plain.saliency, *plain.block_saliency), (carried.saliency, *carried.block_saliency), strict=True)
    for before, after in pairs:
        assert (before.flatten(leading).sum(-1) - after.flatten(leading).sum(-1)).abs().max() <= bound * scale
        if "attention_mask" in inputs:
            empty = inputs["attention_mask"] == 0
            assert not after.masked_select((empty[:, None] if after.ndim == 3 else empty).expand_as(after)).any()
    torch.testing.assert_close(carried.explained, plain.explained, rtol=bound, atol=bound * scale)
    torch.testing.assert_close(carried.logits, plain.logits)


@pytest.mark.parametrize("name", CARRIED)
def test_a_row_has_the_same_map_alone_and_in_a_padded_batch(name):
    model, inputs = network(name), batch_for(name, torch.float64)
    together = model.generate_saliency(**inputs, rollout=True).saliency
    for row, whole in enumerate(together):
        alone = {key: value[row : row + 1] for key, value in inputs.items()}
        if "attention_mask" in inputs:
            kept = inputs["attention_mask"][row].bool()
            alone, whole = {key: value[:, kept] for key, value in alone.items()}, whole[kept]
        found = model.generate_saliency(**alone, rollout=True).saliency[0]
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("way", ["float16", "bfloat16", "autocast"])
@pytest.mark.parametrize("name", CARRIED)
def test_half_precision_and_autocast_keep_the_sums(name, way):
    model, inputs = lively(name, torch.float32), batch_for(name)
    if way == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answer = model.generate_saliency(**inputs, rollout=True)
    else:
        answer = model.to(getattr(torch, way)).generate_saliency(**inputs, rollout=True)
    assert answer.saliency.dtype == torch.float32
    torch.testing.assert_close(answer.saliency.flatten(1).sum(-1), answer.explained, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_row_without_a_token_gets_zeros(name):
    inputs = batch_for(name)
    inputs["attention_mask"][1] = 0
    answer = network(name, torch.float32).generate_saliency(**inputs, rollout=True)
    assert not answer.saliency[1].any() and answer.saliency.isfinite().all() and answer.saliency[0].any()


class Live(TorchDispatchMode):
    """Bytes of the tensors that calls made and that live, now and at their peak."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.sizes = 0, 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.drop, storage._cdata)
        return found

    def drop(self, storage):
        self.now -= self.sizes.pop(storage)


CASES = [(name, {"target": 0}, 4) for name in CARRIED] + [("bert", {}, 4), ("bert", {}, 20), ("vit", {}, 20)]


@pytest.mark.parametrize("name, options, labels", CASES)  # of 20 labels features are kept till the target is known
def test_memory_grows_with_the_tokens_and_not_with_their_square(name, options, labels):
    tokens, fields = 1024, {} if name == "vit" else {"max_position_embeddings": 1030}
    model = family_named(name).classifier(small_config(name, num_labels=labels, **fields)).eval()
    given = sized(name, tokens, batch=1)
    inputs = {"pixel_values": given["pixel_values"].float()} if name == "vit" else {"input_ids": given["input_ids"]}
    peaks = []
    for call in (model, functools.partial(model.generate_saliency, rollout=True, **options)):
        with torch.no_grad(), Live() as live:
            call(**inputs)
        peaks.append(live.peak)
    features = 4 * tokens * model.base_model.gates[0].out_features  # of one layer, in bytes
    assert 4 * tokens**2 >= 32 * features
    assert peaks[1] - peaks[0] <= (24 + (1 + (labels == 20)) * model.num_blocks) * features


class Wrapped(torch.nn.Module):
    """A linear layer inside another module, as adapters wrap it: its weight cannot be read, only applied."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("name", CARRIED)
def test_wrapped_and_quantised_attention_outputs_go_head_by_head(name):
    """Weights that can only be applied as they are give the maps of plain ones."""
    model, inputs = lively(name), batch_for(name, torch.float64)
    expected = model.generate_saliency(**inputs, rollout=True)
    paths = [key for key, module in model.named_modules() if type(module).__name__ == "ReversibleLinear"]
    assert len(paths) == model.num_blocks
    for path in paths:
        model.set_submodule(path, Wrapped(model.get_submodule(path)))
    wrapped = model.generate_saliency(**inputs, rollout=True)
    torch.testing.assert_close(wrapped.saliency, expected.saliency, rtol=0, atol=1e-10)
    for path in paths:
        model.set_submodule(path, Int8Output(model.get_submodule(path).inner))
    answer = model.generate_saliency(**inputs, rollout=True)
    torch.testing.assert_close(answer.saliency.flatten(1).sum(-1), answer.explained, rtol=0, atol=1e-10)
    plain = model.generate_saliency(**inputs)
    torch.testing.assert_close(answer.logits, plain.logits, rtol=0, atol=1e-10)
    assert 0 < (answer.logits - expected.logits).abs().max() < 0.1 * expected.logits.abs().max()


class Int8Output(torch.nn.Linear):
    """A linear layer that keeps its weight in 8-bit integers."""

    def __init__(self, plain):
        torch.nn.Module.__init__(self)
        scale = plain.weight.detach().abs().amax(1, keepdim=True) / 127
        self.weight = torch.nn.Parameter((plain.weight.detach() / scale).round().to(torch.int8), requires_grad=False)
        self.scale, self.bias = scale, plain.bias

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight * self.scale, self.bias)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_wrong_rollout_is_named(value):
    with pytest.raises(TypeError, match=f"rollout must be True or False, got {value!r}"):
        network("bert").generate_saliency(**batch_for("bert"), rollout=value)


@pytest.mark.parametrize("name", REFUSED)
def test_other_families_refuse_by_name(name):
    with pytest.raises(ValueError, match="rollout=True .*MHEX.*Model.*; use False"):
        network(name).generate_saliency(**batch_for(name, torch.float64), rollout=True)


class OnlyApplied(torch.Tensor):
    """A quantised weight: a subclass of Tensor that a linear layer can apply, and that no product is written for."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.matmul or getattr(function, "__name__", "") in ("matmul", "__matmul__", "mm", "t", "mT"):
            raise NotImplementedError(f"{function} is not written for {cls.__name__}")
        found = super().__torch_function__(function, types, args, kwargs or {})
        return found.as_subclass(torch.Tensor) if function is torch.nn.functional.linear else found


@pytest.mark.parametrize("name", CARRIED)
def test_weights_of_any_subclass_of_tensor_are_applied_and_not_read(name):
    model, inputs = lively(name), batch_for(name, torch.float64)
    expected = model.generate_saliency(**inputs, rollout=True)
    for module in model.modules():
        if type(module).__name__ == "ReversibleLinear":
            weight = module.weight.detach().as_subclass(OnlyApplied)
            module.weight = torch.nn.Parameter(weight, requires_grad=False)
            assert type(module.weight) is OnlyApplied
    found = model.generate_saliency(**inputs, rollout=True)
    torch.testing.assert_close(found.saliency, expected.saliency, rtol=0, atol=1e-10)
