"""explain_dataset explains every row, in order, whatever the source, and records what cannot be explained."""

import copy
import io
import json
import sys

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_dataset
from PIL import Image as Pillow
from transformers import AutoTokenizer

import hf_mhex
from hf_mhex import MHEXSignalFeatureExtractor
from hf_mhex.data.source import open_data
from hf_mhex.explaining.dataset import explain_dataset
from hf_mhex.explaining.shards import restore_map, store_map
from minilm import MINILM
from networks import lively, lively_resnet

WORDS = ["good", "bad", "phone", "battery", "screen", "the", "is", "very", "not", "works", "broke", "loved"]


def png(seed, size=(40, 36)):
    colours = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(colours).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture(scope="module")
def images():
    features = Features({"picture": Image(), "name": Value("string"), "kind": Value("int64")})
    columns = {"picture": [png(seed) for seed in range(23)], "name": [f"n{row}" for row in range(23)]}
    return Dataset.from_dict(columns | {"kind": [row % 4 for row in range(23)]}, features=features)


@pytest.fixture(scope="module")
def texts():
    draw = np.random.default_rng(0)
    return Dataset.from_dict(
        {
            "id": [f"t{row}" for row in range(37)],
            "text": [" ".join(draw.choice(WORDS, 1 + row % 19)) for row in range(37)],
        }
    )


@pytest.fixture(scope="module")
def image_model():
    model = lively_resnet(torch.float32, id2label={0: "cat", 1: "dog", 2: "emu", 3: "fox"})
    return model, hf_mhex.image_processor_for(model.config, image_size=32)


@pytest.fixture(scope="module")
def text_model():
    torch.manual_seed(1)  # a seed by which no channel's mean is 0 to rounding: there a map may differ between batches
    model = hf_mhex.from_bert(MINILM, id2label={0: "bad", 1: "good"}).eval()
    for gate in model.bert.gates:
        torch.nn.init.normal_(gate.weight, std=0.3)
    return model, AutoTokenizer.from_pretrained(MINILM)


def read(folder, cache):
    """The rows of a folder, through `datasets`."""
    return load_dataset("parquet", data_files=str(folder / "shard-*.parquet"), cache_dir=str(cache), split="train")


def explain(model, data, folder, **options):
    return explain_dataset(*model, data, folder, progress=False, **options)


@pytest.mark.parametrize("refine", [0, 2])
def test_images(image_model, images, tmp_path, refine):
    model, processor = image_model
    options = {"contrast": "softmax", "blocks": [0, -1], "refine": refine}
    found = explain(image_model, images, tmp_path, rows_per_shard=10, batch_size=4, id_column="name", **options,
                    block_maps=True, overlays=True)  # fmt: skip
    assert (found.shards, found.rows, found.bad) == (3, 23, 0)
    rows = read(tmp_path, tmp_path / "cache")
    assert rows["row"] == list(range(23)) and rows["id"] == images["name"]
    for row in rows:
        inputs = processor(images[row["row"]]["picture"], return_tensors="pt")
        answer = model.generate_saliency(**inputs, **options)
        assert row["target"] == int(answer.target) and row["label"] == model.config.id2label[row["target"]]
        assert np.allclose(row["logits"], answer.logits[0], atol=1e-5)
        assert abs(row["score"] - float(answer.logits.softmax(-1)[0, row["target"]])) < 1e-5
        assert abs(row["explained"] - float(answer.explained)) < 1e-5
        pairs = [((row["map"], row["map_scale"]), answer.saliency)]
        pairs += zip(zip(row["block_maps"], row["block_scales"]), answer.block_saliency, strict=True)
        for stored, expected in pairs:
            error = np.abs(restore_map(*stored) - expected[0].numpy()).max()
            assert error <= 1e-3 * expected.abs().max()
    pictures = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("overlays/*/*.png"))
    assert len(pictures) == 23 and pictures[10] == "overlays/000001/000000010.png"


