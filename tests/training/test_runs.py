"""Every recipe that ships: the loss falls, and the saved folder loads and explains.

Data that cannot be had offline are generated in the same form; networks are small ones of the recipe's family.
"""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor

from hf_mhex import load, load_sample
from hf_mhex.explaining.explanation import explain
from hf_mhex.training import run
from hf_mhex.training.plain import load_plain
from hf_mhex.training.recipe import load_recipe, recipe_names
from schemas import (
    TOPICS,
    patches,
    read_log,
    small_bert,
    texts,
    write_csv,
    write_idx,
    write_image_folder,
    write_medmnist,
)

SMALL = "{layers: [1, 1, 1, 1], channels: [8, 12, 16, 16]}"
FEW = ["max_steps=24", "learning_rate=1e-2", "logging_steps=1", "use_cpu=true", "head_learning_rate=1e-2"]
FEW += ["per_device_train_batch_size=16", "eval_strategy=no", "save_strategy=no", "load_best_model_at_end=false"]
FEW += ["warmup_steps=0", "lr_scheduler_type=constant", "bf16=false", "gradient_accumulation_steps=1"]
SETS = {  # recipe: classes, colour
    "pathmnist": (9, True), "chestmnist": (14, False), "dermamnist": (7, True), "octmnist": (4, False),
    "pneumoniamnist": (2, False), "retinamnist": (5, True), "retinamnist_regression": (5, True),
    "breastmnist": (2, False), "bloodmnist": (8, True), "tissuemnist": (8, False), "organamnist": (11, False),
    "organcmnist": (11, False), "organsmnist": (11, False),
}  # fmt: skip
FAST = ("retinamnist_regression",)
NAMES = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in SETS]


def fell(entries, name="loss"):
    """Whether the mean of the last logged losses is well below that of the first."""
    losses = [entry[name] for entry in entries if name in entry]
    return np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


def explained(model, **inputs):
    """The largest error of a label's map against its logit, over every label."""
    answer = model.generate_saliency(**inputs, target="all")
    sums = answer.saliency.double().flatten(2).sum(-1)
    return ((sums - answer.logits).abs() / answer.logits.abs().clamp(min=1)).max().item()


@pytest.mark.parametrize("name", NAMES)
def test_medmnist(name, tmp_path):
    classes, colour = SETS[name]
    several = name == "chestmnist"
    source = write_medmnist(tmp_path / "set.npz", classes, colour, several=several, counts=(176, 44, 44))
    changes = [*FEW, f"source={source}", f"model.architecture_kwargs={SMALL}", "image_size=28"]
    recipe = load_recipe(f"medmnist/{name}", changes)
    row = run.train(recipe, tmp_path / "run")
    assert fell(read_log(tmp_path / "run"))
    assert row == json.loads((tmp_path / "run" / "result.json").read_text())
    assert row["rows"] == {"train": 176, "validation": 44, "test": 44}
    metrics = {"mae", "rmse"} if recipe.model.problem_type == "regression" else {"medmnist_auc", "medmnist_acc"}
    assert metrics <= row["test"].keys()

    model, processor = load(tmp_path / "run" / "model")
    assert [model.config.id2label[k] for k in range(model.config.num_labels)] == recipe.data.label_names
    assert model.config.problem_type == recipe.model.problem_type
    label = np.eye(classes, dtype=int)[1] if several else 1
    image = Image.fromarray(patches([label], 28, classes, colour, several=several)[0])
    assert explained(model, **processor(image.convert("RGB"), return_tensors="pt")) < 1e-5
    record = explain(model, processor, image).record
    assert record["sum"] == pytest.approx(record["explained"], abs=1e-4)
    if several:
        logit = model(**processor(image.convert("RGB"), return_tensors="pt")).logits[0, 1]
        assert explain(model, processor, image, target=1).record["score"] == pytest.approx(logit.sigmoid().item())


@pytest.mark.slow
def test_imagenet_from_a_converted_resnet50(tmp_path):
    """The recipe's data are gated and its weights published: a folder of images and a checkpoint of timm's stand in."""
    torch.manual_seed(0)
    plain = timm.create_model("resnet50", layers=[1, 1, 1, 1], channels=[8, 8, 12, 12], num_classes=1000)
    weights = tmp_path / "resnet50.safetensors"
    save_file(plain.state_dict(), weights)
    source = write_image_folder(tmp_path / "images", classes=4, rows=64)
    changes = [*FEW, f"source={source}", f"model.weights={weights}", "pretrained=false", "image_size=48", "crop_pct=1"]
    changes += ["dataloader_num_workers=1", "validation_fraction=0.2", "min_area=0.8", "flip=0", "layer_decay=1"]
    changes.append("model.architecture_kwargs={layers: [1, 1, 1, 1], channels: [8, 8, 12, 12]}")
    recipe = load_recipe("imagenet_resnet50", changes)
    row = run.train(recipe, tmp_path / "run")
    assert fell(read_log(tmp_path / "run"))
    assert row["rows"] == {"train": 52, "validation": 12, "test": 64}
    model, processor = load(tmp_path / "run" / "model")
    assert model.config.id2label[2] == "class_2"
    assert explained(model, **processor(Image.open(next(source.rglob("*.png"))), return_tensors="pt")) < 1e-5


