"""Measures over games: closed forms on additive games, and the known traps."""

import pytest
import torch
import torch.nn.functional as F

from hf_mhex.evaluation import (
    ImageGame,
    RememberedGame,
    TextGame,
    comprehensiveness,
    deletion_auc,
    f_fidelity,
    infidelity,
    insertion_auc,
    remove_and_debias,
    sensitivity_n,
    sufficiency,
)
from hf_mhex.evaluation.faithfulness import SHARES, curve_counts, kept_top
from hf_mhex.evaluation.ordering import removal_order, top_count

WEIGHTS = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64) / 10


def additive(keep):
    """v(S) = sum of the weights in S; the whole is 1."""
    return keep.double() @ WEIGHTS


def test_deletion_and_insertion_of_an_additive_game():
    curve = torch.tensor([1.0, 0.6, 0.3, 0.1, 0, 0, 0, 0, 0, 0, 0])
    best = float((curve[1:] + curve[:-1]).sum() / 20)
    assert deletion_auc(additive, WEIGHTS, steps=10) == pytest.approx(best)  # 0.15: the least that any map can have
    assert insertion_auc(additive, WEIGHTS, steps=10) == pytest.approx(1 - best)
    assert deletion_auc(additive, -WEIGHTS, steps=10) == pytest.approx(1 - best)


def test_a_flat_map_removes_at_random_not_from_the_top_left():
    found = [deletion_auc(additive, torch.ones(10), 10, seed) for seed in range(200)]
    assert sum(found) / 200 == pytest.approx(0.5, abs=0.02)  # a stable order would give 0.15 every time
    assert max(found) - min(found) > 0.2


def test_steps_are_equal_and_no_more_than_features():
    assert curve_counts(10, 5) == [0, 2, 4, 6, 8, 10]
    assert curve_counts(3, 28) == [0, 1, 2, 3]
    assert curve_counts(1, 28) == [0, 1]


def test_order_keeps_ties_random_and_the_rest_sorted():
    values = torch.tensor([1.0, 5.0, 5.0, 5.0, 0.0])
    orders = [removal_order(values, torch.Generator().manual_seed(seed)).tolist() for seed in range(20)]
    assert len({tuple(order[:3]) for order in orders}) > 1
    assert all(sorted(order[:3]) == [1, 2, 3] and order[3:] == [0, 4] for order in orders)


def test_comprehensiveness_and_sufficiency_of_an_additive_game():
    counts = [1, 1, 1, 2, 5]
    taken = torch.tensor([0.4, 0.4, 0.4, 0.7, 1.0])
    assert [top_count(share, 10) for share in SHARES] == counts
    assert comprehensiveness(additive, WEIGHTS) == pytest.approx(float(taken.mean()))
    assert sufficiency(additive, WEIGHTS) == pytest.approx(float((1 - taken).mean()))


def test_one_feature_and_none():
    def one(keep):
        return keep.double()[:, 0]

    assert comprehensiveness(one, torch.tensor([0.3])) == 1.0
    assert sufficiency(one, torch.tensor([0.3])) == 0.0
    assert comprehensiveness(one, torch.tensor([])) == sufficiency(one, torch.tensor([])) == 0.0
    assert deletion_auc(one, torch.tensor([0.3])) == insertion_auc(one, torch.tensor([0.3])) == 0.5


@pytest.mark.parametrize("share", [0.0, 1.5, -0.1])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(ValueError, match="share"):
        comprehensiveness(additive, WEIGHTS, [share])


def test_f_fidelity_takes_marked_features_and_never_more_than_its_share():
    weights = torch.arange(10, 0, -1, dtype=torch.float64) / 55
    asked = []

    def game(keep):
        asked.extend(keep.tolist())
        return keep.double() @ weights

    every = f_fidelity(game, weights, shares=[0.3], alpha=1.0, beta=1.0, samples=2)
    assert every == pytest.approx({"plus": float(weights[:3].sum()), "minus": float(weights[3:].sum())})
    asked.clear()
    few = f_fidelity(game, weights, shares=[0.2, 0.5], alpha=1.0, beta=0.2, samples=3, seed=4)
    gone = [[place for place, stays in enumerate(row) if not stays] for row in asked]
    whole, plus, rest, minus = gone[0], gone[1:7], gone[7], gone[8:]
    assert whole == rest == [] and len(minus) == 6
    for row, removed in enumerate(plus + minus):
        marked = 2 if row % 6 < 3 else 5
        assert len(removed) == 2 and all((place < marked) == (row < 6) for place in removed)
    for name, rows in (("plus", plus), ("minus", minus)):
        assert few[name] == pytest.approx(sum(float(weights[row].sum()) for row in rows) / 6)
    wrong = f_fidelity(game, -weights)
    assert wrong["plus"] < wrong["minus"]
    assert f_fidelity(game, weights[:1]) == {"plus": 0.0, "minus": 0.0}  # nothing beside what is marked


