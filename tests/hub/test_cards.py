"""Every number of a card comes from the results, cards parse, and the rendered ones are what is rendered."""

import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace

import jinja2
import pytest
import torch
from huggingface_hub import ModelCard
from scipy.stats import t

import hf_mhex
from hf_mhex.evaluation import part_removal
from hf_mhex.evaluation.intervals import share_interval
from hf_mhex.hub.card import (
    MAJORITY,
    SHIPPED,
    about_of,
    card_facts,
    card_of_folder,
    predicted,
    record_of_folder,
    render_card,
    write_card,
)  # fmt: skip
from hf_mhex.training.run import from_hub
from hf_mhex.training.studies.reference import REFERENCES
from hub_models import save_image_model, save_text_model
from networks import lively

CARDS = sorted(path.parent for path in SHIPPED.glob("*/README.md"))
DEMO = json.loads((SHIPPED.parent / "results" / "demo.json").read_text())
RECORD = {
    "test_rows": 600,
    "accuracy": 0.8483333333333334,
    "majority_class": 0.1,
    "completeness_error": 3.0864817466388224e-07,
    "map_share_of_time": 0.16185539380612124,
    "seed": 7,
}


def read(folder):
    """What a card is rendered from, as keyword arguments, and the rendered card."""
    given = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("facts", "about", "results")}
    facts = given["facts"]
    where = {name: facts.pop(name) for name in ("repo_id", "revision")}
    picture = "saliency.png" if (folder / "saliency.png").exists() else None
    shared = {"facts": facts, "about": given["about"], "record": given["results"], "picture": picture}
    return shared | where, (folder / "README.md").read_text()


def test_every_model_of_the_demo_has_a_card_and_no_card_is_of_an_unknown_model():
    names, demo = {folder.name for folder in CARDS}, {row["model"] for row in DEMO["models"]}
    assert demo <= names <= demo | set(REFERENCES)


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_rendered_cards_are_what_the_template_renders(folder):
    given, card = read(folder)
    assert render_card(**given) == card and "\n\n\n" not in card


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_any_number_that_differs_from_the_results_shows(folder, monkeypatch):
    """Each number of the results file is changed in its turn: none may leave the card as it is."""
    monkeypatch.setattr(jinja2, "Template", cache(jinja2.Template))  # read once, not for each of the 200 cards
    given, card = read(folder)
    changed = list(with_one_number_changed(given["record"]))
    assert len(changed) > 30
    for place, record in changed:
        assert render_card(**given | {"record": record}) != card, place


