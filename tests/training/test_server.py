"""The server example answers what explain does, in batches when requests wait, and goes on after a bad one."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

import hf_mhex
from hf_mhex.training.examples import server
from hub_models import SENTENCES, save_image_model, save_text_model


@pytest.fixture
def serve():
    """A server of some work, ended after the test."""
    servers = []

    def start(work, **options):
        servers.append(server.Server(work, **options))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port

    yield start
    for started in servers:
        started.shutdown()
        started.server_close()


def ask(port, body):
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/", body)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_texts(serve, tmp_path):
    save_text_model(tmp_path)
    model, tokenizer = hf_mhex.load(tmp_path)
    port = serve(server.explaining(model, tokenizer))
    for text in SENTENCES[:2]:
        status, found = ask(port, text.encode())
        expected = hf_mhex.explain(model, tokenizer, text, contrast=None)
        assert status == 200 and found["label"] == expected.label
        assert found["explained"] == pytest.approx(expected.explained, abs=1e-4)
        assert [word for word, _ in found["words"]] == [word.text for word in expected.parts]
    assert ask(port, b" ") == (422, {"error": "ValueError: the row holds an empty text."})


def test_images(serve, tmp_path):
    paths, _ = save_image_model(tmp_path / "model", tmp_path / "pictures")
    model, processor = hf_mhex.load(tmp_path / "model")
    port = serve(server.explaining(model, processor))
    status, found = ask(port, Path(paths[0]).read_bytes())
    expected = hf_mhex.explain(model, processor, paths[0], contrast=None)
    assert status == 200 and found["label"] == expected.label
    assert np.allclose(found["map"], expected.saliency, atol=1e-5)
    assert ask(port, b"no image")[0] == 422


def test_requests_that_wait_share_a_batch_and_each_gets_its_own_answer(serve):
    sizes, go = [], threading.Event()

    def work(bodies):
        go.wait(30)
        sizes.append(len(bodies))
        if b"bad" in bodies:
            raise RuntimeError
        return [{"body": body.decode()} for body in bodies]

    port = serve(work, batch_size=4)
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(ask, port, str(number).encode()) for number in range(9)]
        threading.Timer(1.0, go.set).start()
        found = [future.result() for future in asked]
    assert found == [(200, {"body": str(number)}) for number in range(9)]
    assert sum(sizes) == 9 and max(sizes) == 4
    assert ask(port, b"bad") == (500, {"error": "RuntimeError"}) and ask(port, b"good")[0] == 200
