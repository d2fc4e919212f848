"""A small server of a model and its explanations, by the standard library; requests that wait share a batch.

    python server.py MODEL [--port 8000] [--batch-size 16]
    curl --data "A great phone" localhost:8000           # a text model
    curl --data-binary @photo.png localhost:8000         # an image model

The answer is JSON: label, score, and the words with their shares of the logit, or the map [H, W]. A body has a
Content-Length of at most 16 MiB; 503 asks to come again later.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from hf_mhex import load
from hf_mhex.data import Row
from hf_mhex.escaping import visible
from hf_mhex.explaining.batch import Answer, explain_rows
from hf_mhex.families import family_of

Work = Callable[[list[bytes]], list[dict]]
LARGEST, WAITING = 1 << 24, 64  # bytes of a body, and requests that may wait


def explaining(model, processor, **options) -> Work:
    """Answers to bodies of requests, with maps; `options` are those of `generate_saliency`.

    Raises ValueError for a model of signals, which have no form as raw bytes.
    """
    kind = family_of(model).kind
    if kind == "signal":
        raise ValueError(f"model must be for images or texts, {type(model).__name__} is for signals.")
    is_text = kind == "text"

    def answer_of(found: Answer) -> dict:
        if found.error is not None:
            return {"error": found.reason}
        label = model.config.id2label[found.target]
        answer = {"label": label, "score": float(found.scores[found.target]), "explained": found.explained}
        if is_text:
            return answer | {"words": [[word.text, word.score] for word in found.words.words]}
        return answer | {"map": found.saliency.tolist()}

    def work(bodies: list[bytes]) -> list[dict]:
        values = [body.decode(errors="replace") if is_text else body for body in bodies]
        rows = [Row(number, str(number), value) for number, value in enumerate(values)]
        return [answer_of(found) for found in explain_rows(model, processor, rows, options, len(rows))]

    return work


class Batches:
    """One thread that works on the requests that have come meanwhile, at most `batch_size` at once.

    A request that finds the thread idle waits for nobody, so that a batch grows with the load alone.
    """

    def __init__(self, work: Work, batch_size: int):
        self.work, self.batch_size = work, batch_size
        self.waiting: queue.Queue[tuple[bytes, Future]] = queue.Queue(WAITING)
        Thread(target=self.run, daemon=True).start()

    def __call__(self, body: bytes) -> dict:
        """The answer to one request, once its batch is done; queue.Full where too many wait."""
        future: Future = Future()
        self.waiting.put_nowait((body, future))
        return future.result()

    def run(self) -> None:
        """Take and answer batches, for ever."""
        while True:
            batch = [self.waiting.get()]
            while len(batch) < self.batch_size and not self.waiting.empty():
                batch.append(self.waiting.get())
            try:
                answers = list(zip(batch, self.work([body for body, _ in batch]), strict=True))
            except Exception as error:  # each of these requests fails, the server goes on
                print(visible(traceback.format_exc()), file=sys.stderr, flush=True)
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), answer in answers:
                    future.set_result(answer)


class Server(ThreadingHTTPServer):
    """A server on this machine; a thread a connection hands its requests over to `Batches`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, work: Work, port: int = 0, batch_size: int = 16):
        super().__init__(("127.0.0.1", port), Request)
        self.batches = Batches(work, batch_size)


class Request(BaseHTTPRequestHandler):
    """POST of a text or an image."""

    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True  # a short answer leaves at once
    timeout = 30  # seconds of silence after which a connection is closed

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length")
        if length is None or "Transfer-Encoding" in self.headers:
            self.refuse(411, "send the body with a Content-Length")
        elif not (length.isascii() and length.isdecimal()):
            self.refuse(400, "Content-Length must be a number of bytes")
        elif len(length) > 9 or int(length) > LARGEST:
            self.refuse(413, f"the body may have {LARGEST} bytes")
        else:
            self.explain(self.rfile.read(int(length)))

    def explain(self, body: bytes) -> None:
        """Answer a body."""
        try:
            answer = self.server.batches(body)  # type: ignore[attr-defined]
            status = 422 if "error" in answer else 200
        except queue.Full:
            status, answer = 503, {"error": "too many requests wait"}
        except Exception as error:
            status, answer = 500, {"error": type(error).__name__}
        self.answer(status, answer)

    def refuse(self, status: int, reason: str) -> None:
        """Answer without reading the body, and close: what follows in the connection is no request."""
        self.close_connection = True
        self.answer(status, {"error": reason})

    def answer(self, status: int, answer: dict) -> None:
        """Send JSON."""
        content = json.dumps(answer).encode()
        self.send_response(status)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args) -> None:
        """Requests are not printed."""


def main() -> None:
    """Serve a model until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or Hub id")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch-size", type=int, default=16)
    given = parser.parse_args()
    try:
        server = Server(explaining(*load(given.model)), given.port, given.batch_size)
    except (OSError, ValueError) as error:
        parser.error(visible(str(error)))
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
