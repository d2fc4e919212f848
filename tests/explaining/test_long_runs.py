"""A run that was killed goes on to the rows of an undisturbed one, and memory is flat; by the command line."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

import hf_mhex
from hf_mhex.explaining.shards import restore_map
from minilm import MINILM
from networks import lively_bert, lively_resnet

pytestmark = pytest.mark.slow
ROWS = 10_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small image model, a small text model, and 10,000 rows for each."""
    folder = tmp_path_factory.mktemp("scale")
    model = lively_resnet(torch.float32)
    model.save_pretrained(folder / "image")
    hf_mhex.image_processor_for(model.config, image_size=32).save_pretrained(folder / "image")
    pictures = hf_mhex.load_sample("fashion_mnist")["train"]
    pictures = pictures.select(np.arange(ROWS) % len(pictures)).add_column("id", [f"i{row}" for row in range(ROWS)])
    pictures.to_parquet(folder / "images.parquet")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    lively_bert(torch.float32, vocab_size=len(tokenizer), max_position_embeddings=64).save_pretrained(folder / "text")
    tokenizer.save_pretrained(folder / "text")
    reviews = hf_mhex.load_sample("product_reviews")["train"]
    texts = [reviews[row % len(reviews)]["text"] for row in range(ROWS)]
    Dataset.from_dict({"id": [f"t{row}" for row in range(ROWS)], "text": texts}).to_parquet(folder / "texts.parquet")
    return folder


def command(folder, kind, output):
    arguments = [
        "-m",
        "hf_mhex.cli",
        "explain",
        folder / kind,
        folder / f"{kind}s.parquet",
        "--output",
        folder / output,
    ]
    start = [sys.executable, *map(str, arguments), "--json"]
    return start, dict(os.environ, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")


def run(*args):
    start, environment = command(*args)
    done = subprocess.run(start, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def read(folder):
    return [row for path in sorted(folder.glob("shard-*.parquet")) for row in pq.read_table(path).to_pylist()]


def assert_same_rows(found, expected):
    assert [row["row"] for row in found] == list(range(ROWS))
    for one, two in zip(found, expected, strict=True):
        assert (one["id"], one["target"], one["error"]) == (two["id"], two["target"], two["error"])
        maps = [restore_map(row["map"], row["map_scale"]) for row in (one, two)]
        assert np.abs(maps[0] - maps[1]).max() <= 1e-5 and abs(one["explained"] - two["explained"]) <= 1e-5


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_kill_changes_no_row(folder, kind):
    found, progress = run(folder, kind, f"{kind}-one")
    assert (found["rows"], found["bad"], found["shards"]) == (ROWS, 0, 20)
    assert "explaining" in progress and "row/s" not in progress  # a bar is for terminals
    expected = read(folder / f"{kind}-one")
    start, environment = command(folder, kind, f"{kind}-killed")
    output = folder / f"{kind}-killed"
    with subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list(output.glob("shard-*.parquet"))) < 3:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    there = {path.name: path.stat().st_mtime_ns for path in output.glob("shard-*.parquet")}
    assert 3 <= len(there) < 20
    run(folder, kind, f"{kind}-killed")
    assert_same_rows(read(output), expected)
    assert all((output / name).stat().st_mtime_ns == when for name, when in there.items())
    assert not list(output.glob("*.part"))


MEMORY = """
import json, sys
import hf_mhex
from hf_mhex.explaining import shards
from hf_mhex.data.source import open_data

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

seen, close = [], shards.ShardWriter.close
def watched(writer):
    close(writer)
    seen.append(resident())
shards.ShardWriter.close = watched
model, processor = hf_mhex.load(sys.argv[1])
hf_mhex.explain_dataset(model, processor, open_data(sys.argv[2], streaming=len(sys.argv) > 4), sys.argv[3],
                        rows_per_shard=500, progress=False)
print(json.dumps(seen))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="resident memory is read from Linux's /proc")
@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("streaming", [False, True])
def test_memory_is_flat_from_1000_rows_on(folder, kind, streaming):
    arguments = [folder / kind, folder / f"{kind}s.parquet", folder / f"{kind}-memory-{streaming}"]
    start = [sys.executable, "-c", MEMORY, *map(str, arguments), *(["streaming"] if streaming else [])]
    environment = dict(os.environ, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", MALLOC_ARENA_MAX="2")
    done = subprocess.run(start, env=environment, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen) == 20
    assert max(seen[2:]) - seen[1] < 30e6, [round(value / 1e6) for value in seen]
