"""The few figures of a card against the measures, row by row, and on maps that do not add up."""

import pytest
import torch

from hf_mhex import evaluation as ev
from hf_mhex.benchmarks.explanations import Images, Texts, summarise_quality
from networks import lively_bert, lively_resnet


@pytest.fixture(scope="module")
def images():
    """A network and rows whose labels are what it answers, so that mosaics can be built."""
    model = lively_resnet(torch.float32, num_labels=5)
    pixels = 2 * torch.randn(40, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model, Images(pixels, model(pixels).logits.argmax(-1))


@pytest.fixture(scope="module")
def texts():
    """A network and texts of 1 to 9 content tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(10, 120, (1 + row % 9,), generator=generator) for row in range(12)]
    ids = tuple(torch.cat([torch.tensor([1]), row, torch.tensor([2])]) for row in ids)
    return lively_bert(torch.float32), Texts(ids, torch.zeros(len(ids)).long(), 9, 0, (0, 1, 2))


def by_name(rows):
    return {row["measure"].split(",")[0]: row for row in rows if "median" not in row["measure"]}


def test_figures_for_images(images):
    model, part = images
    rows = summarise_quality(model, part, rows=9, questions=12)
    found = by_name(rows)
    assert [row["better"] for row in rows] == ["lower", "higher", "higher"]
    exact, grid = found["completeness error"], found["Grid Pointing Game 2x2"]
    assert exact["rows"] == 9 and grid["rows"] == 12
    assert max(exact[kind]["estimate"] for kind in ("map", "contrast")) < 1e-5 < 1 < exact["random"]["estimate"]
    assert grid["random"]["estimate"] == pytest.approx(0.25, abs=0.02)
    assert abs(grid["map"]["estimate"] - 0.25) > 0.02 or abs(grid["contrast"]["estimate"] - 0.25) > 0.02
    for row in rows:
        assert all(row[k]["low"] <= row[k]["estimate"] <= row[k]["high"] for k in ("map", "contrast", "random"))
    assert summarise_quality(model, part, rows=9, questions=12) == rows


def test_figures_for_texts_are_means_over_the_rows(texts):
    model, part = texts
    rows = by_name(summarise_quality(model, part, rows=8))
    expected = {"comprehensiveness by [MASK]": [], "sufficiency by [MASK]": []}

    def scores(input_ids, attention_mask):
        with torch.no_grad():
            return model(input_ids=input_ids, attention_mask=attention_mask).logits.softmax(-1)

    for ids in part.ids[:8]:
        answer = model.generate_saliency(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None])
        game = ev.TextGame(scores, ids, torch.ones_like(ids), int(answer.target), "mask", 9, 0, (0, 1, 2))
        for measure, found in zip((ev.comprehensiveness, ev.sufficiency), expected.values()):
            found.append(measure(game, answer.saliency[0, 1:-1]))
    for name, values in expected.items():
        assert rows[name]["rows"] == 8
        assert rows[name]["map"]["estimate"] == pytest.approx(sum(values) / 8, abs=1e-6)
        assert rows[name]["map"]["estimate"] != rows[name]["random"]["estimate"]
    assert rows["completeness error"]["map"]["estimate"] < 1e-5


@pytest.mark.parametrize("family", ["images", "texts"])
def test_a_map_that_does_not_add_up_shows(family, request, monkeypatch):
    """What a map should add up to is computed from the logits, not taken from the answer that carries the map."""
    model, part = request.getfixturevalue(family)
    sound = type(model).generate_saliency

    def unsound(self, *args, **kwargs):
        answer = sound(self, *args, **kwargs)
        answer["saliency"], answer["explained"] = 1.1 * answer.saliency, 1.1 * answer.explained
        return answer

    monkeypatch.setattr(type(model), "generate_saliency", unsound)
    found = by_name(summarise_quality(model, part, rows=6, questions=4))["completeness error"]
    assert min(found[kind]["estimate"] for kind in ("map", "contrast")) > 0.01