@pytest.mark.parametrize("name", ["ag_news_bert_base", pytest.param("ag_news_minilm", marks=pytest.mark.slow)])
def test_ag_news(name, tmp_path):
    torch.manual_seed(0)
    found, labels = texts(160)
    source = write_csv(tmp_path / "news.csv", {"text": found, "label": labels})
    changes = [*FEW, f"source={source}", f"model.weights={small_bert(tmp_path / 'bert')}", "max_length=24"]
    recipe = load_recipe(name, [*changes, f"label_names={list(TOPICS)}"])
    row = run.train(recipe, tmp_path / "run")
    assert fell(read_log(tmp_path / "run"))
    assert row["test"]["accuracy"] > 0.5
    model, tokenizer = load(tmp_path / "run" / "model")
    assert tokenizer.model_max_length == 24
    assert explained(model, **tokenizer(found[:3], padding=True, return_tensors="pt")) < 1e-5
    record = explain(model, tokenizer, "match goal after season").record
    assert record["label"] in TOPICS


def test_ag_news_as_its_test_file_is(tmp_path):
    """A CSV without a header: a number from 1, a title and a description."""
    torch.manual_seed(0)
    found, labels = texts(160)
    columns = {1: [label + 1 for label in labels], "title": found, "description": [f"{text} says" for text in found]}
    source = write_csv(tmp_path / "news.csv", columns)
    source.write_text(source.read_text().split("\n", 1)[1])
    changes = [*FEW, f"source={source}", f"model.weights={small_bert(tmp_path / 'bert')}", "max_length=32"]
    row = run.train(load_recipe("ag_news_minilm_7600", changes), tmp_path / "run")
    assert fell(read_log(tmp_path / "run"))
    assert row["rows"] == {"train": 112, "validation": 16, "test": 32}
    assert row["note"].endswith("not comparable with published figures")
    model, tokenizer = load(tmp_path / "run" / "model")
    assert list(model.config.id2label.values()) == list(TOPICS)
    assert explained(model, **tokenizer(found[:3], padding=True, return_tensors="pt")) < 1e-5


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_texts_of_several_labels_and_numbers(problem, tmp_path):
    """Trained to a falling loss and explained label by label, not only passed through."""
    torch.manual_seed(0)
    found, labels = texts(160)
    columns = {"text": found, "a": [int(label < 2) for label in labels], "b": [label % 2 for label in labels]}
    source = write_csv(tmp_path / "rows.csv", columns)
    changes = [*FEW, f"source={source}", f"model.weights={small_bert(tmp_path / 'bert')}", "label_columns=[a, b]"]
    changes += [f"problem_type={problem}", "label_names=[early, odd]", "metrics=null", "part_consistency=null"]
    changes += ["learning_rate=3e-3", "head_learning_rate=3e-3"] if problem == "regression" else []
    row = run.train(load_recipe("ag_news_minilm", changes), tmp_path / "run")
    assert fell(read_log(tmp_path / "run"))
    model, tokenizer = load(tmp_path / "run" / "model")
    inputs = tokenizer(found[:8], padding=True, return_tensors="pt")
    assert explained(model, **inputs) < 1e-5
    record = explain(model, tokenizer, found[0], target=1).record
    assert record["label"] == "odd"
    logit = model(**tokenizer(found[0], return_tensors="pt")).logits[0, 1]
    if problem == "regression":
        assert row["test"]["r2"] > 0
        assert record["score"] == pytest.approx(logit.item(), abs=1e-5)
    else:
        assert row["test"]["accuracy"] > 0.7
        assert record["score"] == pytest.approx(logit.sigmoid().item(), abs=1e-5)


@pytest.mark.slow
def test_embedded_images(tmp_path):
    changes = [*FEW, "learning_rate=3e-3", "max_train_rows=400", f"model.architecture_kwargs={SMALL}"]
    run.train(load_recipe("sample_fashion_mnist", changes), tmp_path / "run")
    assert fell(read_log(tmp_path / "run"))
    model, processor = load(tmp_path / "run" / "model")
    image = load_sample("fashion_mnist")["test"][0]["image"]
    assert explained(model, **processor(image, return_tensors="pt")) < 1e-5


