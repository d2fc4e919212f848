"""`benchmark explanations`, `explain --channels` and `collaboration` on saved models and real rows."""

import json
import shutil

import pytest
import torch
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from hf_mhex import convert, image_processor_for, load_sample
from hf_mhex.cli import app
from hub_models import save_signal_model
from minilm import MINILM
from networks import RESNET, image_batch


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small image model for the Fashion-MNIST sample and a text model for the reviews."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    names = load_sample("fashion_mnist")["train"].features["label"].names
    image = convert("resnet18", id2label=dict(enumerate(names)), architecture_kwargs=RESNET["architecture_kwargs"])
    image.train()
    for _ in range(3):
        image(**image_batch(16, (28, 28)))  # running statistics
    image.save_pretrained(folder / "image")
    image_processor_for(image.config, image_size=28, crop_pct=1.0).save_pretrained(folder / "image")
    AutoModel.from_pretrained(MINILM, num_hidden_layers=2).save_pretrained(folder / "plain-text")
    text = convert(folder / "plain-text", id2label={0: "negative", 1: "positive"})
    text.save_pretrained(folder / "text")
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder / "text")
    return folder


def mhex(*arguments):
    found = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found


@pytest.mark.parametrize(("kind", "data"), [("image", "sample:fashion_mnist"), ("text", "sample:product_reviews")])
@pytest.mark.slow
def test_channels_and_collaboration(models, kind, data, tmp_path):
    found = mhex("explain", models / kind, data, "--channels", "--rows", 16, "--output", tmp_path, "--json")
    report = json.loads(found.stdout)
    assert report == json.loads((tmp_path / "channels.json").read_text())
    assert sum(entry["rows"] for entry in report) == 16
    assert list(tmp_path.glob("channels*.png" if kind == "image" else "channels.html"))
    shown = mhex("explain", models / kind, data, "--channels", "--rows", 8, "--output", tmp_path).stdout
    assert "by block" in shown and "channels.json" in shown
    with pytest.raises(ValueError, match="--decay does not apply"):
        mhex("explain", models / kind, data, "--channels", "--decay", 0.5)
    with pytest.raises(ValueError, match="--rollout does not apply"):
        mhex("explain", models / kind, data, "--channels", "--rollout")
    found = mhex("collaboration", models / kind, data, "--rows", 8, "--json")
    assert [row["block"] for row in json.loads(found.stdout)] == list(range(4 if kind == "image" else 1))


@pytest.mark.parametrize(
    ("kind", "data"),
    [("image", "sample:fashion_mnist"), ("text", "sample:product_reviews")],
)
@pytest.mark.slow
def test_heads(models, kind, data, tmp_path):
    found = mhex("heads", models / kind, data, "--rows", 8, "--blocks", "0,-1", "--output", tmp_path, "--json")
    record = json.loads(found.stdout)
    assert record == json.loads((tmp_path / "heads.json").read_text()) and sum(record["rows"]) == 8
    assert record["command"] == f"mhex heads {kind} {data} --blocks 0,-1 --threshold 0.3 --rows 8"
    pieces = {piece["name"] for piece in record["pieces"] if piece["block"] == 0}
    assert pieces == ({f"head {n}" for n in range(12)} if kind == "text" else {f"channel {n}" for n in range(8)})
    assert len(list(tmp_path.glob("heads-*.png"))) == 2 and "| block | piece" in (tmp_path / "heads.md").read_text()
    shown = mhex("heads", models / kind, data, "--rows", 8, "--groups", 2, "--output", tmp_path).stdout
    assert "speaks" in shown and "strongest" in shown
    with pytest.raises(ValueError, match="--blocks must be numbers"):
        mhex("heads", models / kind, data, "--blocks", "last")
    with pytest.raises(ValueError, match="two labels, for a field compares them; all 1 are of '.*'. Take more rows"):
        mhex("heads", models / kind, one_row_of(data, tmp_path))