def with_one_number_changed(values, place=()):
    """(place, a copy of `values` in which the number there is another one), for each number in dicts and lists."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        if isinstance(value, (dict, list)):
            changed = with_one_number_changed(value, (*place, key))
        elif isinstance(value, (int, float)):
            changed = [((*place, key), value + 1 if isinstance(value, int) else 1.2 * value + 0.002)]
        else:
            continue
        for where, other in changed:
            copy = dict(values) if isinstance(values, dict) else list(values)
            copy[key] = other
            yield where, copy


@pytest.mark.parametrize("row", DEMO["models"], ids=lambda row: row["model"])
def test_cards_and_readme_tell_of_one_run(row):
    """The results behind a card are those of the demo that the README shows."""
    shared = {name: DEMO[name] for name in ("seed", "command", "commit", "environment")}
    assert json.loads((SHIPPED / row["model"] / "results.json").read_text()) == {**shared, **row}


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_metadata_parse_and_carry_a_result(folder):
    given, text = read(folder)
    data = ModelCard(text).data
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    record = given["record"]
    expected = {name: value for name, value in predicted(record).items() if name != MAJORITY}
    expected |= {name: record[name] for name in ("completeness_error",) if name in record}
    for name, value in expected.items():
        assert found.pop(name) == value
    assert list(found.values()) == [row["map"]["estimate"] for row in record["explanation"]]
    assert data.library_name == "transformers" and data.license == given["about"]["license"]
    assert data.pipeline_tag == given["facts"]["task"] and data.model_name == folder.name
    assert {"mhex", given["facts"]["saliency_task"]} <= set(data.tags)
    assert (data.base_model is not None) == ("bert" in folder.name)  # the others are trained from scratch
    assert data.datasets == given["about"].get("datasets")
    widget = getattr(data, "widget", None)
    assert widget == given["about"].get("widget") and bool(widget) == ("bert" in folder.name)
    assert data.to_dict()["model-index"][0]["results"][0]["dataset"]["split"] == "test"


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_cards_pin_the_revision_and_say_what_matters(folder):
    given, text = read(folder)
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    compile(snippet, "card", "exec")
    assert f'revision="{given["revision"]}"' in snippet and "trust_remote_code=True" in snippet
    for words in ("never a\ndiagnosis", "attention gate", "completeness means", "@article{sun2025multihead", "limits",
                  "random map", "train rows", "at source commit `", "| gates (W1) |"):  # fmt: skip
        assert words in text
    assert (folder / "saliency.png").stat().st_size > 2000
    assert not re.search(r"/(tmp|root|home|work)/", text)


def test_a_card_that_is_written_again_keeps_its_picture(tmp_path):
    save_text_model(tmp_path)
    write_card(tmp_path, "user/film", "v1", ["a great phone"])
    write_card(tmp_path, "user/film", "v2")
    assert "saliency.png" in (tmp_path / "README.md").read_text()


def test_a_folder_s_card_reads_the_folder(tmp_path):
    folder = tmp_path / "clothes"
    save_image_model(folder, tmp_path / "pictures")
    (tmp_path / "results.json").write_text(json.dumps({"seed": 7, "models": [{"model": "clothes", **RECORD}]}))
    text = card_of_folder(folder, "me/clothes", "v1")
    facts = card_facts(folder)
    assert facts["blocks"] == 5 and facts["labels"] == ["a", "b", "c"]
    assert facts["gate_parameters"] == 8**2 + 2 * 12**2 + 16**2 + 24**2
    assert facts["head_parameters"] == 3 * (8 + 2 * 12 + 16 + 24)
    assert "0.8483" in text and "3.1e-07" in text and "16.2 %" in text and "Seed 7" in text
    assert ModelCard(text).data.license is None  # nobody chose one
    (folder / "card.json").write_text(json.dumps({"license": "mit", "training": "Overnight.", "title": "Clothes"}))
    assert about_of(folder)["title"] == "Clothes"
    text = card_of_folder(folder, "me/clothes", "v1")
    assert ModelCard(text).data.license == "mit" and "# Clothes" in text and "Overnight." in text


def test_a_text_model_s_card_has_the_name_of_its_source(tmp_path):
    lively("bert", torch.float32).save_pretrained(tmp_path)
    assert card_facts(tmp_path)["architecture"] == "BERT of width 32"
    labels = {family.name: family.label for family in hf_mhex.FAMILIES.values()}
    assert labels["roberta"] == "RoBERTa" and labels["deberta_v2"] == "DeBERTa-v2" and labels["swin"] == "Swin"


def test_a_model_of_a_recipe_takes_the_run_s_results(tmp_path):
    """`mhex train` leaves result.json beside the folder "model"."""
    save_image_model(tmp_path / "model", tmp_path / "pictures")
    row = {
        "recipe": "clothes",
        "seed": 3,
        "rows": {"train": 90, "validation": 5, "test": 7},
        "versions": {"torch": "9"},
    }
    row["test"] = {"loss": 2.5, "accuracy": 0.71875, "macro_f1": 0.625, "loss_block_0": 1.5, "accuracy_block_0": 0.5}
    (tmp_path / "result.json").write_text(json.dumps(row))
    text = card_of_folder(tmp_path / "model", "me/model", "v1")
    results = ModelCard(text).data.eval_results
    assert {r.metric_type: r.metric_value for r in results} == {"accuracy": 0.71875, "macro_f1": 0.625}
    assert [r.metric_name for r in results] == ["Accuracy", "Macro f1"]
    for words in ("On the 7 rows", "| accuracy | 0.7188 |", "| macro f1 | 0.6250 |", "| recipe | clothes |",
                  "| train rows | 90 |", "Seed 3. Made by `mhex train clothes`. torch 9."):  # fmt: skip
        assert words in text, words
    assert "block" not in text[text.index("## Results") : text.index("## What completeness")]


@pytest.mark.parametrize(
    ("weights", "source", "base", "datasets"),
    [
        ("minilm", "fancyzhx/ag_news", "sentence-transformers/all-MiniLM-L6-v2", ["fancyzhx/ag_news"]),
        ("google-bert/bert-base-uncased", "sample:coffee", "google-bert/bert-base-uncased", None),
        ("plain/model.safetensors", "data/news.csv", None, None),
        (None, "../data/news", None, None),
        ("here/plain", "here/news", None, None),
    ],
)
def test_a_card_takes_model_and_data_from_the_run(tmp_path, monkeypatch, weights, source, base, datasets):
    """As far as they came from the Hub and not from a folder; the author's words come before them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("here/plain", "here/news"):
        Path(folder).mkdir(parents=True)
    save_image_model(tmp_path / "model", tmp_path / "pictures")
    model, data = SimpleNamespace(weights=weights), SimpleNamespace(source=source)
    row = {"from_hub": from_hub(SimpleNamespace(model=model, data=data))}
    (tmp_path / "result.json").write_text(json.dumps(row))
    found = ModelCard(card_of_folder(tmp_path / "model", "me/model", "v1")).data
    assert (found.base_model, found.datasets) == (base, datasets)
    assert about_of(tmp_path / "model").get("dataset_type") == (datasets or [None])[0]
    (tmp_path / "model" / "card.json").write_text(json.dumps({"datasets": ["me/own"], "widget": [{"src": "a.png"}]}))
    found = ModelCard(card_of_folder(tmp_path / "model", "me/model", "v1")).data
    assert found.datasets == ["me/own"] and found.widget == [{"src": "a.png"}] and found.base_model == base


