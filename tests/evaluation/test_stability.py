"""RIS, ROS, RES and PGI derived entry by entry; T-Explainer's search step by step, phi_0 and local accuracy."""

import math

import pytest
import torch

from hf_mhex.baselines.taylor import taylor_explanations, taylor_terms
from hf_mhex.evaluation.stability import prediction_gap, relative_change, relative_stability, run_stability
from networks import image_batch, lively_resnet

PIXELS = image_batch(3, size=(28, 28), dtype=torch.float64)["pixel_values"]


def slow_change(before, after):
    total = 0.0
    for a, b in zip(before.flatten().tolist(), after.flatten().tolist()):
        if a != 0:
            total += ((a - b) / math.copysign(max(abs(a), 1e-6), a)) ** 2
    return math.sqrt(total)


def test_a_relative_change_by_hand():
    before = torch.tensor([[2.0, 0.0, -1e-9], [1.0, 1.0, 1.0]])
    after = torch.tensor([[1.0, 5.0, 1e-6], [1.0, 1.0, 1.0]])
    for row, value in enumerate(relative_change(before, after).tolist()):
        assert value == pytest.approx(slow_change(before[row], after[row]))
    assert relative_change(before, after)[0].item() == pytest.approx(math.sqrt(0.25 + 1.001**2))


def test_stability_is_the_worst_ratio_over_changes_that_keep_the_class():
    def method(model, inputs, target):
        return inputs.square().sum(1)

    def score(inputs):
        return torch.stack([inputs[:, 0].mean((1, 2)), inputs[:, 1].mean((1, 2)) + 9], 1).softmax(1)

    found = relative_stability(method, score, None, PIXELS, torch.zeros(3).long(), changes=3, cells=4, seed=2)
    generator = torch.Generator().manual_seed(2)
    worst = {"RIS": [0.0] * 3, "ROS": [0.0] * 3}
    for _ in range(3):
        changed = PIXELS + 0.05 * torch.randn(PIXELS.shape, generator=generator)
        for row in range(3):
            maps = [method(None, x[row : row + 1], None)[0] for x in (PIXELS, changed)]
            cells = [one.unflatten(0, (4, 7)).unflatten(2, (4, 7)).mean((1, 3)) for one in maps]
            moved = slow_change(*cells)
            worst["RIS"][row] = max(worst["RIS"][row], moved / slow_change(PIXELS[row], changed[row]))
            scores = [score(x)[row] for x in (PIXELS, changed)]
            worst["ROS"][row] = max(worst["ROS"][row], moved / max(1e-6, slow_change(*scores)))
    for name, values in worst.items():
        assert found[name].tolist() == pytest.approx(values, rel=1e-5)

    def flips(inputs):
        return torch.eye(2)[[0, 0, 0]] if inputs is PIXELS else torch.eye(2)[[1, 1, 1]]

    assert (relative_stability(method, flips, None, PIXELS, None)["RIS"] == 0).all()


def test_runs_differ_by_chance_alone():
    assert (run_stability(lambda model, inputs, target: inputs[:, 0], None, PIXELS, None) < 1e-12).all()
    draws = iter(torch.arange(3.0))
    found = run_stability(lambda model, inputs, target: inputs[:, 0] * 0 + next(draws), None, PIXELS, None, cells=2)
    assert found.tolist() == pytest.approx([2.0] * 3)  # 1 from the mean in each of 4 cells


def test_the_gap_takes_the_strongest_cells_away():
    maps = torch.zeros(3, 28, 28)
    maps[:, :4, :4] = -3  # the strongest by size, whatever its sign
    maps[:, 4:8, :4] = 1

    def score(inputs):
        share = (inputs != 0).all(1).double().mean((1, 2))
        return torch.stack([share, 1 - share], 1)

    found = prediction_gap(score, PIXELS, maps, torch.zeros(3).long(), most=(1, 2))
    assert found.tolist() == pytest.approx([1.5 / 49] * 3)


def test_equal_features_are_taken_away_at_random():
    """A flat map has no strongest cell: the first ones are no likelier than others, and a seed repeats its draw."""
    pixels, seen = torch.ones(64, 3, 28, 28, dtype=torch.float64), []

    def score(inputs):
        seen.append(inputs[:, 0, ::4, ::4].flatten(1) == 0)
        return torch.ones(len(inputs), 2).double()

    for seed in (0, 0, 1):
        prediction_gap(score, pixels, torch.ones(64, 28, 28), torch.zeros(64).long(), most=(7,), seed=seed)
    first, again, other = seen[1::2]
    assert first.equal(again) and not first.equal(other) and (first.sum(1) == 7).all()
    assert first[:, :7].double().mean() < 0.3 and first.any(0).all()  # 1/7 by chance, 1 for the first row of cells


