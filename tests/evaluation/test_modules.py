"""Do the local `evaluate` modules load from their files and agree with the functions?"""

import evaluate
import pytest
import torch

from hf_mhex.evaluation import positive_share
from hf_mhex.evaluation.modules import NAMES, module_path

MAPS = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(0))
CASES = {
    "average_drop": ([0.4, 0.9, 0.0], [0.8, 0.6, 0.0], {}, {"average_drop": 0.5 / 3}),
    "completeness": (MAPS.tolist(), (MAPS.sum((1, 2)) + 1).tolist(), {}, None),
    "grid_pointing": (MAPS.tolist(), [0, 1, 2, 3], {"grid": 2}, None),
    "map_similarity": (MAPS.tolist(), MAPS.tolist(), {"how": "pearson"}, {"similarity": 1.0}),
    "pointing_game": (MAPS.tolist(), torch.ones(4, 6, 6).int().tolist(), {}, {"pointing_game": 1.0}),
}


@pytest.mark.parametrize("name", NAMES)
def test_modules_load_and_compute(name, tmp_path):
    predictions, references, options, expected = CASES[name]
    metric = evaluate.load(str(module_path(name)), cache_dir=str(tmp_path), keep_in_memory=True)
    found = metric.compute(predictions=predictions, references=references, **options)
    if name == "grid_pointing":
        shares = positive_share(MAPS, torch.arange(4), 2)
        expected = {"grid_pointing": float(shares.mean()), "median": float(shares.median())}
        assert found["lower_quartile"] <= found["median"] <= found["upper_quartile"]
        expected = {"grid_pointing": expected["grid_pointing"]}
    if name == "completeness":
        expected = {"mean": float((1 / (MAPS.sum((1, 2)) + 1)).mean())}
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5)


def test_an_unknown_module_is_refused():
    with pytest.raises(ValueError, match="grid_pointing"):
        module_path("gridpg")
