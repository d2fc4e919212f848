"""Files and folders as people have them are read alike by training, evaluating and explaining, or refused by name."""

import csv
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_mhex.data.batches import rows_for
from hf_mhex.data.opening import open_splits
from hf_mhex.data.rows import read_data, read_splits
from hf_mhex.data.settings import DataSettings
from hf_mhex.data.source import RowSource, open_data
from hf_mhex.families import KINDS
from hub_models import save_image_model
from schemas import write_idx, write_image_folder, write_medmnist

SINGLE = "single_label_classification"
ROWS = [("café, très bon", "good"), ("ça « va », 12 €", "bad")] * 10


def write_table(path, separator=",", encoding="utf-8", rows=ROWS):
    quoted = [f'"{text}"{separator}{label}' for text, label in rows]
    path.write_bytes("\n".join([f"text{separator}label", *quoted, ""]).encode(encoding))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_tables_are_read_alike_everywhere(tmp_path, suffix, separator, encoding):
    path = write_table(tmp_path / f"rows{suffix}", separator, encoding)
    texts = [text for text, _ in ROWS]
    explained = open_data(path)
    assert explained["text"][:] == texts
    [trained] = read_splits(DataSettings(source=str(path)), "text").values()
    assert [parts for [parts] in trained.inputs] == texts and trained.labels == [label for _, label in ROWS]
    streamed = open_data(path, streaming=True)
    assert [row["text"] for row in streamed] == texts


