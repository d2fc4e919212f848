"""Recipes: parsing, bases, overrides, and what they refuse."""

import json
from pathlib import Path

import pytest

from hf_mhex.training.recipe import FOLDER, load_recipe, recipe_names, set_value

RESULTS = sorted((Path(__file__).parents[2] / "results" / "training").glob("*.jsonl"))
MEDMNIST = [
    "path",
    "chest",
    "derma",
    "oct",
    "pneumonia",
    "retina",
    "breast",
    "blood",
    "tissue",
    "organa",
    "organc",
    "organs",
]


def test_the_recipes_that_ship():
    names = recipe_names()
    assert {f"medmnist/{name}mnist" for name in MEDMNIST} <= set(names)
    assert {"ag_news_bert_base", "ag_news_minilm", "fashion_mnist", "imagenet_resnet50"} <= set(names)
    assert {"sample_fashion_mnist", "sample_product_reviews", "sample_coffee"} <= set(names)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_training_arguments(name, tmp_path):
    recipe = load_recipe(name, ["bf16=false"])
    arguments = recipe.training_arguments(tmp_path)
    assert arguments.output_dir == str(tmp_path)
    assert not arguments.remove_unused_columns
    assert arguments.seed == 0
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_rows_say_what_made_them(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows
    for row in rows:
        if "recipe" in row:
            assert load_recipe(row["recipe"]).name == row["recipe"]
            assert row["seed"] == 0 and row["note"]
            assert row.get("split") or (row["minutes"] > 0 and {"torch", "transformers"} <= row["versions"].keys())
    kinds = {row["kind"] for row in rows if "minutes" in row}
    assert kinds in (set(), {"mhex", "plain"})


def test_base_and_overrides_in_order(tmp_path):
    (tmp_path / "under.yaml").write_text(
        "model: {architecture: resnet18, config: {head_decay: 0.8}}\ntraining: {learning_rate: 1e-3, seed: 4}\n"
    )
    path = tmp_path / "over.yaml"
    path.write_text("base: under\ndata: {source: 'sample:fashion_mnist'}\ntraining: {learning_rate: 2e-3}\n")
    recipe = load_recipe(str(path), ["model.config.gate_scale=1", "flip=0.25", "eval_strategy=no", "bf16=true"])
    assert recipe.name == "over"
    assert recipe.model.config == {"head_decay": 0.8, "gate_scale": 1}
    assert recipe.training == {"learning_rate": 2e-3, "seed": 4, "eval_strategy": "no", "bf16": True}
    assert recipe.processing.flip == 0.25
    assert recipe.sections()["data"] == {"source": "sample:fashion_mnist"}


@pytest.mark.parametrize(
    "override, words",
    [
        ("learning_rat=1", "'learning_rat' is no key of a recipe, the closest is 'learning_rate'"),
        ("data.input_column=text", "data has no key 'input_column'; the closest is 'input_columns'"),
        ("input_columns=[title, text", "override .* is no YAML in line 1, column 13: expected"),
        ("learning_rate", "overrides are key=value, got 'learning_rate'"),
        ("training=1", "names a whole section"),
        ("model.nothing=1", "model has no key 'nothing'"),
        ("training.output_dir=x", "training.output_dir is set by the run itself"),
        ("model.kind=other", r"model.kind must be one of 'mhex', 'plain'; got 'other'"),
        ("family=vgg", "model.family must be one of 'bert', 'roberta'"),
        ("model.architecture=null", "model.architecture must be timm's name"),
        ("family=bert", "model.weights must name the network to start from"),
        ("flip=2", r"processing.flip must lie in \[0, 1\], got 2"),
        ("on_bad_row=ignore", "data.on_bad_row must be one of 'error', 'skip'"),
        ("label_smoothing_factor=0.1", "write model.config.label_smoothing=0.1, which smooths the loss of every head"),
    ],
)
def test_what_a_recipe_cannot_take(override, words):
    with pytest.raises(ValueError, match=words):
        load_recipe("sample_fashion_mnist", [override])


def test_an_empty_section_leaves_the_base_as_it_is(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: sample_fashion_mnist\ntraining:\n#  learning_rate: 1\n")
    found = load_recipe(str(path), ["training.seed=3"])
    assert found.training == load_recipe("sample_fashion_mnist").training | {"seed": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [("training: [1]", "training must be a section of keys and values, got .1."), ("a:\n\t- b", "no YAML in line 2")],
)
def test_a_file_that_is_no_recipe_is_refused_in_a_line(text, words, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as found:
        load_recipe(str(path))
    assert "\n" not in str(found.value)


def test_unknown_recipe_names_those_there_are():
    with pytest.raises(ValueError, match="'nothing' is no YAML file and none of the package's: ag_news_bert_base"):
        load_recipe("nothing")


def test_skewed_data_are_weighed_once():
    with pytest.raises(ValueError, match="skew would count twice"):
        load_recipe("sample_fashion_mnist", ["class_weights=balanced", "sampling=balanced"])


def test_an_ambiguous_key_names_its_homes(monkeypatch):
    from hf_mhex.training import recipe

    monkeypatch.setitem(recipe.SECTIONS, "other", recipe.SECTIONS["data"])
    with pytest.raises(ValueError, match="'source' is in data and other: write data.source"):
        set_value({}, "source=x")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["num_train_epochs=-1"], "training.num_train_epochs must be finite and at least 1e-06, got -1"),
        (["num_train_epochs=0"], "training.num_train_epochs must be .* got 0"),
        (["num_train_epochs=.nan"], "training.num_train_epochs must be .* got nan"),
        (["num_train_epochs=0", "max_steps=-1"], "training.num_train_epochs must be .* got 0"),
        (["per_device_train_batch_size=-4"], "training.per_device_train_batch_size must be .* at least 1, got -4"),
        (["per_device_eval_batch_size=0"], "training.per_device_eval_batch_size must be .* at least 1, got 0"),
        (["gradient_accumulation_steps=0"], "training.gradient_accumulation_steps must be .* at least 1, got 0"),
        (["learning_rate=0"], "training.learning_rate must be finite and at least 1e-12, got 0"),
        (["learning_rate=-1e-3"], "training.learning_rate must be .* got -0.001"),
        (["learning_rate=.inf"], "training.learning_rate must be .* got inf"),
        (["head_learning_rate=.nan"], "optimisation.head_learning_rate must be .* got nan"),
        (["weight_decay=.nan"], "training.weight_decay must be .* at least 0, got nan"),
    ],
)
def test_a_training_that_would_learn_nothing_is_refused(overrides, words):
    with pytest.raises(ValueError, match=words):
        load_recipe("sample_fashion_mnist", overrides)


