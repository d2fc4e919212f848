"""The comparison with the plain network: what sees the test rows, what is paired, what the words mean."""

import json

import pytest
import torch
from scipy.stats import ttest_rel

from hf_mhex.training.studies import accuracy
from hf_mhex.training.studies.accuracy import STUDIES, Study, chosen_rate, compare, margin_of, run_study
from hf_mhex.training.studies.accuracy_report import overview, write_page
from schemas import write_medmnist

SMALL = "architecture_kwargs={layers: [1, 1, 1, 1], channels: [4, 8, 8, 8]}"
STEPS = ("max_steps=2", "per_device_train_batch_size=16", "use_cpu=true", "image_size=28", "class_weights=none")


@pytest.fixture
def study(monkeypatch):
    """A study of two rates and two seeds that takes seconds."""
    found = Study("medmnist/pneumoniamnist", (SMALL, *STEPS), ("balanced_accuracy",), (1e-3, 1e-2), 2)
    monkeypatch.setitem(STUDIES, "pneumoniamnist", found)
    return found


@pytest.mark.slow
def test_a_study_runs_stops_and_goes_on(study, tmp_path, monkeypatch):
    source = f"source={write_medmnist(tmp_path / 'x.npz', 2, False, 48)}"
    rows = run_study("pneumoniamnist", [source], tmp_path / "out", command="the command", say=lambda line: None)
    assert len(rows) == len(study.arms) * (2 + 2)
    for row in rows:
        assert ("test" in row) == (row["part"] == "test") and row["minutes"] >= 0
        assert row["part"] == "tuning" or row["rate"] == chosen_rate(rows, row["arm"], study)
    parameters = {row["arm"]: row["parameters"] for row in rows}
    assert parameters["MHEX"] == parameters["gates"] > parameters["plain"]

    path = tmp_path / "out" / "pneumoniamnist.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + '\n{"part": "te')  # killed while it wrote the last row
    made = []
    train = accuracy.run_one
    monkeypatch.setattr(accuracy, "run_one", lambda *given: made.append(given[1:4]) or train(*given))
    again = run_study("pneumoniamnist", [source], tmp_path / "out", say=lambda line: None)
    assert len(made) == 1 and made[0][0] == "MHEX"
    assert again[-1]["test"] == json.loads(lines[-1])["test"]  # the same seed, the same network
    page = write_page(tmp_path / "out").read_text()
    assert "the command" in page and "gates alone" in page and "margin" in page
    line = [line for line in overview(tmp_path / "out").splitlines() if line.startswith("| pneumoniamnist |")]
    assert len(line) == 1 and line[0].startswith("| pneumoniamnist | balanced_accuracy | ")


def rows_of(plain, own):
    """Test rows with these results by seed."""
    return [
        {"part": "test", "arm": arm, "seed": seed, "test": {"accuracy": value}}
        for arm, values in (("plain", plain), ("MHEX", own))
        for seed, value in values.items()
    ]


def test_differences_are_paired_by_seed_and_judged_by_a_margin_from_the_plain_network():
    plain = {1: 0.80, 2: 0.84, 3: 0.82, 4: 0.81}
    own = {4: 0.812, 3: 0.823, 2: 0.841, 1: 0.803}
    found = compare(rows_of(plain, own), "MHEX", "accuracy")
    test = ttest_rel([own[seed] for seed in sorted(own)], [plain[seed] for seed in sorted(plain)])
    interval = test.confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["margin"] == pytest.approx(torch.tensor(list(plain.values())).std().item(), rel=1e-4)
    assert found["better"] and found["no_worse"]
    assert margin_of(rows_of({1: 0.8, 2: 0.8}, {}), "accuracy") == 0.005
    worse = compare(rows_of(plain, {seed: value - 0.03 for seed, value in own.items()}), "MHEX", "accuracy")
    assert not worse["better"] and not worse["no_worse"]
    assert compare(rows_of(plain, {1: 0.9}), "MHEX", "accuracy") is None


def test_a_threshold_is_the_best_of_the_chosen_rows_and_is_asked_of_others():
    draws = torch.Generator().manual_seed(0)
    labels = torch.rand(2, 60, generator=draws).round().long()
    logits = torch.randn(2, 60, 2, generator=draws, dtype=torch.float64)
    logits[..., 1] += 2 * labels + 3  # at 0 nearly everything would be label 1
    apart = logits[..., 1] - logits[..., 0]

    def balanced(row, threshold):
        said = apart[row] >= threshold
        return (said[labels[row] == 1].double().mean() + (~said)[labels[row] == 0].double().mean()).item() / 2

    best = max(apart[0].tolist(), key=lambda threshold: balanced(0, threshold))
    own, other = (
        accuracy.at_threshold(logits[0].numpy(), labels[0, :, None].numpy(), *pair)
        for pair in ((logits[row].numpy(), labels[row].numpy()) for row in (0, 1))
    )
    assert own == pytest.approx(balanced(0, best)) and other == pytest.approx(balanced(1, best))
    assert own > balanced(0, 0.0) + 0.1


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="SET must be one of"):
        run_study("imagenet", [], tmp_path)
    with pytest.raises(ValueError, match="arms must be among"):
        run_study("ag_news", [], tmp_path, arms=["plain", "everything"])