def test_a_folder_of_tables_is_read_as_its_files_are(tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("train", "test"):
        write_table(tmp_path / "rows" / f"{name}.csv", ";", "cp1252")
    assert open_data(tmp_path / "rows", "test")["text"][:] == [text for text, _ in ROWS]
    write_table(tmp_path / "rows" / "test.csv", ",")
    with pytest.raises(ValueError, match="must be separated and encoded as"):
        open_data(tmp_path / "rows", "test")


def splits_in(folder, names):
    """Which file's rows each split has, of tables that hold their own names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text,label\n{name},a\n" if name.endswith("csv") else f'{{"text": "{name}"}}\n')
    return {split: rows["text"][:] for split, rows in open_splits(DataSettings(source=str(folder))).items()}


@pytest.mark.parametrize("end", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "train, test",
    [
        ("Train", "Test"),
        ("TRAINING", "testing"),
        ("mytrain", "mytest"),
        ("trainset", "testset"),
        ("reviews-Train-2020", "reviews-Test-2020"),
        ("ReviewsTrain", "ReviewsTest"),
        ("Train/part1", "Test/part1"),
        ("train", "eval"),
    ],
)
def test_tables_are_told_to_splits_by_their_names(tmp_path, train, test, end):
    names = [f"{train}.{end}", f"{test}.{end}"]
    assert splits_in(tmp_path / "rows", names) == {"train": names[:1], "test": names[1:]}


def test_tables_whose_names_tell_no_split_are_one(tmp_path):
    names = ["2019.csv", "latest.csv", "older.csv"]
    assert splits_in(tmp_path / "rows", names) == {"train": names}
    words = r"files whose names tell a split \(Test.csv\) and others \(2019.csv, latest.csv, older.csv\); rename these"
    with pytest.raises(ValueError, match=words):
        splits_in(tmp_path / "rows", ["Test.csv"])


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_lines_in_other_encodings(tmp_path, suffix):
    line = "é bon" if suffix == ".txt" else '{"text": "é bon"}'
    (tmp_path / f"rows{suffix}").write_bytes(f"{line}\n{line}\n".encode("cp1252"))
    assert open_data(tmp_path / f"rows{suffix}")["text"][:] == ["é bon"] * 2


BROKEN = [
    (b"text,label\na,x\nb\x81d,y\n", "no text in UTF-8 or cp1252: see line 3, byte 2"),
    ("text,label\né,x\n".encode() + b"b\xe9d,y\n", "no text in UTF-8 or cp1252: see line 3, byte 2"),
    (b"text,label\na\0,x\n", "no text in UTF-8 or cp1252: see line 2, byte 2"),
    (
        b"text,label\na,x\nwell, no,y\n",
        "line 3: 3 fields separated by ',', but the first line has 2",
    ),
    (b"text\nhello\nwell, no\n", "line 3: 2 fields separated by ',', but the first line has 1"),
    (b"a,b;c\n1,2;3\n", "line 1: its columns are separated by ',' or ';'"),
]


@pytest.mark.parametrize("content, words", BROKEN)
def test_a_table_that_cannot_be_told_is_refused_in_a_line(tmp_path, content, words):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)) as found:
        open_data(tmp_path / "rows.csv")
    assert "rows.csv" in str(found.value) and "\n" not in str(found.value)


def unclosed(separator, ends, before="", names="text{}label"):
    """60 rows, of which a text opens a quote that is closed 40 rows later, or never by itself."""
    rows = [f"{before}a text {row}{separator}{'good' if row % 2 else 'bad'}" for row in range(60)]
    rows[9] = rows[9].replace("a text", '"a text')
    rows[50] = ends(rows[50])
    return "\n".join([names.format(separator), *rows, ""])


ENDS = {
    "at the end of a text": lambda row: row.replace("text 50", 'text 50"'),
    "before a text": lambda row: row.replace("a text", '"a text') + '"',
    "within a text": lambda row: row.replace("text", 'text 5" long'),
}


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("ends", ENDS)
def test_a_quote_that_swallows_rows_is_refused(tmp_path, separator, ends):
    """20 of 60 rows were read, without a word."""
    path = tmp_path / "rows.tsv"
    path.write_text(unclosed(separator, ENDS[ends]))
    with pytest.raises(ValueError, match=r"rows.tsv, line 11: a quote is opened that is not closed in its row"):
        open_data(path)
    path.write_text(unclosed(separator, ENDS[ends], f"7{separator}", f"id{separator}text{{}}label"))
    with pytest.raises(ValueError, match="rows.tsv, line 11: a quote"):
        open_data(path)


def test_a_quote_that_swallows_one_row_is_refused(tmp_path):
    rows = [f"a text {row}\t{row / 7}" for row in range(20)]
    rows[4], rows[5] = '"' + rows[4], rows[5].replace("text 5", 'text 5"')
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tprice", *rows, ""]))
    with pytest.raises(ValueError, match="rows.tsv, line 6: a quote"):
        open_data(tmp_path / "rows.tsv")


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_texts_of_several_lines_are_read(tmp_path, separator):
    """Also with separators, quotes and labels in them, and with as many fields a line as the table has."""
    texts = [
        "Dear all,\nall is well, so far\nbye",
        'He said "no",\nand went',
        f"a{separator} b\nc{separator} d\ne",
        "\n",
        '5" screen',
    ]
    rows = [(text, "good" if row % 2 else "bad") for row, text in enumerate(texts * 6)]
    with open(tmp_path / "rows.csv", "w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([("text", "label"), *rows])
    found = open_data(tmp_path / "rows.csv")
    assert list(zip(found["text"], found["label"])) == rows


def test_a_text_of_any_length_stands_in_a_table(tmp_path):
    """Also beyond the limit of Python's own reader, which is the process's and stays."""
    limit, long = csv.field_size_limit(), "so, good " * 20_000
    path = write_table(tmp_path / "rows.csv", ";", rows=[(long, "good"), *ROWS])
    assert open_data(path)["text"][0] == long and csv.field_size_limit() == limit


def test_a_broken_file_late_in_a_table_or_of_json_is_named(tmp_path):
    rows = ["text,label", *["a,b"] * 3000, "a,b,c"]
    (tmp_path / "late.csv").write_text("\n".join(rows))
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": \n')
    for name in ("late.csv", "rows.jsonl"):
        with pytest.raises(ValueError, match=f"{name} cannot be read: ") as found:
            open_data(tmp_path / name)
        assert "\n" not in str(found.value)


def test_images_are_called_by_their_paths(tmp_path):
    folder = write_image_folder(tmp_path / "images", rows=6)
    rows = open_data(folder, "train")
    assert rows["id"][0] == "train/class_0/0.png" and rows.features["label"].names == ["class_0", "class_1", "class_2"]
    [(_, first)] = RowSource(rows, KINDS["image"], 10).shards(lambda shard: True)
    assert [row.id for row in first][:2] == ["train/class_0/0.png", "train/class_0/3.png"]
    (folder / "train" / "class_1" / "1.png").write_bytes(b"no image")
    words = r"the first is row 2 \(train/class_1/1.png\), corrupt image: .*1.png is no image that can be read"
    with pytest.raises(ValueError, match=words):
        read_data(DataSettings(source=str(folder)), "image", SINGLE)
    unseen = read_data(DataSettings(source=str(folder), check_images=False, test_fraction=0.5), "image", SINGLE)
    with pytest.raises(ValueError, match=r"row 2 \(train/class_1/1.png\) has a corrupt image"):
        [part[row] for part in (unseen.train, unseen.test) for row in range(len(part))]


def test_strays_beside_class_folders_are_named(tmp_path):
    folder = write_image_folder(tmp_path, rows=6, splits=("train",)) / "train"
    Image.new("RGB", (8, 8)).save(folder / "stray.png")
    (folder / "notes.txt").write_text("to do")
    (folder / ".DS_Store").write_text("")
    with pytest.warns(UserWarning, match="left out, no images of it, 1 file: notes.txt"):
        assert len(open_data(folder)) == 7
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r"1 with missing label; the first is row 6 \(stray.png\)"),
    ):
        read_data(DataSettings(source=str(folder)), "image", SINGLE)
    album = tmp_path / "album"
    album.mkdir()
    (folder / "stray.png").rename(album / "alone.png")
    assert open_data(album)[0]["id"] == "alone.png" and "label" not in open_data(album).features


def test_names_of_splits_may_have_capitals(tmp_path):
    folder = write_image_folder(tmp_path, rows=3, splits=("Training", "Testing", "VAL"))
    found = open_splits(DataSettings(source=str(folder)))
    assert set(found) == {"train", "test", "validation"}
    assert found["test"]["id"][0] == "Testing/class_0/0.png"
    assert all(rows.features["label"].names == ["class_0", "class_1", "class_2"] for rows in found.values())


def test_splits_are_no_classes(tmp_path):
    """Another folder beside those of splits is named; a class may be called train where no classes stand in it."""
    folder = write_image_folder(tmp_path / "images", rows=3, splits=("Train", "test", "chest_xray"))
    words = r"has folders of splits \(Train, test\) and beside them 'chest_xray'; move these away, or name the folder"
    with pytest.raises(ValueError, match=words) as found:
        open_data(folder, "train")
    assert "\n" not in str(found.value)
    vehicles = tmp_path / "vehicles"
    for name in ("train", "car"):
        (vehicles / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(vehicles / name / "0.png")
    assert open_data(vehicles).features["label"].names == ["car", "train"]


@pytest.mark.parametrize("path", [None, "0.png"])
def test_images_within_data_files_have_no_paths(tmp_path, path):
    data = next(write_image_folder(tmp_path / "images", rows=1).rglob("*.png")).read_bytes()
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    features = Features({"image": ImageFeature(), "label": Value("int64")})
    rows = Dataset.from_dict({"image": [{"bytes": data, "path": path}] * 3, "label": [0, 1, 0]}, features)
    rows.to_parquet(folder / "data" / "train-00000.parquet")
    (folder / "logo.png").write_bytes(data)
    found = open_data(folder, "train")
    assert len(found) == 3 and found.column_names == ["image", "label"] and found[0]["image"].size == (40, 40)


def test_images_with_metadata_keep_their_paths(tmp_path):
    folder = write_image_folder(tmp_path / "images", rows=4, splits=("train",)) / "train"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    (folder / "metadata.csv").write_text("file_name,mark\n" + "".join(f"{name},{name[6]}\n" for name in names))
    rows = open_data(folder)
    assert rows["id"][:] == names and [str(mark) for mark in rows["mark"]] == [name[6] for name in names]


@pytest.mark.parametrize("write", [write_idx, lambda path: write_medmnist(path.with_suffix(".npz"), 4, colour=False)])
def test_files_of_arrays_are_explained_as_they_are_trained_on(tmp_path, write):
    path = write(tmp_path / "arrays")
    data = read_data(DataSettings(source=str(path)), "image", SINGLE)
    source = RowSource(open_data(path, "test"), KINDS["image"], 100, target_column="label")
    [(_, rows)] = source.shards(lambda shard: True)
    for row, other in zip(rows, (data.test[place] for place in range(5))):
        assert np.array_equal(row.value, np.asarray(other["image"])) and row.target == other["labels"]


def test_rows_of_data_are_told_apart(tmp_path):
    found = set()
    for rows in (ROWS, ROWS[:-1] + [("another", "bad")]):
        path = write_table(tmp_path / "rows.csv", rows=rows)
        found.add(RowSource(open_data(path), KINDS["text"], 8).fingerprint())
        stream = RowSource(iter(open_data(path)), KINDS["text"], 8)
        assert stream.fingerprint() == RowSource(iter(open_data(path)), KINDS["text"], 8).fingerprint()
        assert [row.number for _, shard in stream.shards(lambda shard: True) for row in shard] == list(range(20))
    assert len(found) == 2


def test_rows_that_ask_for_other_labels_are_told_apart():
    """The same numbers, but another label's where the source names them otherwise."""
    prints = set()
    for names in (["bad", "good"], ["good", "bad"], ["bad", "other"]):
        features = Features({"text": Value("string"), "mark": ClassLabel(names=names)})
        data = Dataset.from_dict({"text": ["a", "b"], "mark": [0, 1]}, features)
        prints.add(RowSource(data, KINDS["text"], 8, target_column="mark", labels=("bad", "good")).fingerprint())
    assert len(prints) == 3


def test_a_saved_model_is_judged_on_any_source(tmp_path):
    from hf_mhex import load

    save_image_model(tmp_path / "model", tmp_path / "pictures")
    model, processor = load(tmp_path / "model")
    folder = write_image_folder(tmp_path / "images", rows=6, splits=("test",))
    for number, name in ((2, "a"), (0, "b"), (1, "c")):  # the source's order of names is another one
        (folder / "test" / f"class_{number}").rename(folder / "test" / f"{name}")
    batches, skipped = rows_for(model, processor, DataSettings(source=str(folder)), None, 4)
    batches = list(batches)
    assert [batch["pixel_values"].shape[0] for batch in batches] == [4, 2] and not skipped
    assert batches[0]["labels"].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="split must be one of test"):
        rows_for(model, processor, DataSettings(source=str(folder)), "exam", 4)
    with pytest.raises(ValueError, match="the model's labels .* are not those of the recipe"):
        rows_for(model, processor, DataSettings(source="sample:fashion_mnist"), "test", 4, SINGLE)