@pytest.mark.parametrize(
    ("overrides", "allowed"),
    [
        ([], True),
        (["eval_strategy=no"], False),
        (["eval_strategy=null"], False),
        (["metric_for_best_model=null", "load_best_model_at_end=false"], False),
        (["metric_for_best_model=null"], True),  # the loss
        (["load_best_model_at_end=false"], True),
    ],
)
def test_an_early_stop_asks_for_evaluations_and_a_metric(overrides, allowed):
    changes = ["early_stopping_patience=2", *overrides]
    if allowed:
        assert load_recipe("sample_fashion_mnist", changes).optimisation.early_stopping_patience == 2
        return
    words = r"early_stopping_patience=2 counts evaluations .* set training.eval_strategy .* training.metric_for_best_"
    with pytest.raises(ValueError, match=words):
        load_recipe("sample_fashion_mnist", changes)


def test_an_early_stop_waits_for_one_evaluation_at_least():
    with pytest.raises(ValueError, match="early_stopping_patience must be finite and at least 1, got 0"):
        load_recipe("sample_fashion_mnist", ["early_stopping_patience=0"])


def test_steps_stand_for_epochs():
    assert load_recipe("sample_fashion_mnist", ["num_train_epochs=0", "max_steps=3"]).training["max_steps"] == 3
