"""SMX on an MHEX model: Z + 1 passes answer all, the zones that decide come first, and what is refused."""

import numpy as np
import pytest
import torch

from hf_mhex.baselines import smx
from hf_mhex.explaining.zones import Zones, equal_zones

pytest.importorskip("smx", reason="SMX is in the extra signals: make test-extras")
AXIS = np.linspace(100.0, 160.0, 61)
ZONES = equal_zones(AXIS, 6)


class Reader(torch.nn.Module):
    """Two labels, told apart by the points of the third zone alone."""

    device = torch.device("cpu")

    class config:
        num_labels, problem_type = 2, None

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, input_values):
        self.calls.append(len(input_values))
        read = 3 * input_values[:, 0, 21:29].double().mean(-1)
        return type("Output", (), {"logits": torch.stack([read, -read], 1)})


def signals():
    return np.random.default_rng(0).normal(size=(40, 61)) + np.random.default_rng(1).normal(size=(40, 1))


def test_the_zone_that_decides_comes_first_in_a_pass_a_zone():
    model = Reader()
    found = smx(model, signals(), ZONES, n_repetitions=1)
    assert next(iter(found.relevance)) == ZONES.names[2] and found.relevance[ZONES.names[2]] > 0
    assert set(found.relevance) == set(ZONES.names)
    assert model.calls == [40] * 7 and found.passes == 7
    assert found.package.startswith("spectral-model-explainer 0.")
    assert len(found.thresholds[ZONES.names[2]]) == ZONES.members[2].sum()


def test_the_table_answers_as_the_model_does():
    """The package with the model itself in place of the table gives the same relevance, in many more passes."""
    import pandas as pd
    import smx as package

    values, model = signals(), Reader()
    table = pd.DataFrame(values, columns=[repr(float(place)) for place in AXIS])

    class Plain:
        classes_, passes = np.arange(2), 0

        def predict_proba(self, given):
            Plain.passes += 1
            return model(torch.tensor(given.to_numpy()).float()[:, None]).logits.softmax(-1).double().numpy()

        def predict(self, given):
            return self.predict_proba(given).argmax(-1)

    cuts = [(zone.name, AXIS[inside].min(), AXIS[inside].max()) for zone, inside in zip(ZONES, ZONES.members)]
    scores = Plain().predict_proba(table)
    target = int(np.bincount(scores.argmax(-1)).argmax())
    slow = package.SMX(cuts, [0.2, 0.4, 0.6, 0.8], n_repetitions=1, estimator=Plain()).fit(table, scores[:, target])
    expected = slow.lrc_summed_unique_.dropna(subset="Zone").set_index("Zone")["Local_Reaching_Centrality"].to_dict()
    found = smx(Reader(), values, ZONES, n_repetitions=1).relevance
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert Plain.passes > 100


@pytest.mark.parametrize(
    "data, words",
    [
        (signals()[:, :60], r"data must be signals \[N, 61\] of one channel, got \[40, 60\]"),
        (signals()[:4], "at least 5 signals, .* got 4, add rows"),
        (np.where(np.arange(61) == 3, np.nan, signals()), "must be finite, got NaN"),
        (np.abs(signals()) + 1, "two predicted classes, .* all 40 are of class 0. Add rows"),
    ],
)
def test_data_that_cannot_be_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        smx(Reader(), data, ZONES)
    with pytest.raises(ValueError, match="target must be a class below 2, got 2"):
        smx(Reader(), signals(), ZONES, target=2)


def test_zones_beside_each_other_share_no_point():
    zones = Zones([("a", 110, 120), ("b", 120, 130)], AXIS)
    assert smx(Reader(), signals(), zones, n_repetitions=1).passes == 3