class Judged:
    """What `rows_for` asks of a model and a tokenizer."""

    main_input_name, model_max_length = "input_ids", 8

    def __init__(self, names, problem_type):
        id2label = dict(enumerate(names))
        self.config = SimpleNamespace(id2label=id2label, num_labels=len(names), problem_type=problem_type)

    def __call__(self, texts, **options):
        return {"input_ids": torch.zeros(len(texts), 1)}


def labels_as_judged(names, source, problem_type=SINGLE, **settings):
    model = Judged(names, problem_type)
    batches, _ = rows_for(model, model, DataSettings(source=str(source), **settings), None, 100)
    return next(batches)["labels"].tolist()


def several(path, columns="insult,toxic"):
    path.write_text(f"text,{columns}\na,1,0\nb,1,0\nc,0,1\n")
    return path


MULTI, REGRESSION = "multi_label_classification", "regression"


@pytest.mark.parametrize("problem_type", [MULTI, REGRESSION])
def test_columns_of_labels_are_judged_by_name(tmp_path, problem_type):
    path, columns = several(tmp_path / "rows.csv"), ["insult", "toxic"]

    def judged(names, **settings):
        return labels_as_judged(names, path, problem_type, label_columns=columns, **settings)

    assert judged(["toxic", "insult"]) == judged(["Toxic", "INSULT"]) == [[0, 1], [0, 1], [1, 0]]
    assert judged(["insult", "toxic"]) == judged(["LABEL_0", "LABEL_1"]) == [[1, 0], [1, 0], [0, 1]]
    assert judged(["rude", "bad"], label_names=["bad", "rude"]) == [[0, 1], [0, 1], [1, 0]]
    for names, cure in ((["toxic", "rude"], "label_columns"), (["toxic"] + columns[:1] + ["rude"], "label_columns")):
        with pytest.raises(ValueError, match=f"labels insult, toxic are not the model's .*rude.*; name .* by {cure}"):
            judged(names)
    with pytest.raises(
        ValueError, match=r"are not the model's \(rude, bad\); say what the model calls .* by label_names"
    ):
        judged(["rude", "bad"])