@pytest.mark.parametrize("options", [{}, {"rollout": True}, {"refine": 2}])
def test_texts_in_batches_by_length(text_model, texts, tmp_path, monkeypatch, options):
    model, tokenizer = text_model
    if "refine" in options:  # a gradient jumps where a channel's mean is 0 to rounding, and here are many inputs
        model = copy.deepcopy(model).double()
    shapes, generate = [], model.generate_saliency
    monkeypatch.setattr(
        model, "generate_saliency", lambda **given: shapes.append(given["input_ids"].shape) or generate(**given)
    )
    explain((model, tokenizer), texts, tmp_path, rows_per_shard=20, batch_size=5, words=True, **options)
    lengths = [shape[1] for shape in shapes]
    assert lengths[:4] == sorted(lengths[:4]) and lengths[4:] == sorted(lengths[4:])
    rows = read(tmp_path, tmp_path / "cache")
    assert rows["id"] == texts["id"]
    for row, text in zip(rows, texts["text"]):
        mask = {"mask_token_id": tokenizer.mask_token_id}
        answer = generate(**tokenizer(text, return_tensors="pt"), **options, **mask)
        expected = answer.saliency[0].numpy()
        error = np.abs(restore_map(row["map"], row["map_scale"]) - expected).max()
        assert error <= 2**-11 * max(1, np.abs(expected).max())  # float16's rounding
        assert row["words"] == text.split() and not row["truncated"]
        assert abs(sum(row["word_scores"]) + row["special"] - row["explained"]) <= 1e-4


@pytest.mark.parametrize("kind", ["streaming", "generator", "list", "frame", "parquet", "jsonl", "saved"])
def test_every_source_gives_the_same_rows(text_model, texts, tmp_path, kind):
    explain(text_model, texts, tmp_path / "expected", rows_per_shard=20)
    if kind == "streaming":
        data = texts.to_iterable_dataset(num_shards=3)
    elif kind == "generator":
        data = (row for row in texts.rename_columns({"text": "sentence"}))  # another usual name
    elif kind in ("list", "frame"):
        data = list(texts) if kind == "list" else texts.to_pandas()
    elif kind == "saved":
        texts.save_to_disk(tmp_path / "data")
        data = open_data(tmp_path / "data")
    else:
        path = tmp_path / f"data.{kind}"
        texts.to_parquet(path) if kind == "parquet" else texts.to_json(path)
        data = open_data(path, streaming=kind == "jsonl")
    explain(text_model, data, tmp_path / "found", rows_per_shard=20)
    expected, found = (read(tmp_path / name, tmp_path / "cache") for name in ("expected", "found"))
    assert found.to_dict() == expected.to_dict()


def test_bad_rows_are_recorded(image_model, text_model, texts, images, tmp_path):
    columns = images.to_dict()
    columns["picture"][3] = {"bytes": b"no image", "path": None}
    columns["picture"][4] = {"bytes": columns["picture"][4]["bytes"][:200], "path": None}
    columns["picture"][7] = None
    columns["kind"][9], columns["kind"][10] = 17, None
    data = Dataset.from_dict(columns, features=images.features)
    found = explain(image_model, data, tmp_path / "image", batch_size=8, target_column="kind")
    rows = read(tmp_path / "image", tmp_path / "cache")
    bad = {row["row"]: row["error"] for row in rows if row["error"]}
    assert found.bad == 5 and list(bad) == [3, 4, 7, 9, 10] and found.rows == 23
    assert all("no image that can be read" in bad[row] for row in (3, 4))
    assert bad[7] == "ValueError: the row holds no image."
    assert "target must be a label (cat, dog, emu, fox) or a number below 4, got '17'" in bad[9]
    assert "no target" in bad[10]
    assert rows[3]["map"] is None and rows[3]["logits"] is None
    assert all(row["target"] == row["row"] % 4 and row["map"] for row in rows if not row["error"])
    data = [{"text": text} for text in ("good phone", "", None, "  ", "bad " * 700, "half \ud83d of a smile")]
    assert explain(text_model, data, tmp_path / "text", words=True).bad == 4
    rows = read(tmp_path / "text", tmp_path / "cache")
    assert rows["truncated"] == [False, None, None, None, True, None] and rows[4]["words"][:2] == ["bad", "bad"]
    assert "half a character" in rows[5]["error"]
    with pytest.raises(ValueError, match=r"half a character \('\\ud83d'"):
        hf_mhex.explain(*text_model, "half \ud83d of a smile")


