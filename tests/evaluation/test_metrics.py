"""Metrics of predictions against slow counting, and all measures as local `evaluate` modules."""

import sys

import evaluate
import numpy as np
import pytest
import torch

from hf_mhex.evaluation import metrics, positive_share
from hf_mhex.evaluation.metrics import scores


def rows(seed=0, several=False):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(60, 3)).round(1)  # rounded, so that there are ties
    return logits, generator.integers(0, 2, (60, 3)) if several else generator.integers(0, 3, 60)


def slow_auc(score, truth):
    """Share of pairs in the right order."""
    pairs = [(a > b) + 0.5 * (a == b) for a in score[truth == 1] for b in score[truth == 0]]
    return sum(pairs) / len(pairs)


def test_auc_by_counting_pairs():
    logits, labels = rows()
    assert scores.auc(logits, labels) == pytest.approx(np.mean([slow_auc(logits[:, k], labels == k) for k in range(3)]))
    assert scores.auc(logits[:, :2], labels == 0) == pytest.approx(slow_auc(logits[:, 1], labels == 0))
    logits, labels = rows(several=True)
    expected = np.mean([slow_auc(logits[:, k], labels[:, k]) for k in range(3)])
    assert scores.auc(logits, labels) == pytest.approx(expected)


@pytest.mark.parametrize("truth, words", [([0, 0], "no row of 2"), ([1, 1], "every row of 2")])
def test_auc_without_a_pair_is_refused(truth, words):
    with pytest.raises(ValueError, match=words):
        scores.auc(np.array([[0.9, 0.1], [0.8, 0.2]]), truth)


def test_confusion_gives_accuracy_recall_and_f1():
    logits, labels = rows()
    found = logits.argmax(1)
    table = scores.confusion(found, labels, 3)
    slow = [[sum((labels == t) & (found == p)) for p in range(3)] for t in range(3)]
    assert table.tolist() == slow
    recall, precision = table.diagonal() / table.sum(1), table.diagonal() / table.sum(0)
    assert scores.accuracy(found, labels) == pytest.approx(table.trace() / 60)
    assert scores.recalls(found, labels, 3) == pytest.approx(recall)
    assert scores.balanced_accuracy(found, labels) == pytest.approx(recall.mean())
    assert scores.macro_f1(found, labels) == pytest.approx(np.mean(2 * recall * precision / (recall + precision)))


def test_several_labels_are_means_over_labels():
    logits, labels = rows(several=True)
    found = (logits > 0).astype(int)
    assert scores.balanced_accuracy(found, labels) == pytest.approx(
        np.mean([scores.balanced_accuracy(found[:, k], labels[:, k]) for k in range(3)])
    )
    f1 = []
    for p, t in zip(found.T, labels.T):
        f1.append(2 * sum(p & t) / (sum(p) + sum(t)))
    assert scores.macro_f1(found, labels) == pytest.approx(np.mean(f1))


def test_one_label_of_several_is_measured_where_it_is_present():
    """[N, 1] is no pair of classes: 4 rows have the label, 1 of them is found, and none besides."""
    truth, found = np.array([[1, 1, 1, 1, 0, 0, 0, 0]]).T, np.array([[1, 0, 0, 0, 0, 0, 0, 0]]).T
    assert scores.recalls(found, truth, 1).tolist() == [0.25]
    assert scores.macro_f1(found, truth) == pytest.approx(0.4)
    assert scores.balanced_accuracy(found, truth) == pytest.approx((0.25 + 1) / 2)
    assert scores.auc(found + 0.1, truth) == pytest.approx(slow_auc(found[:, 0], truth[:, 0]))
    two = [np.hstack([found, 1 - found]), np.hstack([truth, 1 - truth])]
    assert scores.recalls(*two, 2).tolist() == [0.25, 1]
    assert np.isnan(scores.recalls(found, 0 * truth, 1)[0]) and scores.macro_f1(0 * found, 0 * truth) == 0


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_one_label_may_come_without_an_axis_of_its_own(shape):
    logits, truth = np.array([3.0, -1, -1, -1, -2, -2, -2, -2])[:, None], np.array([1.0, 1, 1, 1, 0, 0, 0, 0])
    found = metrics.measure(None, logits, truth.reshape(shape), "multi_label_classification")
    assert found == pytest.approx({"accuracy": 5 / 8, "balanced_accuracy": 0.625, "macro_f1": 0.4, "auc": 1.0})


def test_a_label_without_rows_is_left_out_of_the_mean():
    assert np.isnan(scores.recalls([0, 1], [0, 1], 3)[2])
    assert scores.balanced_accuracy([0, 1, 2], [0, 1, 1]) == pytest.approx(0.75)