def test_lists_of_named_labels_are_judged_by_name(tmp_path):
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["insult", "toxic"]))})
    Dataset.from_dict({"text": ["a", "b", "c"], "labels": [[0], [0, 1], []]}, features).save_to_disk(tmp_path / "rows")
    assert labels_as_judged(["toxic", "insult"], tmp_path / "rows", MULTI) == [[0, 1], [1, 1], [0, 0]]


def named(path, names=("healthy", "pneumonia_xray")):
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 1]}, features).save_to_disk(path)
    return path


def test_labels_of_other_names_are_not_judged_by_their_numbers(tmp_path):
    path, names = named(tmp_path / "rows"), ["Pneumonia", "Normal"]
    words = r"labels healthy, pneumonia_xray are not the model's \(Pneumonia, Normal\); say what stands .* label_values"
    with pytest.raises(ValueError, match=words):
        labels_as_judged(names, path)
    for settings in ({"label_values": ["pneumonia_xray", "healthy"]}, {"label_values": ["1", "0"]}):
        assert labels_as_judged(names, path, **settings) == [1, 0, 0]
    assert labels_as_judged(names, path, label_names=["normal", "pneumonia"]) == [1, 0, 0]
    assert labels_as_judged(["PNEUMONIA_XRAY", "Healthy"], path) == [1, 0, 0]
    assert labels_as_judged(["LABEL_0", "LABEL_1"], path) == labels_as_judged(["0", "1"], path) == [0, 1, 1]
    assert labels_as_judged(names, named(tmp_path / "numbers", ("0", "1"))) == [0, 1, 1]