def test_the_plain_twin_stands_beside_the_model(tmp_path):
    """By the same recipe, rows and seed, in the folder that `mhex train` gives it."""
    save_image_model(tmp_path / "clothes" / "model", tmp_path / "pictures")
    row = {"recipe": "clothes", "seed": 3, "rows": {"train": 90, "test": 400}, "versions": {}, "kind": "mhex"}
    row["test"] = {"accuracy": 0.75, "macro_f1": 0.7, "loss": 1.0, "accuracy_block_0": 0.5}
    twin = row | {"kind": "plain", "test": {"accuracy": 0.5, "macro_f1": 0.4, "loss": 1.0}}
    (tmp_path / "clothes" / "result.json").write_text(json.dumps(row))
    (tmp_path / "clothes-plain").mkdir()
    for other, shown in ((twin, True), (twin | {"seed": 4}, False), (twin | {"kind": "mhex"}, False)):
        (tmp_path / "clothes-plain" / "result.json").write_text(json.dumps(other))
        card = card_of_folder(tmp_path / "clothes" / "model", "me/model", "v1")
        assert ("Beside the same network without gates and heads" in card) == shown and "\n\n\n" not in card
        if shown:
            own, plain = (share_interval(share, 400) for share in (0.75, 0.5))
            line = f"| accuracy | 0.7500 [{own.low:.4f}, {own.high:.4f}] | 0.5000 [{plain.low:.4f}, {plain.high:.4f}] |"
            assert line in card and "| macro f1 | 0.7000 | 0.4000 |" in card and "accuracy block" not in card