def test_calibration():
    error, bins = scores.calibration([0.95, 0.95, 0.55, 0.55], [1, 1, 1, 0], bins=10)
    assert error == pytest.approx(0.05)
    assert [part["rows"] for part in bins] == [2, 2]
    assert scores.calibration([1.0, 0.0], [1, 0])[0] == 0


def test_regression_errors():
    found = scores.regression_errors(np.array([1.0, 2.0, 5.0]), np.array([1.0, 2.0, 3.0]))
    assert found == pytest.approx({"mae": 2 / 3, "rmse": (4 / 3) ** 0.5, "r2": -1.0})


@pytest.mark.parametrize("name", sorted(metrics.OF_PREDICTIONS))
@pytest.mark.parametrize("several", [False, True])
def test_they_load_as_local_evaluate_modules(name, several):
    logits, labels = rows(several=several)
    module = evaluate.load(str(metrics.module_path(name)), "multilabel" if several else None, keep_in_memory=True)
    if name in metrics.BY_SCORE:
        found = module.compute(prediction_scores=logits, references=labels)
    else:
        found = module.compute(predictions=(logits > 0).astype(int) if several else logits.argmax(1), references=labels)
    assert all(np.isfinite(value) for value in found.values())


def test_measure_knows_medmnists_definitions():
    """Two classes: the second one's score, cut at 1/2; more: argmax, mean over classes; several: both by label."""
    logits, labels = rows()
    two = metrics.measure(["medmnist"], logits[:, :2], labels % 2, "single_label_classification")
    probabilities = metrics.probabilities_of(logits[:, :2], "single_label_classification")
    assert two["medmnist_acc"] == pytest.approx(np.mean((probabilities[:, 1] > 0.5) == labels % 2), abs=0.05)
    assert two["medmnist_auc"] == pytest.approx(slow_auc(probabilities[:, 1], labels % 2))
    logits, labels = rows(several=True)
    found = metrics.measure(["medmnist"], logits, labels, "multi_label_classification")
    assert found["medmnist_acc"] == pytest.approx(np.mean((logits >= 0) == labels))


def test_a_default_that_the_rows_do_not_define_is_left_out_and_a_named_one_refused():
    logits, labels = rows()
    labels = np.where(labels == 0, 1, labels)
    with pytest.warns(UserWarning, match="auc is left out: AUC needs rows with and without the label; no row"):
        found = metrics.measure(None, logits, labels, "single_label_classification")
    assert set(found) == {"accuracy", "balanced_accuracy", "macro_f1"}
    with pytest.raises(ValueError, match="AUC needs rows"):
        metrics.measure(["auc"], logits, labels, "single_label_classification")


def test_metrics_that_do_not_fit():
    logits, labels = rows()
    with pytest.raises(ValueError, match="metric must be one of accuracy, .* got 'f1'"):
        metrics.measure(["f1"], logits, labels, "single_label_classification")
    with pytest.raises(ValueError, match="'regression' does not fit problem_type='single_label"):
        metrics.measure(["regression"], logits, labels, "single_label_classification")


MAPS = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(0))
OF_MAPS = {  # predictions, references, options, what is found
    "average_drop": ([0.4, 0.9, 0.0], [0.8, 0.6, 0.0], {}, {"average_drop": 0.5 / 3}),
    "completeness": (MAPS, MAPS.sum((1, 2)) + 1, {}, {"mean": float((1 / (MAPS.sum((1, 2)) + 1)).mean())}),
    "grid_pointing": (
        MAPS,
        [0, 1, 2, 3],
        {"grid": 2},
        {"grid_pointing": float(positive_share(MAPS, torch.arange(4), 2).mean())},
    ),
    "map_similarity": (MAPS, MAPS, {"how": "pearson"}, {"similarity": 1.0}),
    "pointing_game": (MAPS, torch.ones(4, 6, 6).int(), {}, {"pointing_game": 1.0}),
}


@pytest.mark.parametrize("name", metrics.OF_MAPS)
def test_measures_of_maps_load_too(name, tmp_path):
    predictions, references, options, expected = OF_MAPS[name]
    module = evaluate.load(str(metrics.module_path(name)), cache_dir=str(tmp_path), keep_in_memory=True)
    given = {"predictions": torch.as_tensor(predictions).tolist(), "references": torch.as_tensor(references).tolist()}
    found = module.compute(**given, **options)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-5)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)  # as import finds it where there is none
    with pytest.raises(RuntimeError, match=r"pip install 'hf-mhex\[train\]'"):
        scores.accuracy([1], [1])