@pytest.mark.slow
def test_fashion_mnist_in_full(tmp_path):
    """The set's own four files, here small ones of its form."""
    source = write_idx(tmp_path / "fashion", counts=(220, 40))
    changes = [*FEW, f"source={source}", "max_train_rows=160", f"model.architecture_kwargs={SMALL}", "image_size=28"]
    row = run.train(load_recipe("fashion_mnist", changes), tmp_path / "run")
    assert fell(read_log(tmp_path / "run"))
    assert row["rows"] == {"train": 160, "validation": 20, "test": 40}
    assert row["labels"][-1] == "Ankle boot"
    model, processor = load(tmp_path / "run" / "model")
    image = Image.fromarray(patches([3], 28, 10, colour=False)[0])
    assert explained(model, **processor(image, return_tensors="pt")) < 1e-5


def test_embedded_texts(tmp_path):
    torch.manual_seed(0)
    changes = [*FEW, "learning_rate=1e-3", f"model.weights={small_bert(tmp_path / 'bert')}", "max_length=24"]
    row = run.train(load_recipe("sample_product_reviews", [*changes, "max_train_rows=400"]), tmp_path / "run")
    assert row["labels"] == ["negative", "positive"]
    assert row["rows"]["test"] == 591


@pytest.mark.slow
def test_embedded_texts_by_the_recipes_own_weights(tmp_path):
    changes = [*FEW, "max_steps=40", "learning_rate=1e-4", "max_train_rows=640"]
    run.train(load_recipe("sample_product_reviews", changes), tmp_path / "run")
    assert fell(read_log(tmp_path / "run"))
    model, tokenizer = load(tmp_path / "run" / "model")
    sentences = load_sample("product_reviews")["test"]["text"][:3]
    assert explained(model, **tokenizer(sentences, padding=True, return_tensors="pt")) < 1e-5


@pytest.mark.parametrize("kind", ["mhex", pytest.param("plain", marks=pytest.mark.slow)])
def test_embedded_signals(kind, tmp_path):
    changes = [*FEW, "learning_rate=2e-3", "model.config.widths=[8, 16, 16]", "model.config.stem_stride=16"]
    row = run.train(load_recipe("sample_coffee", [*changes, f"kind={kind}"]), tmp_path / "run")
    assert fell(read_log(tmp_path / "run"))
    assert row["labels"] == load_sample("coffee")["train"].features["label"].names
    assert row["rows"] == {"train": 33, "validation": 9, "test": 18} and row["kind"] == kind
    signals = load_sample("coffee")["test"]["signal"][:3]
    if kind == "plain":
        model = load_plain(tmp_path / "run" / "model")
        extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "run" / "model")
        assert not any("gate" in name or "head" in name for name in model.state_dict())
        answer = model(**extractor(signals, return_tensors="pt"))
        assert answer.logits.shape == (3, 3) and answer.logits.isfinite().all()
        return
    model, extractor = load(tmp_path / "run" / "model")
    assert explained(model, **extractor(signals, return_tensors="pt")) < 1e-5
    record = explain(model, extractor, signals[0]).record
    assert record["label"] in row["labels"] and record["sum"] == pytest.approx(record["explained"], abs=1e-4)
    assert row["part_removal"]["parts"] == "16 intervals"


def write_spectra(path, axis, rows=48, seed=0):
    """A table of noise with a column a point, whose labels "a" and "b" differ by a peak."""
    generator = np.random.default_rng(seed)
    labels = np.array(["a", "b"])[np.arange(rows) % 2]
    signals = generator.normal(scale=0.1, size=(rows, len(axis)))
    signals[labels == "b", 5:9] += 1
    lines = ["label," + ",".join(map(str, axis))]
    lines += [f"{label}," + ",".join(map(repr, signal)) for label, signal in zip(labels, signals.tolist())]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_signals_of_ones_own_keep_their_axis_and_go_on(tmp_path):
    axis = [1800.5 - 20 * place for place in range(24)]
    source = write_spectra(tmp_path / "spectra.csv", axis)
    changes = [*FEW, f"source={source}", "model.config.axis_unit=1/cm", "model.config.stem_stride=1"]
    row = run.train(load_recipe("sample_coffee", changes), tmp_path / "run")
    model, extractor = load(tmp_path / "run" / "model")
    assert list(model.config.axis) == axis and model.config.axis_unit == "1/cm"
    assert row["test"]["accuracy"] == 1 and len(extractor.mean[0]) == 24
    again = [*changes, f"model.weights={tmp_path / 'run' / 'model'}"]
    assert run.train(load_recipe("sample_coffee", again), tmp_path / "again")["test"]["accuracy"] == 1
    _, kept = load(tmp_path / "again" / "model")
    assert kept.mean == extractor.mean and kept.std == extractor.std
    for change, own in (("standardise=channel", "'point'"), ("num_channels=2", "1")):
        with pytest.raises(
            ValueError, match=f"{change[:11]}.* does not fit model.weights=.* with its own, {own}; write"
        ):
            run.train(load_recipe("sample_coffee", [*again, change]), tmp_path / "refused")
    moved = write_spectra(tmp_path / "moved.csv", [place + 7 for place in axis])
    with pytest.raises(ValueError, match="data's axis runs from 1807.5 to 1347.5, the model's from 1800.5 to 1340.5"):
        run.train(load_recipe("sample_coffee", [*again, f"source={moved}"]), tmp_path / "moved")