def test_numbers_that_a_setting_names_are_judged_by_name(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\na,0\nb,1\nc,1\n")
    names = {"label_names": ["normal", "pneumonia"]}
    assert labels_as_judged(["pneumonia", "normal"], tmp_path / "rows.csv") == [0, 1, 1]
    assert labels_as_judged(["pneumonia", "normal"], tmp_path / "rows.csv", **names) == [1, 0, 0]
    values = {"label_values": ["1", "0"]}
    assert labels_as_judged(["pneumonia", "normal"], tmp_path / "rows.csv", **names, **values) == [0, 1, 1]
    with pytest.raises(ValueError, match="label_values must be as many as data.label_names, got 1 for 2"):
        labels_as_judged(["pneumonia", "normal"], tmp_path / "rows.csv", **names, label_values=["1"])


@pytest.mark.parametrize("names", [["True", "False"], ["False", "True"], ["Pos", "Neg"]])
def test_true_and_false_are_judged_as_they_are_called(tmp_path, names):
    (tmp_path / "rows.csv").write_text("text,label\na,True\nb,False\nc,False\n")
    given = {"label_names": ["Neg", "Pos"] if "Pos" in names else ["False", "True"]}
    settings = [given] if "Pos" in names else [given, {}, {"label_names": ["True", "False"]}]
    for one in settings:
        found = labels_as_judged(names, tmp_path / "rows.csv", **one)
        assert [names[k] in ("True", "Pos") for k in found] == [True, False, False]


def test_a_split_that_must_be_named_is_asked_for(tmp_path):
    folder = write_image_folder(tmp_path, rows=4, splits=("train", "test"))
    with pytest.raises(
        ValueError, match="has the splits '.*': name the one to read by split, .* by --split t"
    ) as error:
        open_data(folder)
    assert "'train'" in str(error.value) and "'test'" in str(error.value) and "None" not in str(error.value)
    with pytest.raises(ValueError, match="split must be one of .*, got 'exam'"):
        open_data(folder, "exam")