TEXTS = {
    "input_ids": torch.tensor([[1, 11, 12, 13, 2], [1, 21, 22, 2, 0], [1, 2, 0, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]),
    "mask_id": 9, "pad_id": 0, "special_ids": (0, 1, 2),
}  # fmt: skip


def of_words(inputs):
    """Probabilities [B, 2] that fall with each content token that is [MASK]."""
    left = ((inputs["input_ids"] > 9) * (inputs["input_ids"] % 10)).sum(1) / 100
    return torch.stack([0.6 + left, 0.4 - left], 1).double()


def test_a_change_of_a_text_is_one_token_of_its_own_as_mask():
    seen, places = [], set()

    def method(model, inputs, target):
        seen.append(inputs["input_ids"])
        return (inputs["input_ids"] + 1).double()

    class Embedding(torch.nn.Module):
        table = torch.nn.Embedding(40, 3)

        def get_input_embeddings(self):
            return self.table

    model, target = Embedding(), torch.zeros(3, dtype=torch.long)
    found = relative_stability(method, of_words, model, TEXTS, target, changes=6, seed=1)
    original, *changed = seen
    worst = {"RIS": [0.0] * 3, "ROS": [0.0] * 3}
    for ids in changed:
        for row in range(3):
            different = (ids[row] != original[row]).nonzero()[:, 0].tolist()
            assert len(different) == (0 if row == 2 else 1)  # the last text has no token of its own
            content = [place for place in range(5) if original[row, place] > 9]
            assert all(place in content and ids[row, place] == 9 for place in different)
            places |= {(row, place) for place in different}
            maps = [torch.tensor([float(one[row, place] + 1) for place in content]) for one in (original, ids)]
            moved = slow_change(*maps)
            words = [model.table(one[row]).detach() for one in (original, ids)]
            scores = [of_words({"input_ids": one[row : row + 1]})[0] for one in (original, ids)]
            for name, pair in (("RIS", words), ("ROS", scores)):
                worst[name][row] = max(worst[name][row], moved / max(1e-6, slow_change(*pair)))
    assert len(places) == 5  # over six draws every token was chosen
    for name, values in worst.items():
        assert found[name].tolist() == pytest.approx(values, rel=1e-5)


def test_the_gap_of_a_text_takes_its_strongest_tokens_and_no_special_one():
    maps = torch.tensor([[50.0, 1, -3, 2, 50], [50, 1, 2, 50, 50], [50, 50, 50, 50, 50]])
    found = prediction_gap(of_words, TEXTS, maps, torch.zeros(3, dtype=torch.long), most=(1, 5))
    assert found.tolist() == pytest.approx([(0.02 + 0.06) / 2, (0.02 + 0.03) / 2, 0.0], abs=1e-6)
    assert (run_stability(lambda model, inputs, target: inputs["input_ids"].double(), None, TEXTS, None) == 0).all()
    nothing = prediction_gap(of_words, TEXTS, torch.zeros(3, 5), torch.zeros(3, dtype=torch.long), most=(3,))
    assert nothing.tolist() == pytest.approx([0.06, 0.03, 0.0], abs=1e-6)  # tokens before the special ones beside them


def slow_search(function, count, left, right, turns):
    """The search of the authors' notebook with a dictionary of nothing: every derivative is computed anew."""
    centre = torch.ones(count, dtype=torch.float64)

    def look(step):
        terms = []
        for k in range(count):
            shift = torch.zeros(count, dtype=torch.float64)
            shift[k] = step
            terms.append(float(function((centre + shift)[None]) - function((centre - shift)[None])) / (2 * step))
        expanded = float(function((centre - step)[None])) + step * sum(terms)
        return terms, (float(function(centre[None])) - expanded) ** 2

    last = [1.0, 1.0]
    for turn in range(turns):
        middle, allowed = (left + right) / 2, left * left / 2
        (terms, outer), (inner, inside) = look(right), look(middle)
        if last[0] <= allowed and abs(last[0] - outer) <= allowed:
            return terms, right
        if all(term == 0 for term in inner):
            left = middle
            if turn == turns - 1:
                return terms, right
        elif (last[1] <= allowed and abs(last[1] - inside) <= allowed) or right - left < 1e-6:
            left = middle
            if right - left < 1e-6 or turn == turns - 1:
                return inner, middle
        else:
            right = middle
        last = [outer, inside]
    return inner, middle


@pytest.mark.parametrize(
    "function",
    [
        lambda points: points @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64),
        lambda points: (points**3).sum(1) + points.prod(1),
        lambda points: 9 * (4 * points).sin().sum(1),
        lambda points: (points * 8).round().sum(1),
    ],
)
def test_the_step_is_the_search_of_the_notebook(function):
    terms, step = taylor_terms(function, 3)
    expected, wanted = slow_search(function, 3, 0.01, 0.5, 12)
    assert step == wanted and terms.tolist() == pytest.approx(expected)
    again, same = taylor_terms(function, 3)
    assert same == step and torch.equal(again, terms)


def test_ends_that_are_no_interval_are_refused():
    with pytest.raises(ValueError, match="least and most"):
        taylor_terms(lambda points: points.sum(1), 3, least=0.5, most=0.1)


def test_phi_0_is_the_mean_answer_and_values_add_up():
    model = lively_resnet()
    target = torch.tensor([0, 2, 1])
    found = taylor_explanations(model, PIXELS, target, PIXELS, cells=2)
    logits = model(pixel_values=PIXELS).logits.detach()
    for row, one in enumerate(found):
        label = int(target[row])
        assert one.phi_0 == pytest.approx(float(logits[:, label].mean()))
        assert one.phi_0 + float(one.values.sum()) == pytest.approx(float(logits[row, label]))
        assert one.rest == pytest.approx(float(logits[row, label]) - one.phi_0 - float(one.terms.sum()))
        assert ((one.terms == 0) <= (one.values == 0)).all()
