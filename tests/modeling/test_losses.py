"""The loss of every problem type, and labels that do not fit."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from transformers import Trainer, TrainingArguments

from networks import NAMES, batch_for, family_named, lively, small_config
from slow_method import caught

CASES = [
    ("bert", 4, "single_label_classification", torch.tensor([0, 3, 1, 2])),
    ("resnet", 4, "single_label_classification", torch.tensor([0, 3, 1])),
    ("bert", 4, "multi_label_classification", torch.eye(4)),
    ("resnet", 4, "multi_label_classification", torch.eye(4)[:3]),
    ("bert", 4, "regression", torch.linspace(-1, 1, 16).view(4, 4)),
    ("bert", 1, "regression", torch.tensor([0.5, -1.0, 2.0, 0.0])),
    ("resnet", 1, "multi_label_classification", torch.tensor([0.0, 1.0, 1.0])),
]


def network(name, labels=4, **fields):
    return lively(name, num_labels=labels, **fields), batch_for(name, torch.float64)


def labels_for(inputs):
    return torch.arange(len(next(iter(inputs.values())))) % 4


def task_loss(logits, labels, kind, smoothing=0.0):
    """The textbook loss of one head."""
    if kind == "single_label_classification":
        total = 0.0
        for row, label in zip(logits, labels):
            goal = torch.full_like(row, smoothing / len(row))
            goal[label] += 1 - smoothing
            total = total - (goal * row.log_softmax(-1)).sum()
        return total / len(labels)
    labels = labels.to(logits.dtype).view_as(logits)
    if kind == "regression":
        return F.mse_loss(logits, labels)
    labels = labels * (1 - smoothing) + 0.5 * smoothing
    return -(labels * logits.sigmoid().log() + (1 - labels) * (-logits).sigmoid().log()).mean()


@pytest.mark.parametrize("name, num_labels, kind, labels", CASES)
@pytest.mark.parametrize("weight", [0.0, 1.0, 0.3])
def test_loss_is_the_task_loss_of_logits_and_every_block(name, num_labels, kind, labels, weight):
    model, inputs = network(name, num_labels, problem_type=kind, deep_supervision_weight=weight)
    output = model(**inputs, labels=labels)
    expected = [task_loss(output.block_logits[:, block], labels, kind) for block in range(model.num_blocks)]
    assert torch.allclose(output.block_losses, torch.stack(expected), rtol=1e-12)
    main = task_loss(output.logits, labels, kind)
    assert torch.allclose(output.loss, main + weight * sum(expected), rtol=1e-12)
    assert output.loss > 0.05


def test_a_count_of_labels_may_come_as_trainer_gives_it_to_each_of_several_gpus():
    model, inputs = network("bert", 4, problem_type="single_label_classification")
    labels = torch.tensor([0, 3, 1, 2])
    alike = [model(**inputs, labels=labels, num_items_in_batch=count) for count in (8, torch.tensor([[8]]))]
    assert alike[1].loss.shape == () and alike[1].block_losses.shape == (model.num_blocks,)
    assert torch.equal(alike[0].loss, alike[1].loss)


@pytest.mark.parametrize("kind, labels", [("single_label_classification", torch.tensor([0, 3, 1, 2])),
                                          ("multi_label_classification", torch.eye(4))])  # fmt: skip
def test_label_smoothing(kind, labels):
    model, inputs = network("bert", 4, problem_type=kind, label_smoothing=0.2)
    output = model(**inputs, labels=labels)
    expected = task_loss(output.logits, labels, kind, 0.2) + output.block_losses.sum()
    assert torch.allclose(output.loss, expected, rtol=1e-12)
    assert torch.allclose(output.block_losses[1], task_loss(output.block_logits[:, 1], labels, kind, 0.2), rtol=1e-12)


def test_logits_are_the_decayed_sum_of_blocks():
    for decay in (0, 0.5, 0.8, 1):
        model, inputs = network("bert", 4, head_decay=decay)
        output = model(**inputs)
        weights = [decay ** (model.num_blocks - 1 - block) for block in range(model.num_blocks)]
        expected = sum(weight * output.block_logits[:, block] for block, weight in enumerate(weights))
        assert torch.allclose(output.logits, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "labels, kind",
    [
        (torch.tensor([0, 1, 2, 3]), "single_label_classification"),
        (torch.tensor([[0], [1], [2], [3]]), "single_label_classification"),
        (torch.eye(4), "multi_label_classification"),
    ],
)
def test_problem_type_is_inferred_and_remembered(labels, kind):
    model, inputs = network("bert")
    model(**inputs, labels=labels)
    assert model.config.problem_type == kind
    other = torch.eye(4) if kind.startswith("single") else torch.arange(4)
    with pytest.raises(TypeError, match=f"labels must be .* for {kind}"):
        model(**inputs, labels=other)
    assert model.config.problem_type == kind


@pytest.mark.parametrize(
    "labels", [torch.eye(4).bool(), torch.tensor([0.0, 1, 2, 3]), torch.eye(4).long(), torch.eye(3)]
)
def test_labels_that_fit_no_problem_type_set_none(labels):
    model, inputs = network("bert")
    with pytest.raises(TypeError, match=r"labels must be integers \[4\] .* or floats \[4, 4\] .* got torch"):
        model(**inputs, labels=labels)
    assert model.config.problem_type is None


def test_one_label_means_regression():
    model, inputs = network("bert", 1)
    model(**inputs, labels=torch.zeros(4))
    assert model.config.problem_type == "regression"


@pytest.mark.parametrize("share", [0.3, 1])
def test_a_share_of_the_loss_may_be_binary(share):
    model, inputs = network("bert", 4, binary_share=share)
    labels = torch.tensor([1, 3, -100, 0])
    output = model(**inputs, labels=labels)
    counted = labels >= 0
    present = F.one_hot(labels[counted], 4).double()

    def expected(logits):
        binary = 4 * task_loss(logits[counted], present, "multi_label_classification")  # its mean is over labels too
        softmax = task_loss(logits[counted], labels[counted], "single_label_classification")
        return (1 - share) * softmax + share * binary

    blocks = [expected(output.block_logits[:, block]) for block in range(model.num_blocks)]
    assert torch.allclose(output.block_losses, torch.stack(blocks), rtol=1e-12)
    assert torch.allclose(output.loss, expected(output.logits) + sum(blocks), rtol=1e-12)


def absent_by_position(part, valid, w_eq):
    """The mean over positions of softplus of what each says for each label, [K], for a part [C, N], slowly."""
    count = int(valid.sum())
    mean = sum(part[:, n] for n in range(len(valid)) if valid[n]) / count
    costs = 0
    for n in range(len(valid)):
        if valid[n]:
            costs = costs + (1 + (w_eq @ ((mean > 0) * part[:, n])).exp()).log() / count
    return costs


INSTANCE = [(name, False) for name in NAMES] + [("bert", True), ("resnet", True)]


@pytest.mark.parametrize("name, rectified", INSTANCE)
@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_an_instance_share_denies_absent_labels_at_every_position(name, rectified, kind):
    share, binary = 0.4, 0.7
    fields = {"binary_share": binary, "instance_share": share, "problem_type": kind, "rectified": rectified}
    model, inputs = network(name, **fields)
    labels = labels_for(inputs)
    present = F.one_hot(labels, 4).double()
    given = present if kind.startswith("multi") else labels
    output = model(**inputs, labels=given)
    features, valid = caught(model, inputs)
    for block, (x, f, w1, w2) in enumerate(features):
        z = ((x + f).relu() if rectified else x + f).flatten(2)
        masks = torch.ones(len(z), z.shape[2], dtype=torch.bool) if valid is None else valid
        expected = torch.stack([absent_by_position(part, mask, w2 @ w1) for part, mask in zip(z, masks)])
        logits = output.block_logits[:, block]
        assert (expected >= F.softplus(logits) - 1e-12).all()
        assert (expected > F.softplus(logits) + 1e-4).any() or z.shape[2] == 1
        blended = (1 - share) * F.softplus(logits) + share * expected
        by_label = present * F.softplus(-logits) + (1 - present) * blended
        if kind.startswith("multi"):
            wanted = by_label.mean()
        else:
            wanted = (1 - binary) * task_loss(logits, labels, kind) + binary * by_label.sum(-1).mean()
        assert torch.allclose(output.block_losses[block], wanted, rtol=1e-9)
    plain = task_loss(output.logits, given, kind)
    if kind.startswith("single"):
        plain = (1 - binary) * plain + binary * 4 * task_loss(output.logits, present, "multi_label_classification")
    assert torch.allclose(output.loss, plain + output.block_losses.sum(), rtol=1e-12)


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_class_weights_scale_rows_by_their_label_or_present_labels(kind):
    weights = torch.tensor([0.5, 1.0, 3.0, 0.0], dtype=torch.float64)
    model, inputs = network("bert", class_weights=weights.tolist(), problem_type=kind)
    labels = torch.tensor([2, 0, -100, 3])
    present = F.one_hot(labels.clamp(min=0), 4).double()
    output = model(**inputs, labels=labels if kind.startswith("single") else present)
    for loss, logits in zip(output.block_losses, output.block_logits.unbind(1)):
        if kind.startswith("single"):
            rows = -logits.log_softmax(-1)[range(4), labels.clamp(min=0)] * weights[labels.clamp(min=0)]
            expected = rows[labels >= 0].sum() / 3
        else:
            expected = (weights * present * F.softplus(-logits) + (1 - present) * F.softplus(logits)).mean()
        assert torch.allclose(loss, expected, rtol=1e-12)


def test_an_instance_share_leaves_predictions_alone():
    for name in ("bert", "resnet"):
        model, inputs = network(name, binary_share=1, instance_share=1)
        usual, _ = network(name, binary_share=1)
        answer = model(**inputs)
        assert torch.equal(answer.logits, usual(**inputs).logits) and answer.loss is None


@pytest.mark.parametrize(
    "kind, fields, cure",
    [
        ("single_label_classification", {}, "set it to 0, or binary_share above 0"),
        ("regression", {"binary_share": 1}, "set it to 0[.]"),
    ],
)
def test_an_instance_share_of_no_binary_loss_is_refused(kind, fields, cure):
    model, inputs = network("bert", 4, problem_type=kind, instance_share=0.2, **fields)
    labels = torch.zeros(4, 4, dtype=torch.float64) if kind == "regression" else torch.arange(4)
    with pytest.raises(
        ValueError, match=f"instance_share=0.2 is a share of a binary .* loss of {kind} has none; {cure}"
    ):
        model(**inputs, labels=labels)


def test_ignored_labels_do_not_count():
    model, inputs = network("bert", 4)
    whole = model(**{name: value[:2] for name, value in inputs.items()}, labels=torch.tensor([1, 3]))
    partly = model(**inputs, labels=torch.tensor([1, 3, -100, -100]))
    assert torch.allclose(whole.loss, partly.loss, rtol=1e-9)
    assert model(**inputs, labels=torch.full((4,), -100)).loss == 0
    assert model(**inputs, labels=torch.full((4,), -100), num_items_in_batch=torch.tensor(0)).loss == 0


@pytest.mark.parametrize("name, num_labels, kind, labels", CASES)
@pytest.mark.parametrize("share", [0, 0.5])
def test_gradient_does_not_depend_on_how_a_batch_is_split(name, num_labels, kind, labels, share):
    """num_items_in_batch as the Trainer gives it: the number of label entries over the accumulated batches."""
    fields = {} if kind == "regression" else {"binary_share": share, "instance_share": share}

    def gradient(parts):
        model, inputs = network(name, num_labels, problem_type=kind, **fields)
        for part in parts:
            rows = {name: value[part] for name, value in inputs.items()}
            model(**rows, labels=labels[part], num_items_in_batch=torch.tensor(labels.numel())).loss.backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])

    whole, split = gradient([slice(0, 4)]), gradient([slice(0, 2), slice(2, 4)])
    assert whole.norm() > 1e-3
    assert torch.allclose(whole, split, rtol=1e-8, atol=1e-10)


WRONG = [
    (4, None, torch.tensor([0, 1, 2, 4]), ValueError, r"labels must lie in \[0, 3\].* got 4"),
    (4, None, torch.tensor([0, 1, 2, -1]), ValueError, r"labels must lie in \[0, 3\].* got -1"),
    (4, "single_label_classification", torch.tensor([0, 1, 2]), ValueError, r"must have shape \[4\].* got \[3\]"),
    (4, "single_label_classification", torch.zeros(4), TypeError, r"integers .* torch.float32; use labels.long"),
    (4, "multi_label_classification", torch.eye(4).long(), TypeError, r"floats .* torch.int64; use labels.float"),
    (4, "multi_label_classification", torch.eye(4) * 2, ValueError, r"labels must lie in \[0, 1\]; got 2.0"),
    (4, "multi_label_classification", torch.eye(4)[:, :3], ValueError, r"shape \[4, 4\] .* got \[4, 3\]"),
    (4, "multi_label_classification", torch.full((4, 4), torch.nan), ValueError, r"lie in \[0, 1\]; got nan"),
    (1, "regression", torch.tensor([1.0, torch.inf, 0, 0]), ValueError, "finite.*got inf"),
]


@pytest.mark.parametrize("num_labels, kind, labels, error, words", WRONG)
def test_labels_that_do_not_fit(num_labels, kind, labels, error, words):
    model, inputs = network("bert", num_labels, problem_type=kind)
    with pytest.raises(error, match=words):
        model(**inputs, labels=labels)


def test_smoothing_a_regression_is_refused():
    model, inputs = network("bert", 1, problem_type="regression", label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing=0.1 has no meaning for regression"):
        model(**inputs, labels=torch.zeros(4))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_gates_and_heads_gets_a_gradient(name):
    model, inputs = network(name)
    model(**inputs, labels=labels_for(inputs)).loss.backward()
    for key, weight in model.named_parameters():
        if "gate" in key or key.startswith("heads."):
            assert weight.grad is not None and weight.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_first_step_moves_the_gates(name):
    """W1 starts at 0 and W2 random, so that W1 gets a gradient from the first step; every weight gets one for DDP."""
    torch.manual_seed(0)
    model, inputs = family_named(name).classifier(small_config(name)), batch_for(name)
    assert all(gate.weight.abs().max() == 0 for gate in model.base_model.gates)
    model(**inputs, labels=labels_for(inputs)).loss.backward()
    assert all(gate.weight.grad.abs().max() > 0 for gate in model.base_model.gates)
    assert not [key for key, weight in model.named_parameters() if weight.grad is None]


def test_an_infinite_feature_that_no_head_reads_leaves_the_loss_finite():
    model, inputs = network("modernbert")
    torch.nn.init.constant_(model.base_model.final_norm.weight, torch.inf)
    assert model(**inputs, labels=labels_for(inputs)).loss.isfinite()


def test_a_loss_from_outside_the_model_is_warned_of(tmp_path):
    """As Trainer's label smoothing makes it: the model is called without its labels."""
    rows = [{**{name: value[row] for name, value in batch_for("bert").items()}, "labels": row} for row in range(4)]
    options = {"max_steps": 1, "use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    model = lively("bert", torch.float32)
    arguments = TrainingArguments(str(tmp_path), label_smoothing_factor=0.1, **options)
    with pytest.warns(
        UserWarning, match=r"label_smoothing_factor.*does not teach every head.*label_smoothing or class_w"
    ):
        Trainer(model, arguments, train_dataset=rows).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.train()(**batch_for("bert"), labels=torch.arange(4))
        model.eval()(**batch_for("bert"))
