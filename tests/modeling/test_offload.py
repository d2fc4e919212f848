"""Maps of models whose weights are offloaded: those of the same model in memory."""

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model

from networks import NAMES, batch_for, lively

OPTIONS = [{}, {"target": "all", "contrast": "softmax"}, {"target": 1}]


def spread(model, way, folder):
    """The model with all its weights offloaded, or its heads on the disk and the rest on the CPU."""
    if way == "cpu":
        return cpu_offload(model, execution_device=torch.device("cpu"))
    if way == "disk":
        return disk_offload(model, str(folder), execution_device=torch.device("cpu"))
    device_map = {model.base_model_prefix: "cpu", "heads": "disk"}
    return dispatch_model(model, device_map, main_device="cpu", offload_dir=str(folder))


WAYS = [("bert", "cpu"), ("resnet", "disk"), *((name, "device_map") for name in NAMES)]  # "device_map" is both
REST = [(name, way) for name in NAMES for way in ("cpu", "disk") if (name, way) not in WAYS]


@pytest.mark.parametrize("name, way", WAYS + [pytest.param(*case, marks=pytest.mark.slow) for case in REST])
def test_maps_of_offloaded_weights(name, way, tmp_path):
    model, inputs = lively(name, torch.float32), batch_for(name)
    options = [*OPTIONS, *([{"rollout": True}] if model.base_model.can_roll_out else [])]
    expected = [model.generate_saliency(**inputs, **given) for given in options]
    matrix = model.equivalent_matrix(0)
    offloaded = spread(copy.deepcopy(model), way, tmp_path)
    assert any(weight.is_meta for weight in offloaded.parameters())
    for given, answer in zip(options, expected):
        found = offloaded.generate_saliency(**inputs, **given)
        assert (found.saliency - answer.saliency).abs().max() <= 1e-6
        assert (found.explained - answer.explained).abs().max() <= 1e-5
    assert (offloaded.equivalent_matrix(0) - matrix).abs().max() <= 1e-6
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        offloaded.train().generate_saliency(**inputs)