def test_heads_and_filters_of_a_plain_twin(models, tmp_path):
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is in the extra bench: make test-extras")
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    from hf_mhex.training.plain import plain_image

    config = AutoModelForImageClassification.from_pretrained(models / "image").config
    plain_image(config).save_pretrained(tmp_path / "plain")
    AutoImageProcessor.from_pretrained(models / "image").save_pretrained(tmp_path / "plain")
    given = (tmp_path / "plain", "sample:fashion_mnist", "--rows", 40, "--output", tmp_path)
    record = json.loads(mhex("heads", *given, "--groups", 2, "--json").stdout)
    assert [piece["predicted"] for piece in record["pieces"]] == [None, None] and record["agreement"] == {}
    page = (tmp_path / "heads.md").read_text()
    assert "no heads on its blocks" in page and "predicted" not in page and "own head" not in page
    assert (tmp_path / "heads-4.png").exists()
    shown = mhex("filters", *given, "--target", "Bag").stdout
    assert "exact up to its bias" in shown and not (tmp_path / "channels.json").exists()


def test_a_published_command_names_nothing_of_the_machine():
    from hf_mhex.benchmarks.journal import command_line, source_name

    for given, told in (
        ("outputs/train/clothes/model", "outputs/train/clothes/model"),
        ("me/clothes", "me/clothes"),
        ("/data/of/me/clothes", "clothes"),
        ("/data/of/me/clothes/model", "clothes/model"),
        ("../../of/me/clothes", "clothes"),
    ):
        assert source_name(given) == told
    options = {"target": "Ankle boot", "plain": None, "rows": 3}
    told = command_line("mhex filters", ["m"], ["data.text=title", "labels=[a, b]"], options)
    assert told == "mhex filters m data.text=title 'labels=[a, b]' --target 'Ankle boot' --rows 3"


def one_row_of(data, folder):
    """A file of one row of an embedded sample."""
    path = folder / "one.parquet"
    load_sample(data.removeprefix("sample:"))["test"].select([0]).to_parquet(path)
    return path


def test_filters_of_a_class(models, tmp_path):
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is in the extra bench: make test-extras")
    arguments = ["filters", models / "image", "sample:fashion_mnist", "--rows", 40, "--output", tmp_path]
    shown = mhex(*arguments, "--target", "Bag").stdout
    record = json.loads((tmp_path / "filters.json").read_text())
    assert record["name"] == "Bag" and len(record["filters"]) == 24 and record["block"] == 4
    assert "q, likeness" in shown and (tmp_path / "ablation.png").exists() and (tmp_path / "channels.json").exists()
    with pytest.raises(ValueError, match="for images"):
        mhex("filters", models / "text", "sample:product_reviews")
    one = one_row_of("sample:fashion_mnist", tmp_path)
    with pytest.raises(
        ValueError, match=r"two rows of label 8 \(Bag\) and one of another, .* got 0 of 1 rows. Take more"
    ):
        mhex("filters", models / "image", one, "--target", "Bag")
    with pytest.raises(ValueError, match="--target must be a label .*got 'Hat'"):
        mhex("filters", models / "image", one, "--target", "Hat")


def test_what_an_analysis_cannot_handle_is_refused_before_the_data_are_read(models, tmp_path):
    """No sample and no recipe of these names is asked for."""
    save_signal_model(tmp_path / "signals")
    shutil.copytree(models / "image", tmp_path / "several")
    config = json.loads((tmp_path / "several" / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (tmp_path / "several" / "config.json").write_text(json.dumps(config))
    for verb in ("explanations", "paper", "stability"):
        for name, words in (("signals", "is for signals; these measures"), ("several", "single labels apart")):
            if (verb, name) == ("explanations", "signals"):
                continue
            with pytest.raises(ValueError, match=words):
                mhex("benchmark", verb, "no_recipe", tmp_path / name, "--output", tmp_path / "out")
    with pytest.raises(ValueError, match="images or texts, MHEXSignalForClassification is not; no drop"):
        mhex("collaboration", tmp_path / "signals", "sample:none")
    assert not (tmp_path / "out").exists()


def test_channels_of_signals_have_no_pictures(tmp_path):
    save_signal_model(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["id2label"] = {"0": "Vietnam", "1": "Ethiopia", "2": "Brasil"}  # of the data, in another order
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"label2id": None}))
    given = ("explain", tmp_path / "model", "sample:coffee", "--channels", "--rows", 4, "--output", tmp_path / "out")
    shown = mhex(*given).stdout
    assert "by block" in shown and [path.name for path in (tmp_path / "out").iterdir()] == ["channels.json"]