def test_known_twins_are_those_of_the_study_of_accuracy():
    """Derived again from its rows, in the cards of the reference models."""
    for name, reference in REFERENCES.items():
        study, arm = reference.study
        lines = (SHIPPED.parent / "results" / "accuracy" / f"{study}.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if row["part"] == "test"]
        twin = json.loads((SHIPPED / name / "results.json").read_text())["plain_twin"]
        for found in twin["measures"]:
            values = [
                {row["seed"]: row["test"][found["measure"]] for row in rows if row["arm"] == kind}
                for kind in (arm, "plain")
            ]
            seeds = sorted(set(values[0]) & set(values[1]))
            apart = [values[0][seed] - values[1][seed] for seed in seeds]
            half = t.ppf(0.975, len(apart) - 1) * stdev(apart) / len(apart) ** 0.5
            wanted = {"estimate": fmean(apart), "low": fmean(apart) - half, "high": fmean(apart) + half}
            assert found["difference"] == pytest.approx(wanted) and twin["seeds"] == len(seeds)
            assert found["plain"]["estimate"] == pytest.approx(fmean(values[1][seed] for seed in seeds))


def test_a_card_says_how_far_its_maps_foretell(tmp_path):
    """What is measured of parts that are taken away stands beside a map that is even, with its intervals."""
    model = lively("resnet")
    model.save_pretrained(tmp_path)
    batch = {"pixel_values": torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
    told = part_removal(model, [batch], rows=4).as_dict()
    card = render_card(card_facts(tmp_path), {}, RECORD | {"part_removal": told}, "me/model", "v1")
    for name in (
        "change",
        "correlation",
        "error",
        "refined_correlation",
        "refined_error",
        "even_correlation",
        "even_error",
    ):
        found = told[name]
        assert f"{found['estimate']:.2f} [{found['low']:.2f}, {found['high']:.2f}]" in card
    assert f"For each logit that the map foretells, {told['slope']:.2f} really go." in card
    untold = told | {"refined_correlation": None, "refined_error": None}  # texts without a mask token
    card = render_card(card_facts(tmp_path), {}, RECORD | {"part_removal": untold}, "me/model", "v1")
    assert "refined" not in card.split("### Without a part")[1].split("###")[0]
    assert "### Without a part" not in render_card(card_facts(tmp_path), {}, RECORD, "me/model", "v1")


def test_labels_come_out_as_they_are():
    """No markup and no HTML of theirs is obeyed, and none breaks a table."""
    facts = read(CARDS[0])[0]["facts"] | {"labels": ["<script>alert(1)</script>", "a|b\n# c", "\x1b[31m*d*"]}
    record = {"test_rows": 4, "prediction": {"recall_a|b <i>": 0.5}}
    card = render_card(facts, {}, record, "user/model", "main")
    assert "Labels: \\<script\\>alert(1)\\</script\\>, a\\|b \\# c, \u241b\\[31m\\*d\\*." in card
    assert "| recall a\\|b \\<i\\> | 0.5000 |" in card


def test_every_snippet_pins_the_revision():
    """In the documentation, the template and the docstrings that travel with a model."""
    root, seen = SHIPPED.parent, 0
    for path in [root / "README.md", *root.glob("docs/*.md"), *SHIPPED.rglob("*.jinja"), *SHIPPED.rglob("*.md"),
                 *root.glob("modeling/*.py")]:  # fmt: skip
        for call in re.findall(r"(?:pipeline|from_pretrained|hf_mhex\.load)\(([^()]*)\)", path.read_text()):
            if "trust_remote_code=True" in call:
                seen += 1
                assert re.search(r"\brevision=", call), f"{path.name}: {call}"
    assert seen >= 6


@pytest.mark.parametrize("place", ["clothes/v2", "clothes/model-pruned"])
def test_a_model_takes_no_results_of_the_one_that_it_was_made_from(tmp_path, place):
    """What lies above is of another model: its results.json names none, and its run is that of the folder "model"."""
    save_image_model(tmp_path / place, tmp_path / "pictures")
    run = {"recipe": "clothes", "seed": 3, "rows": {"test": 7}, "versions": {}, "test": {"accuracy": 0.75}}
    run["from_hub"] = {"base_model": "me/base", "datasets": ["me/clothes"]}
    (tmp_path / "clothes" / "results.json").write_text(json.dumps(RECORD))
    (tmp_path / "clothes" / "result.json").write_text(json.dumps(run))
    assert record_of_folder(tmp_path / place) is None and about_of(tmp_path / place) == {}
    (tmp_path / "clothes" / "model").mkdir()
    assert record_of_folder(tmp_path / "clothes" / "model")["prediction"] == {"accuracy": 0.75}
    assert about_of(tmp_path / "clothes" / "model") == run["from_hub"]
    assert record_of_folder(tmp_path / "clothes") == RECORD


@pytest.mark.parametrize("content", ['{"test": 0.9}', '{"models": ["a"]}', '{"from_hub": 1, "models": 2}', "{", "[1]"])
def test_files_of_others_beside_a_model_are_passed_over(tmp_path, content):
    save_image_model(tmp_path / "model", tmp_path / "pictures")
    for name in ("results.json", "result.json"):
        (tmp_path / name).write_text(content)
    assert record_of_folder(tmp_path / "model") is None
    assert "## Results" not in card_of_folder(tmp_path / "model", "me/model", "v1")


@pytest.mark.parametrize("name", ["results.json", "card.json"])
def test_a_file_of_the_model_that_is_no_json_is_named(tmp_path, name):
    save_image_model(tmp_path / "model", tmp_path / "pictures")
    (tmp_path / "model" / name).write_text("{")
    with pytest.raises(ValueError, match=f"^folder='.*model': {name} is no JSON"):
        card_of_folder(tmp_path / "model", "me/model", "v1")


@pytest.mark.parametrize("results", [None, {"accuracy": 0.9}, [1, 2], {"models": []}])
def test_a_card_without_results_says_nothing_of_them(tmp_path, results):
    save_image_model(tmp_path / "model", tmp_path / "pictures")
    if results is not None:
        (tmp_path / "model" / "results.json").write_text(json.dumps(results))
    assert record_of_folder(tmp_path / "model") is None
    text = card_of_folder(tmp_path / "model", "me/model", "v1")
    assert "## Results" not in text and ModelCard(text).data.eval_results is None