@pytest.mark.parametrize("size", [1, 3, 9])
def test_sensitivity_n_is_one_for_the_terms_of_an_additive_game(size):
    assert sensitivity_n(additive, WEIGHTS, size) == pytest.approx(1.0)
    assert sensitivity_n(additive, 7 * WEIGHTS, size) == pytest.approx(1.0)
    assert sensitivity_n(additive, -WEIGHTS, size) == pytest.approx(-1.0)
    assert sensitivity_n(additive, torch.ones(10), size) == 0.0  # a flat map varies with no subset: no NaN


def test_sensitivity_n_refuses_impossible_sizes():
    assert sensitivity_n(additive, WEIGHTS, 10) == 0.0
    for size in (0, 11):
        with pytest.raises(ValueError, match="size"):
            sensitivity_n(additive, WEIGHTS, size)


def test_infidelity_is_zero_for_the_terms_of_an_additive_game():
    assert infidelity(additive, WEIGHTS, scaled=False) == pytest.approx(0.0, abs=1e-15)
    assert infidelity(additive, 5 * WEIGHTS) == pytest.approx(0.0, abs=1e-15)
    assert infidelity(additive, 5 * WEIGHTS, scaled=False) > 1
    assert infidelity(additive, torch.zeros(10)) == pytest.approx(infidelity(additive, torch.zeros(10), scaled=False))
    assert infidelity(additive, torch.ones(10)) < infidelity(additive, torch.zeros(10))


def test_infidelity_of_one_feature_by_hand():
    def one(keep):
        return keep.double()[:, 0] * 3

    assert infidelity(one, torch.tensor([1.0]), scaled=False) == pytest.approx(4.0)  # (1 - 3)^2, always removed


def pixel_score(images):
    """Class 1 has the mean of the first channel."""
    p = images[:, 0].mean((1, 2))
    return torch.stack([1 - p, p], 1)


def test_an_image_game_removes_pixels_as_its_fill_says():
    image = torch.tensor([[[1.0, 1.0], [1.0, 0.0]], [[5.0, 5.0], [5.0, 5.0]]])
    keep = torch.tensor([[True, True, True, True], [False, True, True, True], [False, False, False, False]])
    assert ImageGame(pixel_score, image, 1)(keep).tolist() == [0.75, 0.5, 0.0]
    assert ImageGame(pixel_score, image, 1, "mean")(keep).tolist() == pytest.approx([0.75, 0.6875, 0.75])
    assert ImageGame(pixel_score, image, 0, chunk=2)(keep).tolist() == [0.25, 0.5, 1.0]
    flat = torch.full((1, 8, 8), 0.5)
    nothing = torch.zeros(1, 64, dtype=torch.bool)
    assert ImageGame(pixel_score, flat, 1, "blur")(nothing).tolist() == pytest.approx([0.5])
    with pytest.raises(ValueError, match="fill"):
        ImageGame(pixel_score, image, 1, "grey")


def test_road_fills_in_what_can_be_told_from_the_rest():
    ramp = torch.linspace(0, 1, 16).expand(1, 16, 16).clone()
    values = torch.rand(256, generator=torch.Generator().manual_seed(0))
    game = ImageGame(pixel_score, ramp, 1, "impute", noise=0.0)
    found = remove_and_debias(game, values, shares=[0.2, 0.5])
    assert found["morf"] == pytest.approx(0.5, abs=0.01) and found["lerf"] == pytest.approx(0.5, abs=0.01)
    assert found["combined"] == pytest.approx((found["lerf"] - found["morf"]) / 2)
    # Removing a bright square from a dark image leaves nothing of it; removing the dark leaves nothing but bright.
    square = torch.zeros(1, 16, 16)
    square[0, 4:8, 4:8] = 1
    found = remove_and_debias(ImageGame(pixel_score, square, 1, "impute"), square.flatten(), shares=[16 / 256])
    assert found["morf"] == pytest.approx(0.0, abs=0.01) and found["lerf"] == pytest.approx(16 / 256, abs=0.01)
    assert found["combined"] > 0


