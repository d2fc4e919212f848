"""Measures of tensors on a device without float64, as Apple's GPUs are: a stand-in that refuses it."""

import pytest
import torch

from hf_mhex import evaluation as ev
from hf_mhex.evaluation.stability import prediction_gap, relative_stability, run_stability

MAPS = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
TARGET = torch.tensor([0, 1, 1])


class OnApple(torch.Tensor):
    """A tensor that has no float64, until it is brought to the CPU."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        wide = any(given is torch.float64 for given in (*arguments, *(options or {}).values()))
        if function is torch.Tensor.double or wide:
            raise TypeError("Cannot convert a MPS Tensor to float64: the MPS framework does not know it.")
        found = super().__torch_function__(function, types, arguments, options or {})
        return as_plain(found) if function is torch.Tensor.cpu else found


def as_plain(values):
    with torch._C.DisableTorchFunctionSubclass():
        return values.as_subclass(torch.Tensor)


def there(values):
    return values.as_subclass(OnApple)


def score(images):
    return torch.stack([images.flatten(1).mean(1), -images.flatten(1).mean(1)], 1).softmax(-1)


def method(model, images, target):
    return images[:, 0] * 2


MEASURES = {
    "gini": lambda maps, images: ev.gini(maps),
    "entropy": lambda maps, images: ev.entropy(maps),
    "marked_area": lambda maps, images: ev.marked_area(maps),
    "completeness_error": lambda maps, images: ev.completeness_error(maps, maps.flatten(1).sum(1)),
    "positive_share": lambda maps, images: ev.positive_share(maps, TARGET, 2),
    "pointing_game": lambda maps, images: ev.pointing_game(maps, maps > 0.5),
    "similarity": lambda maps, images: ev.similarity(maps, 1 - maps),
    "average_drop": lambda maps, images: ev.average_drop(score, images, maps, TARGET),
    "soft_average_drop": lambda maps, images: ev.soft_average_drop(score, images, maps, TARGET),
    "effective_average_drop": lambda maps, images: ev.effective_average_drop(score, images, maps, TARGET),
    "image game": lambda maps, images: ev.ImageGame(score, images[0], 1)(torch.ones(2, 64)),
    "stability": lambda maps, images: relative_stability(method, score, None, images, TARGET)["RIS"],
    "runs": lambda maps, images: run_stability(method, None, images, TARGET),
    "gap": lambda maps, images: prediction_gap(score, images, maps, TARGET),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_summed_on_the_cpu(name):
    with pytest.raises(TypeError, match="MPS"):
        there(MAPS).double()
    found, wanted = MEASURES[name](there(MAPS), there(IMAGES)), MEASURES[name](MAPS, IMAGES)
    assert found.dtype == torch.float64 and torch.equal(as_plain(found), wanted)