@pytest.mark.parametrize(
    ("feature", "values", "labels"),
    [
        (ClassLabel(names=["fox", "cat", "zebra"]), [0, 1, 2, -1, None], ["fox", "cat", None, None, None]),
        (ClassLabel(names=["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]), [3, 0, -1], ["fox", "cat", None]),
        (Value("string"), ["fox", "2", " dog ", "Fox", "", None], ["fox", "emu", "dog", None, None, None]),
        (Value("float64"), [3.0, 0.0, 0.5, 4.0, None, float("nan")], ["fox", "cat", None, None, None, None]),
    ],
)
def test_a_row_s_own_label_is_explained(image_model, tmp_path, feature, values, labels):
    """By its name where source and model share names, else by its name or number; a missing one is the row's own."""
    columns = {"picture": [png(seed) for seed in range(len(values))], "kind": values}
    data = Dataset.from_dict(columns, Features({"picture": Image(), "kind": feature}))
    found = explain(image_model, data, tmp_path, target_column="kind")
    rows = read(tmp_path, tmp_path / "cache")
    assert rows["label"] == labels and found.bad == labels.count(None)
    for value, error in zip(values, rows["error"]):
        missing = value in (None, "", -1) or value != value
        assert error is None or ("holds no target" if missing else "target must be a label") in error


def test_targets_of_other_names_are_refused_and_booleans_are_words(image_model, tmp_path):
    columns = {"picture": [png(seed) for seed in range(2)], "kind": [0, 1]}
    others = Features({"picture": Image(), "kind": ClassLabel(names=["hens", "owls"])})
    with pytest.raises(
        ValueError, match=r"target_column='kind' has labels of other names \(hens, owls\) than the model"
    ):
        explain(image_model, Dataset.from_dict(columns, others), tmp_path / "new", target_column="kind")
    model = lively_resnet(torch.float32, id2label={0: "True", 1: "False", 2: "x", 3: "y"})
    rows = [{"image": picture, "sick": sick} for picture, sick in zip(columns["picture"], (True, False))]
    pair = model, hf_mhex.image_processor_for(model.config, image_size=32)
    explain(pair, rows, tmp_path / "found", target_column="sick")
    assert read(tmp_path / "found", tmp_path / "cache")["label"] == ["True", "False"]


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        (Value("int64"), [1, 2, 4]),
        (ClassLabel(names=["1", "2", "3", "4"]), [0, 1, 3]),
        (ClassLabel(names=["4 stars", "3 stars", "2 stars", "1 star"]), [0, 1, 3]),
    ],
)
def test_labels_that_are_called_by_numbers(tmp_path, feature, values):
    model = lively_resnet(torch.float32, id2label={0: "1", 1: "2", 2: "3", 3: "4"})
    columns = {"picture": [png(seed) for seed in range(3)], "kind": values}
    data = Dataset.from_dict(columns, Features({"picture": Image(), "kind": feature}))
    pair = model, hf_mhex.image_processor_for(model.config, image_size=32)
    explain(pair, data, tmp_path / "found", target_column="kind")
    assert read(tmp_path / "found", tmp_path / "cache")["label"][:] == ["1", "2", "4"]


def test_a_finished_shard_is_not_made_again(text_model, texts, tmp_path):
    explain(text_model, texts, tmp_path, rows_per_shard=10)
    first, second = (tmp_path / f"shard-00000{shard}.parquet" for shard in (0, 1))
    before = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    found = explain(text_model, texts, tmp_path, rows_per_shard=10)
    assert (found.rows, found.shards) == (37, 4)
    assert (first.stat().st_mtime_ns, second.read_bytes()) == before
    second.unlink()
    explain(text_model, texts.to_iterable_dataset(), tmp_path / "stream", rows_per_shard=10)
    assert read(tmp_path / "stream", tmp_path / "cache")["row"] == list(range(37))


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_stored_maps(kind):
    values = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
    values[2, 3] = 0
    for size in (1e-9, 1.0, 1e6):
        stored, scale = store_map(values * np.float32(size), kind)
        found = restore_map(stored.tolist(), scale)
        assert stored.dtype == kind and found[2, 3] == 0
        bound = {"float16": 2**-11, "int8": 1 / 254}[kind] * 1.01
        assert np.abs(found / size - values).max() <= bound * np.abs(values).max()
    assert store_map(np.zeros((2, 2), np.float32), kind)[1] == 1.0


def test_wrong_calls(image_model, text_model, images, texts, tmp_path):
    unmasked = AutoTokenizer.from_pretrained(MINILM)
    unmasked.mask_token = None
    for model, data, options, words in (
        (image_model, images, {"target": 4}, "target must be None or a class index in [0, 3], got 4"),
        (image_model, images, {"target": "all"}, "target must be None or a class index"),
        (
            image_model,
            images,
            {"target": 1, "target_column": "kind"},
            "target=1 and target_column='kind' exclude each other",
        ),
        (image_model, images, {"column": "photo"}, "column='photo' must be a column of the data: picture, name, kind"),
        (image_model, images, {"words": True}, "words=True needs texts"),
        (image_model, images, {"rollout": True}, "rollout must be False"),
        (text_model, texts, {"refine": -1}, "refine must be at least 1 pass"),
        (
            text_model,
            texts,
            {"refine": 1, "mask_token_id": 10**6},
            ".*got mask_token_id=1000000. Pass",
        ),
        (
            text_model,
            texts,
            {"refine": 1, "mask_token_id": "x"},
            ".*got mask_token_id='x'. Pass",
        ),
        (image_model, images, {"refine": 1, "mask_token_id": 3}, "mask_token_id stands for a word"),
        (
            (text_model[0], unmasked),
            texts,
            {"refine": 2},
            "refine=2 of texts needs a mask token, which",
        ),
        (text_model, texts, {"overlays": True}, "overlays=True needs images"),
        (text_model, texts, {"map_dtype": "uint4"}, "map_dtype must be one of 'float16', 'int8'"),
        (text_model, texts, {"batch_size": 0}, "batch_size must be an int of at least 1"),
        (text_model, texts, {"engine": "dask"}, "engine must be None or one of 'ray', 'spark', got 'dask'"),
        (text_model, texts, {"engine": "ray", "workers": 0}, "workers must be an int of at least 1, got 0"),
        (text_model, texts, {"workers": 2}, "workers=2 needs an engine; name one of 'ray', 'spark'"),
        (text_model, texts.to_iterable_dataset(), {"engine": "ray"}, "engine='ray' needs data whose rows are read by"),
        (text_model, texts, {"contrast": "worst"}, "contrast must be None"),
        (text_model, texts, {"blocks": [9]}, "blocks must lie in [-6, 5]"),
        (text_model, texts.select([]), {}, "data must hold at least one row"),
        (
            text_model,
            texts.rename_columns({"text": "a", "id": "b"}),
            {},
            "column must name the column of texts, one of b, a",
        ),
    ):
        with pytest.raises(ValueError, match="^" + words.replace("[", r"\[")):
            explain(model, data, tmp_path / "new", **options)
    for name, words in (("normalize", "'normalize' is no argument"), ("contrats", "did you mean 'contrast'")):
        with pytest.raises(TypeError, match=words):
            explain(text_model, texts, tmp_path / "new", **{name: "mean"})
    called = texts.rename_columns({"text": "sentence"})
    for rows in (list(called), iter(called), called.to_iterable_dataset()):
        with pytest.raises(ValueError, match="column='txt' must be a column of the data: id, sentence"):
            explain(text_model, rows, tmp_path / "new", column="txt")
    with pytest.raises(ValueError, match=r"data must be one split, got 'train'; give data\['train'\]"):
        explain(text_model, DatasetDict(train=texts), tmp_path / "new")
    for wrong, words in (
        (["good phone"], r"data must hold rows as dicts, got str as the first; of texts for example \[\{'text'"),
        ("texts.csv", "data must hold rows, got the name 'texts.csv'"),
        ({"text": ["good phone"]}, "data must hold rows, got a dict of 'text'; datasets.Dataset.from_dict"),
        (3, "data must be a data set, a data frame or an iterable of dicts, got int"),
    ):
        with pytest.raises(TypeError, match=words):
            explain(text_model, wrong, tmp_path / "new")
    explain(text_model, texts, tmp_path / "begun")
    with pytest.raises(ValueError, match=r"was begun with \{'contrast': None\}, not \{'contrast': 'mean'\}"):
        explain(text_model, texts, tmp_path / "begun", contrast="mean")
    assert json.loads((tmp_path / "begun" / "settings.json").read_text())["rows"] == 37


@pytest.mark.parametrize(("engine", "module"), [("ray", "ray"), ("spark", "pyspark")])
def test_an_engine_that_is_not_installed(text_model, texts, tmp_path, monkeypatch, engine, module):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{module} is not installed; pip install 'hf-mhex\[engines\]'"):
        explain(text_model, texts, tmp_path, engine=engine)


def test_what_a_killed_writer_left_is_removed(text_model, texts, tmp_path):
    (tmp_path / "shard-000000.parquet.0.part").write_bytes(b"half")
    explain(text_model, texts, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settings.json", "shard-000000.parquet"]


def test_a_folder_of_photographs_is_explained_by_their_paths(image_model, tmp_path):
    for name in ("a/one.png", "a/two.png", "b/three.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(png(0)["bytes"])
    (tmp_path / "photos" / "b" / "three.png").write_bytes(b"no image")
    explain(image_model, open_data(tmp_path / "photos"), tmp_path / "found", overlays=True)
    rows = read(tmp_path / "found", tmp_path / "cache")
    assert rows["id"] == ["a/one.png", "a/two.png", "b/three.png"]
    assert [bool(error) for error in rows["error"]] == [False, False, True] and "three.png" in rows["error"][2]
    first, second = (Pillow.open(tmp_path / f"found/overlays/000000/00000000{row}.png") for row in (0, 1))
    assert first.tobytes() != second.tobytes()  # the same picture under another heading


@pytest.mark.parametrize("side", ["left", "right"])
def test_maps_stand_at_their_tokens_on_any_side_of_the_padding(text_model, texts, tmp_path, side):
    model, tokenizer = text_model
    tokenizer = AutoTokenizer.from_pretrained(MINILM, padding_side=side)
    explain((model, tokenizer), texts, tmp_path / side, batch_size=8, words=True)
    for row, text in zip(read(tmp_path / side, tmp_path / "cache"), texts["text"]):
        expected = model.generate_saliency(**tokenizer(text, return_tensors="pt")).saliency[0].numpy()
        found = restore_map(row["map"], row["map_scale"])
        assert np.abs(found - expected).max() <= 2**-11 * max(1, np.abs(expected).max())
        assert row["words"] == text.split()


def test_a_run_goes_on_only_with_what_it_began_with(text_model, texts, tmp_path):
    model = text_model[0]
    explain(text_model, texts, tmp_path)
    others = texts.map(lambda row: {"text": row["text"].replace("good", "bad")})
    with pytest.raises(ValueError, match="was begun with {'data': "):
        explain(text_model, others, tmp_path)
    model.config.head_decay, before = 0.25, model.config.head_decay
    try:
        with pytest.raises(ValueError, match=r"was begun with {'head_decay': .*}, not {'head_decay': 0.25}"):
            explain(text_model, texts, tmp_path)
    finally:
        model.config.head_decay = before
    for name, other in (("rectified", True), ("hidden_act", "relu"), ("layer_norm_eps", 1e-3)):
        before = getattr(model.config, name)
        setattr(model.config, name, other)
        try:
            with pytest.raises(
                ValueError, match=f"was begun with {{'{name}': {before!r}}}, not {{'{name}': {other!r}}}"
            ):
                explain(text_model, texts, tmp_path)
        finally:
            setattr(model.config, name, before)
    model.heads[0].weight.data.mul_(2)
    try:
        with pytest.raises(ValueError, match="was begun with {'weights': "):
            explain(text_model, texts, tmp_path)
    finally:
        model.heads[0].weight.data.div_(2)
    with pytest.raises(ValueError, match="was begun with {'processor': "):
        explain((model, AutoTokenizer.from_pretrained(MINILM, do_lower_case=False)), texts, tmp_path)
    explain(text_model, texts, tmp_path)


@pytest.mark.parametrize("how", [None, "torch", "numpy"])
def test_other_numbers_are_other_data(tmp_path, how):
    """Long rows that begin and end alike, as signals with quiet edges and pictures with borders do."""
    model = lively("signal", torch.float32)
    processor = MHEXSignalFeatureExtractor(num_channels=model.config.num_channels)
    one = np.zeros((2, model.config.num_channels, 700), np.float32)
    other = one.copy()
    one[..., 300:320], other[..., 300:320] = 1, 2
    one, other = (Dataset.from_dict({"signal": rows.tolist()}).with_format(how) for rows in (one, other))
    explain((model, processor), one, tmp_path)
    explain((model, processor), one, tmp_path)
    with pytest.raises(ValueError, match="was begun with {'data': "):
        explain((model, processor), other, tmp_path)


def test_a_folder_of_before_a_field_was_kept_goes_on(text_model, texts, tmp_path):
    explain(text_model, texts, tmp_path)
    path = tmp_path / "settings.json"
    kept = json.loads(path.read_text())
    assert {"rectified", "num_attention_heads"} <= kept.keys() and "label_smoothing" not in kept
    older = {name: value for name, value in kept.items() if name != "rectified"}
    path.write_text(json.dumps(older))
    assert explain(text_model, texts, tmp_path).rows == len(texts)
    assert json.loads(path.read_text()) == older


def test_signals_go_on_on_the_axis_that_they_began_with(tmp_path):
    signals = np.random.default_rng(0).normal(size=(3, 61)).astype(np.float32)
    places = np.linspace(400, 1000, 61)
    model = lively("signal", torch.float32, axis=places.tolist())
    pair, rows = (model, MHEXSignalFeatureExtractor().fit(signals)), [{"signal": signal} for signal in signals]
    explain(pair, rows, tmp_path)
    model.config.axis = (places + 1).tolist()
    with pytest.raises(
        ValueError, match=r"was begun with {'axis': \[400.0, .* \.\.\.}, not {'axis': \[401.0, "
    ) as error:
        explain(pair, rows, tmp_path)
    assert len(str(error.value)) < 500


def test_a_tokenizer_in_use_is_the_same_processor(text_model, texts, tmp_path):
    """Whatever it was asked for last: a run in the same process goes on."""
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    pair = (text_model[0], tokenizer)
    explain(pair, texts, tmp_path, rows_per_shard=64)
    tokenizer(["a text"], padding="max_length", truncation=True, max_length=9)
    assert explain(pair, texts, tmp_path, rows_per_shard=64).rows == len(texts)
    tokenizer.model_max_length = 7
    with pytest.raises(ValueError, match="processor"):
        explain(pair, texts, tmp_path, rows_per_shard=64)