@pytest.mark.parametrize(
    "change, words",
    [
        ("model.config.axis=[1, 2, 3]", "model.config.axis has 3 places, but the signals have 24 points"),
        ("model.config.axis=[1, 3, 2]", "axis must rise or fall throughout, but goes from 3 to 2 at point 1; sort"),
        ("model.config.widht=[4]", "'widht' is no field of MHEXSignalConfig; did you mean 'widths'"),
        ("model.weights=other", "model.weights='other' must be the folder of an MHEX model of signals"),
        ("model.num_channels=2", r"a signal must be \[L\] or \[2, L\] for num_channels=2, got shape \[24\]"),
        ("sampling=by_length", "is for texts; images and signals are alike in length"),
    ],
)
def test_signals_that_do_not_fit_the_recipe(change, words, tmp_path):
    source = write_spectra(tmp_path / "spectra.csv", list(range(24)))
    with pytest.raises((ValueError, TypeError), match=words):
        run.train(load_recipe("sample_coffee", [*FEW, f"source={source}", change]), tmp_path / "run")


@pytest.mark.parametrize(
    "places, lines, words",
    [
        ([1, 2, 3, 5, 4, 6, 7, 8], None, "axis must rise or fall throughout, but goes from 5.0 to 4.0 at point 3"),
        (range(8), "a,0,0,0,0,0,0,0,nan", "1 with points that are NaN or infinite; the first is row 4"),
        (range(8), "a,0,0,0,0,0,0,0,", "1 with points that are NaN or infinite; the first is row 4"),
        (range(8), "a", "all 14 training rows are of label 'a': nothing can be learnt from one class only"),
        (range(8), 4, "2 rows are too few to split a share of 0.2 off for validation: no label has two of them"),
        (range(8), 20, "training has 14 rows, fewer than one batch of 16; lower training.per_device_train_batch_size"),
    ],
)
def test_tables_of_signals_that_cannot_be(places, lines, words, tmp_path):
    source = write_spectra(tmp_path / "spectra.csv", list(places), rows=40)
    text = source.read_text().splitlines()
    if lines == "a":
        text = text[:1] + [line for line in text if line.startswith("a")]
    elif isinstance(lines, int):
        text = text[: lines + 1]
    elif lines:
        text[5] = lines
    source.write_text("\n".join(text) + "\n")
    with pytest.raises(ValueError, match=words):
        run.train(load_recipe("sample_coffee", [*FEW, f"source={source}"]), tmp_path / "run")


def test_every_recipe_is_run_here():
    names = {f"medmnist/{name}" for name in SETS} | {"imagenet_resnet50", "fashion_mnist"}
    names |= {"ag_news_bert_base", "ag_news_minilm", "ag_news_minilm_7600"}
    assert names | {"sample_fashion_mnist", "sample_product_reviews", "sample_coffee"} == set(recipe_names())


@pytest.mark.parametrize("family", ["resnet", "bert"])
def test_the_plain_twin_trains_by_the_same_recipe(family, tmp_path):
    torch.manual_seed(0)
    if family == "resnet":
        source = write_medmnist(tmp_path / "set.npz", 2, colour=False)
        changes = [f"source={source}", f"model.architecture_kwargs={SMALL}", "image_size=28"]
        recipe = load_recipe("medmnist/pneumoniamnist", [*FEW, *changes, "kind=plain", "model.config.head_decay=0"])
    else:
        found, labels = texts(120)
        source = write_csv(tmp_path / "news.csv", {"text": found, "label": labels})
        changes = [f"source={source}", f"model.weights={small_bert(tmp_path / 'bert')}", "kind=plain"]
        changes.append("max_steps=60")  # rows without some of their words are slower to learn
        recipe = load_recipe("ag_news_bert_base", [*FEW, *changes, "model.config.label_smoothing=0.1"])
    row = run.train(recipe, tmp_path / "run")
    assert row["kind"] == "plain"
    entries = read_log(tmp_path / "run")
    assert fell(entries)
    assert not any("block" in key for entry in entries for key in entry)
