"""datasets, Ray Data and Spark give the rows of the serial run: none twice, none missing, also after a kill."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

import hf_mhex
from hf_mhex import Explainer
from hf_mhex.explaining.shards import restore_map
from hub_models import SENTENCES, save_image_model, save_text_model
from killing import KilledBert, KilledExplainer, KilledResNet

pytest.importorskip("ray", reason="extra engines")
pytest.importorskip("pyspark", reason="extra engines")
pytestmark = pytest.mark.slow
ROWS, BATCH = 40, 6
KINDS = ("image", "text")
BAD = {"image": 5, "text": 10}
SUPPORT = str(Path(__file__).parents[1] / "support")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small models, and the rows of each: every seventh is bad."""
    folder = tmp_path_factory.mktemp("engines")
    paths, _ = save_image_model(folder / "image", folder / "pictures")
    save_text_model(folder / "text")
    (folder / "broken.png").write_bytes(b"no")
    images, texts = [*paths, str(folder / "broken.png")], [*SENTENCES, "", None]
    for kind, items in (("image", images), ("text", texts)):
        rows = [{"number": row, kind: items[row % len(items)]} for row in range(ROWS)]
        (folder / f"{kind}.json").write_text(json.dumps(rows))
    return folder


def rows_of(folder, kind):
    return json.loads((folder / f"{kind}.json").read_text())


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.fixture(scope="module")
def expected(folder):
    """What one process says, by the kind."""
    found = {}
    for kind in KINDS:
        explainer, rows = Explainer(str(folder / kind)), rows_of(folder, kind)
        batches = [explainer(columns(rows[start : start + BATCH])) for start in range(0, ROWS, BATCH)]
        found[kind] = [
            {name: batch[name][row] for name in batch} for batch in batches for row in range(len(batch["number"]))
        ]
        assert sum(bool(row["error"]) for row in found[kind]) == BAD[kind]
    return found


@pytest.fixture(scope="module")
def of_workers():
    """Where workers find the tests' modules, and no network."""
    given = {"PYTHONPATH": SUPPORT, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    given["RAY_worker_niceness"] = "0"  # at Ray's 15 workers starve beside other tests
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def ray(of_workers):
    import ray
    import ray.data

    ray.init(address="local", num_cpus=3, include_dashboard=False, _node_ip_address="127.0.0.1")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def spark(of_workers):
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    local = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")
    local = local.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    session = local.config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH).getOrCreate()
    yield session
    session.stop()


def assert_same_rows(found, expected):
    found = sorted(found, key=lambda row: row["number"])
    assert [row["number"] for row in found] == list(range(ROWS))
    for one, two in zip(found, expected, strict=True):
        assert set(one) == set(two) and (one["label"], one["error"]) == (two["label"], two["error"])
        for name in ("score", "logit", "explained"):
            number = float("nan") if one[name] is None else one[name]  # to Spark NaN is null
            assert number == pytest.approx(two[name], abs=1e-5, nan_ok=True)
        if not two["error"]:
            maps = [np.array([list(line) if np.ndim(line) else line for line in row["map"]]) for row in (one, two)]
            assert maps[0].shape == maps[1].shape and np.allclose(*maps, atol=1e-5)
        if "words" in two:
            assert list(one["words"]) == two["words"]
            assert list(one["word_scores"]) == pytest.approx(two["word_scores"], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_datasets(folder, expected, kind, of_workers, request):
    """Also where this process has used several threads, of which its forks have none."""
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)
    torch.randn(512, 512) @ torch.randn(512, 512)
    data = Dataset.from_list(rows_of(folder, kind))
    found = data.map(Explainer(str(folder / kind)), batched=True, batch_size=BATCH, num_proc=2)
    assert_same_rows(found.to_list(), expected[kind])


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_ray(folder, expected, ray, tmp_path, kind, killed):
    rows = ray.data.from_items(rows_of(folder, kind), override_num_blocks=5)
    given = {"fn_constructor_args": (str(folder / kind),), "batch_size": BATCH}
    given["compute"] = ray.data.ActorPoolStrategy(size=2)
    if killed:
        given["fn_constructor_args"] += (str(tmp_path / "killed"), ROWS // 2)
    found = rows.map_batches(KilledExplainer if killed else Explainer, **given).take_all()
    assert_same_rows(found, expected[kind])
    assert (tmp_path / "killed").exists() == killed


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_spark(folder, expected, spark, tmp_path, kind, killed):
    rows = spark.createDataFrame(
        [tuple(row.values()) for row in rows_of(folder, kind)], f"number long, {kind} string"
    ).repartition(5)
    explainer = Explainer(str(folder / kind))
    if killed:
        explainer = KilledExplainer(str(folder / kind), str(tmp_path / "killed"), ROWS // 2)
    found = rows.mapInPandas(explainer.map_frames, explainer.schema(rows.schema)).collect()
    assert_same_rows([row.asDict() for row in found], expected[kind])
    assert (tmp_path / "killed").exists() == killed


def read(folder):
    return [row for path in sorted(folder.glob("shard-*.parquet")) for row in pq.read_table(path).to_pylist()]


def assert_same_shards(found, expected):
    names = [sorted(path.name for path in folder.iterdir()) for folder in (found, expected)]
    assert names[0] == names[1] and len(names[0]) == 7  # six shards and the settings
    assert (found / "settings.json").read_bytes() == (expected / "settings.json").read_bytes()
    for one, two in zip(read(found), read(expected), strict=True):
        if two["error"] is None:
            maps = [restore_map(row.pop("map"), row.pop("map_scale")) for row in (one, two)]
            assert np.allclose(*maps, atol=1e-5)
            for name in ("logits", "score", "explained", "word_scores", "special"):
                if name in two:
                    assert one.pop(name) == pytest.approx(two.pop(name), abs=1e-5)
        assert one == two


@pytest.mark.parametrize("engine", ["ray", "spark"])
@pytest.mark.parametrize("kind", KINDS)
def test_shards_of_workers_of_whom_one_is_lost(folder, request, tmp_path, kind, engine):
    request.getfixturevalue(engine)
    model, processor = hf_mhex.load(folder / kind)
    data, options = Dataset.from_list(rows_of(folder, kind)), {"rows_per_shard": 7, "progress": False}
    hf_mhex.explain_dataset(model, processor, data, tmp_path / "one", **options)
    model.__class__ = KilledResNet if kind == "image" else KilledBert
    model.marker = str(tmp_path / "killed")
    found = hf_mhex.explain_dataset(model, processor, data, tmp_path / "two", engine=engine, workers=2, **options)
    assert (tmp_path / "killed").exists() and (found.shards, found.rows) == (6, ROWS)
    assert_same_shards(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_the_command(folder, tmp_path, of_workers, engine):
    start = [sys.executable, "-m", "hf_mhex.cli", "explain", folder / "text", folder / "text.json", "--json", "--words"]
    start += ["--rows-per-shard", 7, "--output"]
    environment = {name: value for name, value in os.environ.items() if name != "PYSPARK_PYTHON"}
    for options in ([tmp_path / "one"], [tmp_path / "two", "--engine", engine, "--workers", 2]):
        done = subprocess.run([*map(str, [*start, *options])], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        found = json.loads(done.stdout.splitlines()[-1])
        assert (found["shards"], found["rows"], found["bad"]) == (6, ROWS, BAD["text"])
    assert_same_shards(tmp_path / "two", tmp_path / "one")
