"""Work in parts on Ray or Spark: the engine starts workers, shares the parts out, and does a lost worker's again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hf_mhex.environment import named_extra

ATTEMPTS = 4  # of a part, on a Spark session of our own


def run_parts(
    engine: str, workers: int, work: Callable[[int], int], parts: Sequence[int], gpus: int = 0
) -> Iterator[int]:
    """What `work` answers for each of the parts, in any order.

    A part whose worker was lost is done again, so `work` must stand being called twice. Every worker gets a copy of it.
    A Ray cluster or Spark session that the process is connected to is used as it stands; else one is started on this
    machine and ended afterwards.

    Args:
        engine: "ray" or "spark".
        workers: at once. A Spark session that is there has its own number.
        gpus: of each worker on Ray. Of a Spark task its configuration says.

    Raises ModuleNotFoundError, naming the extra, where the engine is not installed; what `work` raises ends it all.
    """
    yield from ENGINES[engine](workers, work, parts, gpus)


class _RayWorker:
    """An actor of Ray Data."""

    def __init__(self, shared):
        import ray

        self.work = ray.get(shared[0])  # in a list: Ray would hand over what a bare reference stands for

    def __call__(self, batch: dict) -> dict:
        return {"found": [self.work(int(part)) for part in batch["part"]]}


def _on_ray(workers: int, work: Callable[[int], int], parts: Sequence[int], gpus: int) -> Iterator[int]:
    """By Ray Data, one block a part, so that workers take parts as they become free."""
    with named_extra():
        import ray
        import ray.data
    with _ray(workers):
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        found = rows.map_batches(
            _RayWorker,
            fn_constructor_args=([ray.put(work)],),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=gpus,
        )
        for row in found.iter_rows():
            yield int(row["found"])


@contextmanager
def _ray(workers: int) -> Iterator[None]:
    """The Ray that this process is connected to, or one of its own on this machine."""
    import ray

    if ray.is_initialized():
        yield
        return
    # a core more than there are workers: Ray Data keeps some of its own
    ray.init(address="local", num_cpus=workers + 1, include_dashboard=False, _node_ip_address="127.0.0.1")
    try:
        yield
    finally:
        ray.shutdown()


def _on_spark(workers: int, work: Callable[[int], int], parts: Sequence[int], gpus: int) -> Iterator[int]:
    """By a Spark job of one task a part."""
    with named_extra():
        from pyspark.sql import SparkSession
    with _spark(SparkSession, workers) as session:
        shared = session.sparkContext.broadcast(work)
        yield from session.sparkContext.parallelize(parts, len(parts)).map(lambda part: shared.value(part)).collect()


@contextmanager
def _spark(kind: Any, workers: int) -> Iterator[Any]:
    """The Spark session of this process, or one of its own on this machine; Java is needed."""
    active = kind.getActiveSession()
    if active is not None:
        yield active
        return
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else workers are the first python3 of the path
    builder = kind.builder.master(f"local[{workers},{ATTEMPTS}]").appName("hf-mhex")
    builder = builder.config("spark.ui.enabled", "false").config("spark.driver.bindAddress", "127.0.0.1")
    session = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    try:
        yield session
    finally:
        session.stop()


ENGINES: dict[str, Callable[[int, Callable[[int], int], Sequence[int], int], Iterator[int]]] = {
    "ray": _on_ray,
    "spark": _on_spark,
}
