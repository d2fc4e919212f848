"""Throughput of explanations beside bare predictions in datasets, Ray Data and Spark, by one worker and by two.

    OMP_NUM_THREADS=1 python -m hf_mhex.training.studies.engines results/engines [--engines ray,spark] [--rounds 3]

needs the extras `engines` and `demo`. It adds a JSON line a run to `rows.jsonl` and makes `tables.md` of all lines; a
study that was cut short goes on where it stood. A run reads images (ResNet-18, 112 px) or texts (MiniLM), does its work
in batches of 16 with one thread a worker, and writes all columns to disk. Its rate is that of the batches that end
while every worker is at work: from when the last of them has ended its first batch, so that the loading of the model
does not count, until one has none left.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas
import pyarrow.dataset
import torch
from datasets import Dataset, Image, disable_progress_bars
from transformers import AutoTokenizer

from hf_mhex import Explainer, convert, image_processor_for, load, load_sample
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.data import Row
from hf_mhex.environment import environment, ran_on
from hf_mhex.explaining.batch import Prepared, batches_of, collate, prepare
from hf_mhex.training.models import minilm_folder
from hf_mhex.writing import write_whole

BATCH = 16
ROWS = {"image": 320, "text": 960}
WORKERS = (1, 2)


def stamped(found: dict, count: int) -> dict:
    """The columns with the process that made them and when it had."""
    return {**found, "worker": [os.getpid()] * count, "ended": [time.time()] * count}


class Explanations(Explainer):
    """Explanations of a batch, and when they were there."""

    def __call__(self, batch: dict) -> dict:
        return stamped(super().__call__(batch), len(batch["number"]))

    def schema(self, rows):
        return super().schema(rows).add("worker", "long").add("ended", "double")


class Predictions:
    """Labels of a batch by the same model, read and put into batches by the same code, and when they were there."""

    def __init__(self, source: str):
        self.source = source
        self.loaded: tuple | None = None

    def __call__(self, batch: dict) -> dict:
        self.loaded = self.loaded or load(self.source)
        model, processor = self.loaded
        column = "image" if "image" in batch else "text"
        rows = [Row(number, str(number), value) for number, value in enumerate(batch[column])]
        labels: dict[int, int] = {}
        ready = [item for item in prepare(rows, model, processor) if isinstance(item, Prepared)]
        for part in batches_of(ready, BATCH):
            with torch.no_grad():
                found = model(**collate(part, processor)).logits.argmax(-1)
            labels |= {item.row.number: int(label) for item, label in zip(part, found)}
        return stamped({**batch, "label": [labels[row.number] for row in rows]}, len(rows))

    def map_frames(self, frames: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        """As `Explainer.map_frames`."""
        for frame in frames:
            yield pandas.DataFrame(self({name: frame[name].tolist() for name in frame}))

    def schema(self, rows):
        """As `Explainer.schema`."""
        from pyspark.sql.types import StructType

        return StructType(list(rows.fields)).add("label", "long").add("worker", "long").add("ended", "double")


WORK = {"predictions": Predictions, "explanations": Explanations}


def on_datasets(kind: str, work: type, source: str, rows: list[dict], workers: int, output: str) -> None:
    """By `datasets.map`."""
    data = Dataset.from_list(rows).map(work(source), batched=True, batch_size=BATCH, num_proc=workers)
    data.to_parquet(f"{output}/rows.parquet")


def on_ray(kind: str, work: type, source: str, rows: list[dict], workers: int, output: str) -> None:
    """By Ray Data's actors."""
    import ray
    import ray.data

    if not ray.is_initialized():
        os.environ.update(RAY_worker_niceness="0")  # as the other engines' workers
        ray.init(
            address="local", num_cpus=max(WORKERS) + 1, include_dashboard=False, _node_ip_address="127.0.0.1",
            log_to_driver=False,
        )  # fmt: skip
        ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items(rows, override_num_blocks=len(rows) // BATCH)
    pool = ray.data.ActorPoolStrategy(size=workers)
    found = data.map_batches(work, fn_constructor_args=(source,), batch_size=BATCH, compute=pool)
    found.write_parquet(output)


def on_spark(kind: str, work: type, source: str, rows: list[dict], workers: int, output: str) -> None:
    """By Spark's `mapInPandas`, in a session of its own, whose number of cores is fixed."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(f"local[{workers}]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    session = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH).getOrCreate()
    try:
        schema = f"number long, {kind} {'binary' if kind == 'image' else 'string'}"
        data = session.createDataFrame([tuple(row.values()) for row in rows], schema).repartition(workers)
        explainer = work(source)
        data.mapInPandas(explainer.map_frames, explainer.schema(data.schema)).write.parquet(output, mode="append")
    finally:
        session.stop()


ENGINES: dict[str, Callable[[str, type, str, list[dict], int, str], None]] = {
    "datasets": on_datasets,
    "ray": on_ray,
    "spark": on_spark,
}
LIBRARIES = {"datasets": "datasets", "ray": "ray", "spark": "pyspark"}


def rate(ended: np.ndarray, worker: np.ndarray) -> float:
    """Rows a second while all workers are at work.

    Args:
        ended: when each row was there [N], in seconds. worker: which process made it [N].

    Raises ValueError where that is no time at all.
    """
    times = [ended[worker == one] for one in np.unique(worker)]
    start, end = max(found.min() for found in times), min(found.max() for found in times)
    if end <= start:
        raise ValueError(f"the {len(times)} workers were never at work together; take more rows.")
    return float(((ended > start) & (ended <= end)).sum() / (end - start))


def measure(engine: str, kind: str, work: str, workers: int, source: str, rows: list[dict]) -> dict:
    """What one run gives: rows a second, and seconds from the first call to the last file."""
    with tempfile.TemporaryDirectory() as output:
        started = time.perf_counter()
        ENGINES[engine](kind, WORK[work], source, rows, workers, output)
        seconds = time.perf_counter() - started
        found = pyarrow.dataset.dataset(output, exclude_invalid_files=True).to_table(["number", "worker", "ended"])
    numbers = sorted(found["number"].to_pylist())
    if numbers != list(range(len(rows))):
        raise RuntimeError(f"{engine} gave {len(numbers)} rows, not each of the {len(rows)} once.")
    worker = found["worker"].to_numpy()
    return {
        "rate": round(rate(found["ended"].to_numpy(), worker), 3),
        "seconds": round(seconds, 2),
        "processes": len(np.unique(worker)),
    }


def inputs(folder: Path) -> dict[str, tuple[str, list[dict]]]:
    """A saved model and its rows, by the kind of input. The heads are new: time does not depend on what they say."""
    model = convert("resnet18", num_labels=10)
    model.save_pretrained(folder / "image")
    image_processor_for(model.config, image_size=112).save_pretrained(folder / "image")
    convert(minilm_folder(), num_labels=2).save_pretrained(folder / "text")
    AutoTokenizer.from_pretrained(minilm_folder()).save_pretrained(folder / "text")
    pictures = load_sample("fashion_mnist")["train"].cast_column("image", Image(decode=False))["image"]
    pictures = [picture["bytes"] for picture in pictures]
    texts = load_sample("product_reviews")["train"]["text"]
    found = {}
    for kind, items in (("image", pictures), ("text", list(texts))):
        rows = [{"number": row, kind: items[row % len(items)]} for row in range(ROWS[kind])]
        found[kind] = str(folder / kind), rows
    return found


def ratio(rows: list[dict], one: dict, two: dict) -> str:
    """The median over rounds of one rate over another's, with the least and the largest; a dash where none was run."""
    rates = [{row["round"]: row["rate"] for row in rows if about.items() <= row.items()} for about in (one, two)]
    found = sorted(rates[0][number] / rates[1][number] for number in rates[0].keys() & rates[1].keys())
    return f"{statistics.median(found):.2f} [{found[0]:.2f}, {found[-1]:.2f}]" if found else "-"


def table(rows: list[dict]) -> str:
    """The page of all rows."""
    lines = []
    for kind in ROWS:
        for engine in ENGINES:
            about = {"engine": engine, "kind": kind}
            cells = [
                ratio(
                    rows,
                    {**about, "work": "predictions", "workers": workers},
                    {**about, "work": "explanations", "workers": workers},
                )
                for workers in WORKERS
            ]
            cells += [
                ratio(rows, {**about, "work": work, "workers": 2}, {**about, "work": work, "workers": 1})
                for work in WORK
            ]
            lines.append((kind, engine, *cells))
    columns = ["input", "engine", "time of an explanation / a prediction, 1 worker", "2 workers"]
    columns += ["rate by 2 workers / 1, predictions", "explanations"]
    return (
        "# Explanations on engines\n\n"
        "Rows are read, explained or only predicted by the same model, and written, an explanation with its map.\n"
        "An explanation's time over a prediction's is the ratio of the rates of rows: medians over rounds, [least,\n"
        "largest].\n\n"
        f"{markdown_table(columns, lines)}\n\n"
        f"*By `python -m hf_mhex.training.studies.engines`: {ran_on(rows)}.*\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Make what is missing of the rows, and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    if torch.get_num_threads() != 1:
        raise SystemExit("set OMP_NUM_THREADS=1: a worker has one thread.")
    disable_progress_bars()
    journal = Journal(given.output / "rows.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        asked = inputs(Path(folder))
        for number in range(given.rounds):
            for engine in given.engines.split(","):
                for kind, (source, rows) in asked.items():
                    for workers in WORKERS:
                        for work in [*WORK][:: 1 if number % 2 == 0 else -1]:  # neither is always the first
                            about = {"engine": engine, "kind": kind, "work": work, "workers": workers, "round": number}
                            if journal.find(**about) is None:
                                found = measure(engine, kind, work, workers, source, rows)
                                where = environment() | {LIBRARIES[engine]: version(LIBRARIES[engine])}
                                journal.add({**about, "rows": len(rows), **found, "environment": where})
    write_whole(given.output / "tables.md", table(journal.rows))


if __name__ == "__main__":
    from hf_mhex.training.studies import engines  # under its own name workers find its classes

    engines.main()
