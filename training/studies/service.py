"""Latency and requests a second of explanations beside the plain network, in the same server.

    OMP_NUM_THREADS=1 python -m hf_mhex.training.studies.service results/service [--rounds 15]

needs the extra `demo`. The server is training/examples/server.py, a process for each of: the plain network (MiniLM's
BERT, timm's ResNet-18 at 112 px), the same converted to MHEX without maps, and with them. They take turns: in a round
each is asked one request after the other, then by 16 clients at once. A round is a JSON line of `rows.jsonl`, of all of
which `tables.md` is made; a study that was cut short goes on where it stood.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace

import timm
import torch
from datasets import Image
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_mhex import convert, image_processor_for, load, load_sample
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.data.images import read_image, to_pixel_values
from hf_mhex.environment import environment, ran_on
from hf_mhex.evaluation.intervals import bootstrap
from hf_mhex.training.examples.server import Server, Work, explaining
from hf_mhex.training.models import minilm_folder
from hf_mhex.writing import write_whole

SERVERS = ("plain", "prediction", "explanation")
KINDS = ("image", "text")
ALONE, TOGETHER, CLIENTS = 32, 128, 16  # requests of a round one by one, and by clients at once


def predicting(model, processor, kind: str) -> Work:
    """Labels and scores of the bodies of requests, by any classifier of texts or images."""

    def work(bodies: list[bytes]) -> list[dict]:
        if kind == "text":
            texts = [body.decode() for body in bodies]
            inputs = dict(processor(texts, padding=True, truncation=True, max_length=256, return_tensors="pt"))
        else:
            pixels = [to_pixel_values(read_image(body, 3), processor) for body in bodies]
            inputs = {"pixel_values": torch.stack(pixels)}
        with torch.no_grad():
            scores = model(**inputs).logits.softmax(-1).max(-1)
        return [{"label": int(label), "score": float(score)} for score, label in zip(*scores)]

    return work


def save_models(folder: Path) -> None:
    """The MHEX models. Their heads are new: time does not depend on what they say."""
    model = convert("resnet18", num_labels=10)
    model.save_pretrained(folder / "image")
    image_processor_for(model.config, image_size=112).save_pretrained(folder / "image")
    convert(minilm_folder(), num_labels=2).save_pretrained(folder / "text")
    AutoTokenizer.from_pretrained(minilm_folder()).save_pretrained(folder / "text")


def serve(name: str, kind: str, folder: str) -> None:
    """Be one of the servers: print the port, and serve until the process is ended."""
    model, processor = load(folder)
    if name == "explanation":
        work = explaining(model, processor)
    elif name == "prediction":
        work = predicting(model, processor, kind)
    elif kind == "text":
        plain = AutoModelForSequenceClassification.from_pretrained(minilm_folder(), num_labels=2).eval()
        work = predicting(plain, processor, kind)
    else:
        network = timm.create_model("resnet18", num_classes=10).eval()
        work = predicting(lambda pixel_values: SimpleNamespace(logits=network(pixel_values)), processor, kind)
    server = Server(work, batch_size=CLIENTS)
    print(server.server_port, flush=True)
    server.serve_forever()


@contextmanager
def served(name: str, kind: str, folder: Path) -> Iterator[int]:
    """The port of a server in a process of its own."""
    command = [sys.executable, "-m", "hf_mhex.training.studies.service", "--serve", name, kind, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def ask(port: int, bodies: list[bytes]) -> list[float]:
    """Seconds of each request, one after the other on one connection; RuntimeError for an answer that is none."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    found = []
    for body in bodies:
        started = time.perf_counter()
        connection.request("POST", "/", body)
        response = connection.getresponse()
        content = response.read()
        found.append(time.perf_counter() - started)
        if response.status != 200:
            raise RuntimeError(f"a server answered {response.status}: {content[:200]!r}")
    connection.close()
    return found


def measure(port: int, bodies: list[bytes]) -> dict:
    """Median latency of requests one by one, in milliseconds, and requests a second by clients at once."""
    alone = ask(port, bodies[:ALONE])
    shares = [bodies[number:TOGETHER:CLIENTS] for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        started = time.perf_counter()
        list(pool.map(lambda share: ask(port, share), shares))
        seconds = time.perf_counter() - started
    return {"milliseconds": round(1000 * statistics.median(alone), 2), "rate": round(TOGETHER / seconds, 2)}


def bodies_of(kind: str) -> list[bytes]:
    """Bodies of requests."""
    if kind == "text":
        return [text.encode() for text in load_sample("product_reviews")["test"][:TOGETHER]["text"]]
    pictures = load_sample("fashion_mnist")["test"].cast_column("image", Image(decode=False))
    return [picture["bytes"] for picture in pictures[:TOGETHER]["image"]]


def table(rows: list[dict]) -> str:
    """The page of all rows."""
    lines = []
    for kind in KINDS:
        rounds = [row for row in rows if row["kind"] == kind]
        for name in SERVERS if rounds else ():
            cells = []
            for figure in ("milliseconds", "rate"):
                ratios = [row[name][figure] / row["plain"][figure] for row in rounds]
                cells.append("1" if name == "plain" else str(bootstrap(ratios, statistic="median")))
            lines.append((kind, name, *cells, str(len(rounds))))
    columns = ("input", "server", "latency, one request at a time", f"requests a second, {CLIENTS} clients", "rounds")
    found = [f"{row['plain']['milliseconds']:.0f}" for row in rows]
    return (
        "# Explanations in a server\n\n"
        "Beside the plain network in the same server: medians over rounds of the ratio within a round, [95 %\n"
        "bootstrap interval]. Requests that wait share a batch. An explanation's answer holds its words or map, as\n"
        "JSON.\n\n"
        f"{markdown_table(columns, lines)}\n\n"
        f"*The plain network took {min(found, key=float)} to {max(found, key=float)} ms a request. By\n"
        f"`python -m hf_mhex.training.studies.service`, one thread a server: {ran_on(rows)}.*\n"
    )


def main() -> None:
    """Make what is missing of the rows, and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", nargs=3, metavar=("SERVER", "KIND", "FOLDER"), help="be one of the servers")
    given = parser.parse_args()
    if torch.get_num_threads() != 1:
        raise SystemExit("set OMP_NUM_THREADS=1: a server has one thread.")
    if given.serve:
        serve(*given.serve)
        return
    journal = Journal(given.output / "rows.jsonl")
    with tempfile.TemporaryDirectory() as home:
        save_models(Path(home))
        for kind in KINDS:
            missing = [number for number in range(given.rounds) if not journal.find(kind=kind, round=number)]
            with ExitStack() as stack:
                ports = {name: stack.enter_context(served(name, kind, Path(home) / kind)) for name in SERVERS}
                bodies = bodies_of(kind)
                for port in ports.values():
                    ask(port, bodies[:4])  # the first passes are slower
                for number in missing:
                    turn = SERVERS[number % 3 :] + SERVERS[: number % 3]
                    found = {name: measure(ports[name], bodies) for name in turn}
                    journal.add({"kind": kind, "round": number, **found, "environment": environment()})
    write_whole(given.output / "tables.md", table(journal.rows))


if __name__ == "__main__":
    main()
