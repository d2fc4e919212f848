"""The cost of an explanation by construction: what is never made, how often maps are upsampled, what is refused."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import timm
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hf_mhex.modeling import mhex_maps
from hf_mhex.modeling.mhex import MHEXClassifierMixin
from networks import NAMES, RESNET, SIGNALS, batch_for, image_batch, lively, lively_resnet


class LargestTensor(TorchDispatchMode):
    """Remembers the number of values of the largest tensor that an operation made."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (list, tuple)) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.values = max(self.values, tensor.numel())
        return made


class NewFeatures(TorchDispatchMode):
    """Counts operations that took new memory for something of the shape of an image's features, flat or not."""

    def __init__(self, channels):
        super().__init__()
        self.channels, self.count = channels, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        first = made[0] if isinstance(made, tuple) else made
        if isinstance(first, torch.Tensor) and first.ndim in (3, 4) and first.shape[1] in self.channels:
            given = {value.data_ptr() for value in args if isinstance(value, torch.Tensor)}
            self.count += first.data_ptr() not in given
        return made


def test_no_features_are_made_that_the_plain_network_does_not_make():
    plain = timm.create_model("resnet18", num_classes=0, **RESNET["architecture_kwargs"]).eval()
    model, inputs = lively_resnet(torch.float32), image_batch()
    calls = {
        "plain": lambda: plain.forward_features(inputs["pixel_values"]),
        "prediction": lambda: model(**inputs),
        "known target": lambda: model.generate_saliency(**inputs, target=2),
        "predicted class": lambda: model.generate_saliency(**inputs, blocks=[0, 2, 3, 4], contrast="softmax"),
    }
    counts = {}
    for name, call in calls.items():
        with torch.no_grad(), NewFeatures({8, 12, 16, 24}) as made:
            call()
        counts[name] = made.count
    assert counts["plain"] >= 15
    assert counts["prediction"] == counts["known target"] == counts["plain"]
    assert counts["predicted class"] == counts["plain"] + 2  # kept: blocks of 8 and 12 channels, fewer than 4 K = 16


@pytest.mark.parametrize(
    "method, options",
    [
        ("generate_saliency", {}),
        ("generate_saliency", {"target": "all"}),
        ("generate_saliency", {"contrast": "softmax"}),
        ("paper_saliency", {"mode": "contribution", "sharpness": 0.2}),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_has_classes_channels_and_positions(name, method, options):
    short = {"batch": 8, "length": 29} if name in SIGNALS else {}  # upsampling takes a matrix [length, cells]
    model, inputs = lively(name, torch.float32), batch_for(name, **short)
    with torch.no_grad(), LargestTensor() as plain:
        model(**inputs)
    with LargestTensor() as explained:
        answer = getattr(model, method)(**inputs, **options)
    given = (value.numel() for value in inputs.values())  # their values are checked
    assert explained.values <= max(plain.values, answer.saliency.numel(), *given)


@pytest.mark.usefixtures("only_new_objects_collected")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options, kept", [({"target": 2}, False), ({"target": "all", "contrast": "mean"}, False), ({}, True)]
)
def test_features_are_let_go_as_they_pass_where_the_target_is_known(name, options, kept, monkeypatch):
    model, alive, references = lively(name, torch.float32, num_labels=9), [], []  # more than a quarter of the channels
    block_map, *others = MHEXClassifierMixin._explain.__defaults__
    monkeypatch.setattr(MHEXClassifierMixin._explain, "__defaults__", (seen_by(references, alive, block_map), *others))
    model.generate_saliency(**batch_for(name), **options)
    assert len(references) == model.num_blocks and (max(alive) > 2) == kept


def seen_by(references, alive, block_map):
    """block_map that counts how many blocks' features are alive whenever it is called."""

    def counted(rows, features):
        z = features.summands[-1]
        if not any(reference() is z for reference in references):
            references.append(weakref.ref(z))
        gc.collect()
        alive.append(sum(reference() is not None for reference in references))
        return block_map(rows, features)

    return counted


def test_no_float64_is_asked_of_apples_gpus(monkeypatch):
    """They have none. A stand-in for a tensor there: what is made on its device by float64 is an error."""
    arange, to = torch.arange, torch.Tensor.to
    there = SimpleNamespace(device=torch.device("mps"), dtype=torch.float32)

    def made(*sizes, dtype=None, device=None):
        assert dtype != torch.float64 or torch.device(device).type != "mps"
        return arange(*sizes, dtype=dtype)

    def moved(tensor, place):
        assert place != there.device or tensor.dtype != torch.float64
        return tensor if place == there.device else to(tensor, place)

    here = mhex_maps.upsampling_matrix(3, 8, torch.empty(0))
    monkeypatch.setattr(torch, "arange", made)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    assert torch.equal(mhex_maps.upsampling_matrix(3, 8, there), here)


def test_one_upsampling_a_resolution(monkeypatch):
    sizes, upsample_map = [], mhex_maps.upsample_map

    def counted(maps, size):
        sizes.append(tuple(maps.shape[-2:]))
        return upsample_map(maps, size)

    monkeypatch.setattr(mhex_maps, "upsample_map", counted)
    model = lively_resnet(torch.float32)
    answer = model.generate_saliency(**image_batch())
    assert len(answer.block_saliency) == 5 and len(sizes) == len(set(sizes)) == 4


def test_all_classes_of_large_images_are_refused_with_the_figure():
    model = lively_resnet(torch.float32, num_labels=600)
    inputs = image_batch(batch=8, size=(256, 224))
    with pytest.raises(ValueError, match=r"target='all' would make 8 x 600 maps of 256 x 224, 1\.0 GiB, .*upsample"):
        model.generate_saliency(**inputs, target="all")
    answer = model.generate_saliency(**inputs, target="all", upsample=False)
    assert answer.saliency is None and answer.block_saliency[-1].shape == (8, 600, 8, 7)


class CopiedLists(TorchFunctionMode):
    """Counts tensors made of Python numbers: on another device each is a copy that the device is waited for."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += getattr(function, "__name__", "") in ("tensor", "as_tensor", "new_tensor", "item", "tolist")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["resnet", "convnext", "vit", "swin"])
def test_a_prediction_copies_no_list_to_the_device(name):
    model, inputs = lively(name, torch.float32), batch_for(name)
    with torch.no_grad(), CopiedLists() as seen:
        inputs["pixel_values"].new_tensor([1.0, 0.5])
        torch.tensor([1.0, 0.5])
    assert seen.count == 2
    with torch.no_grad(), CopiedLists() as seen:
        model(**inputs)
    assert seen.count == 0