def test_a_plain_twin_on_the_hub_is_that_of_the_revision(models, tmp_path, monkeypatch):
    """`cli.networks` asks for the snapshot; what comes is loaded like a folder."""
    import huggingface_hub
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    from hf_mhex.cli.networks import load_network
    from hf_mhex.training.plain import plain_image

    twin = plain_image(AutoModelForImageClassification.from_pretrained(models / "image").config)
    twin.save_pretrained(tmp_path / "plain")
    AutoImageProcessor.from_pretrained(models / "image").save_pretrained(tmp_path / "plain")
    asked = []

    def fetched(source, revision, ignore_patterns):
        asked.append((source, revision))
        assert "*.bin" in ignore_patterns
        return str(tmp_path / "plain")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    monkeypatch.setattr("hf_mhex.loading.source_config", lambda *_: {"architectures": ["PlainImageClassifier"]})
    network, _ = load_network("me/plain", "v1")
    assert asked == [("me/plain", "v1")] and torch.equal(network.network.fc.weight, twin.network.fc.weight)


@pytest.mark.slow
def test_the_papers_measures_and_stability_from_a_recipe(models, tmp_path):
    for verb in ("paper", "stability"):
        mhex("benchmark", verb, "sample_fashion_mnist", models / "image", "--rows", 2, "--output", tmp_path / verb)
        assert "the paper's CAM" in (tmp_path / verb / "tables.md").read_text()
    with pytest.raises(ValueError, match="is for texts"):
        mhex("benchmark", "paper", "sample_product_reviews", models / "text", "--output", tmp_path / "text")


@pytest.mark.slow
def test_stability_of_texts(models, tmp_path):
    from hf_mhex.benchmarks import stability

    names = ("input x gradient", "T-Explainer")  # LIME takes long, and goes the same way
    given = ["benchmark", "stability", "sample_product_reviews", models / "text", "--rows", 1, "--output", tmp_path]
    with pytest.raises(ValueError, match="only='lime' is none of the methods compared with: Grad-CAM, .*LIME"):
        mhex(*given, "--only", "lime")
    mhex(*given, "--only", ",".join(names))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["method"] for row in rows] == ["MHEX, defaults", "MHEX, the paper's CAM", "MHEX, rollout", *names]
    for row in rows:
        assert {name: len(values) for name, values in row["values"].items()} == dict.fromkeys(stability.MEASURES, 1)
        assert row["values"]["RES"] == [0] and min(row["values"]["RIS"]) >= 0
    assert rows[-1]["taylor"]["error"] < 1e-6 and "error after" in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "maps.html").read_text().count("<article") == 4 * len(rows)


@pytest.mark.slow
def test_a_benchmark_from_a_recipe(models, tmp_path):
    """All methods on the reviews, at the smallest size; a second call makes nothing again."""
    arguments = ["benchmark", "explanations", "sample_product_reviews", models / "text", "--output", tmp_path]
    arguments += ["--rows", 2, "--slow", 1, "--only", "saliency,attention rollout"]
    mhex(*arguments)
    rows = (tmp_path / "rows-mhex.jsonl").read_text()
    mhex(*arguments)
    assert (tmp_path / "rows-mhex.jsonl").read_text() == rows
    assert "attention rollout" in (tmp_path / "tables.md").read_text() and (tmp_path / "maps-mhex.html").exists()
    assert "| block | cosine" in (tmp_path / "analyses.md").read_text()


def test_a_plain_twin_is_loaded_beside_the_model(models, tmp_path):
    from hf_mhex.cli.benchmark_data import load_networks
    from hf_mhex.training.plain import plain_image

    cpu = torch.device("cpu")
    twin = plain_image(load_networks(models / "image", None, cpu)[0]["mhex"].config)
    twin.save_pretrained(tmp_path / "plain")
    networks, _ = load_networks(models / "image", tmp_path / "plain", cpu)
    assert list(networks) == ["mhex", "plain"] and not networks["plain"].training
    assert networks["plain"](image_batch(2, (28, 28))["pixel_values"]).logits.shape == (2, 10)
    assert torch.equal(networks["plain"].network.fc.weight, twin.network.fc.weight)