def test_a_remembered_game_asks_once_and_answers_alike():
    asked = []

    def game(keep):
        asked.append(len(keep))
        return additive(keep)

    remembered = RememberedGame(game)
    assert deletion_auc(remembered, WEIGHTS, 10) == pytest.approx(deletion_auc(additive, WEIGHTS, 10))
    assert infidelity(remembered, WEIGHTS) == pytest.approx(infidelity(additive, WEIGHTS))
    before = sum(asked)
    assert infidelity(remembered, torch.ones(10)) == pytest.approx(infidelity(additive, torch.ones(10)))
    assert sum(asked) == before  # the random subsets are the same for every map
    twice = torch.tensor([[True] * 10, [False] * 9 + [True], [True] * 10, [False] * 9 + [True]])
    assert torch.equal(RememberedGame(game)(twice), additive(twice)) and asked[-1] == 2


CLS, SEP, PAD, MASK = 1, 2, 0, 9


def token_score(input_ids, attention_mask):
    """Class 1 has 0.5 for a token 5 and, besides, 0.1 for each token 6; class 0 tells the length."""
    p = 0.5 * (input_ids == 5).any(1) + 0.1 * (input_ids == 6).sum(1)
    return torch.stack([attention_mask.sum(1).float(), p], 1)


def text_game(ids, target=1, how="mask"):
    ids = torch.tensor(ids)
    return TextGame(token_score, ids, (ids != PAD).long(), target, how, MASK, PAD, (CLS, SEP))


def test_a_text_game_masks_or_deletes_content_tokens_only():
    keep = torch.tensor([[True, True, True], [False, True, True], [False, False, False]])
    for how, lengths in (("mask", [5, 5, 5]), ("delete", [5, 4, 2])):
        game = text_game([CLS, 5, 6, 6, SEP, PAD], how=how)
        assert game.features == 3 and game.places.tolist() == [1, 2, 3]
        assert game(keep).tolist() == pytest.approx([0.7, 0.2, 0.0])
        assert text_game([CLS, 5, 6, 6, SEP, PAD], 0, how)(keep).tolist() == lengths
    with pytest.raises(ValueError, match="how"):
        text_game([CLS, 5, SEP], how="blank")
    for how, needed in (("mask", "mask_id"), ("delete", "pad_id")):
        with pytest.raises(ValueError, match=f"needs {needed}"):
            TextGame(token_score, torch.tensor([CLS, 5, SEP]), torch.ones(3), 1, how)


def test_deleted_text_keeps_its_order():
    seen = []

    def remember(ids, mask):
        seen.append((ids, mask))
        return torch.ones(len(ids), 2)

    ids = torch.tensor([CLS, 5, 6, 7, 8, SEP, PAD])
    game = TextGame(remember, ids, (ids != PAD).long(), 0, "delete", MASK, PAD, (CLS, SEP))
    game(torch.tensor([[False, True, False, True], [True, True, True, False]]))
    assert seen[0][0].tolist() == [[CLS, 6, 8, SEP, PAD], [CLS, 5, 6, 7, SEP]]
    assert seen[0][1].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize("how", ["mask", "delete"])
def test_texts_of_one_token_and_of_none(how):
    one, none = text_game([CLS, 5, SEP], how=how), text_game([CLS, SEP], how=how)
    assert comprehensiveness(one, torch.tensor([1.0])) == 0.5 and sufficiency(one, torch.tensor([1.0])) == 0.0
    assert none.features == 0 and comprehensiveness(none, torch.tensor([])) == 0.0


def test_text_measures_name_the_token_that_decides():
    game = text_game([CLS, 6, 5, 6, 6, 6, SEP])
    right, wrong = torch.tensor([0.1, 0.5, 0.1, 0.1, 0.1]), torch.tensor([0.1, 0.0, 0.1, 0.1, 0.1])
    assert comprehensiveness(game, right, [0.2]) == pytest.approx(0.5)
    assert comprehensiveness(game, wrong, [0.2]) == pytest.approx(0.1)
    assert sufficiency(game, right, [0.2]) == pytest.approx(0.4)
    assert sufficiency(game, wrong, [0.2]) == pytest.approx(0.8)


def test_kept_top_is_nested():
    values = torch.rand(30, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    kept = kept_top(values, range(31))
    assert kept.sum(1).tolist() == list(range(31))
    assert all((kept[i] <= kept[i + 1]).all() for i in range(30))


def test_scores_are_of_the_class_that_is_asked_for():
    logits = torch.tensor([[2.0, 0.0, -1.0]])

    def scores(images):
        return (logits * images.mean((1, 2, 3))[:, None]).softmax(-1)

    game = ImageGame(scores, torch.ones(1, 2, 2), 2)
    everything = torch.ones(1, 4, dtype=torch.bool)
    assert game(everything).item() == pytest.approx(float(F.softmax(logits, -1)[0, 2]))
