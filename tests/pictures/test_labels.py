"""Names that people give labels and zones are shown as they are written, never read as mathematics."""

import numpy as np
import torch

from hf_mhex.evaluation import single_heads
from hf_mhex.evaluation.filters import FilterReport
from hf_mhex.explaining.zones import Zones
from hf_mhex.pictures.fields import write_fields
from hf_mhex.pictures.filters import write_ablation
from hf_mhex.pictures.signals import Signal, line_picture
from networks import batch_for, lively

HOSTILE = "from $5^$ to $6_{$ \x1b[31m"  # read as mathematics it is an error


def test_signals_with_zones():
    axis = np.arange(20.0)
    zones = Zones([(HOSTILE, 2.0, 9.0)], axis)
    maps = {HOSTILE: np.linspace(-1, 1, 20)}
    picture = line_picture(Signal(np.ones((1, 20)), axis, HOSTILE), maps, HOSTILE, HOSTILE, zones)
    assert picture.size[0] > 300


def test_fields_of_heads(tmp_path):
    model = lively("resnet", torch.float32)
    batch = batch_for("resnet", torch.float32, batch=4) | {"labels": torch.arange(4) % 4}
    found = single_heads(model, [batch], groups=2, remove=False)
    [path] = write_fields(found, dict.fromkeys(range(4), HOSTILE), tmp_path)
    assert path.stat().st_size > 1000


def test_ablation_of_filters(tmp_path):
    report = FilterReport(0, 0, 2, (), {"strongest first": ((0, 0.9, 1.0), (1, 0.5, 0.5))})
    assert write_ablation(report, HOSTILE, tmp_path / "a.png").stat().st_size > 1000
