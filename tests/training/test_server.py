"""The server example answers what explain does, in batches when requests wait, and goes on after a bad one."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

import hf_mhex
from hf_mhex.training.examples import server
from hub_models import SENTENCES, save_image_model, save_signal_model, save_text_model


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


def test_a_failing_batch_is_logged_and_obeyed_by_no_terminal(serve, capfd):
    def work(bodies):
        raise RuntimeError(bodies[0].decode())

    assert ask(serve(work), b"\x1b[31mred")[0] == 500
    said = capfd.readouterr().err
    assert "Traceback" in said and "RuntimeError: \u241b[31mred" in said and "\x1b" not in said


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Transfer-Encoding: chunked", 411),
        ("Accept: */*", 411),
        ("Content-Length: -1", 400),
        ("Content-Length: many", 400),
        ("Content-Length: 99999999", 413),
        ("Content-Length: " + 5000 * "9", 413),
    ],
)
def test_a_body_of_no_known_or_a_great_length_is_refused_and_the_connection_closed(serve, headers, status):
    port = serve(pytest.fail)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: here\r\n{headers}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ") and "Connection: close" in answer and '{"error": "' in answer


def test_a_silent_connection_ends(serve, monkeypatch):
    assert server.Request.timeout == 30
    monkeypatch.setattr(server.Request, "timeout", 0.1)
    with socket.create_connection(("127.0.0.1", serve(pytest.fail)), timeout=20) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf")
        assert connection.recv(4096) == b""


def test_too_many_waiting_requests_are_told_to_come_again(serve, monkeypatch):
    monkeypatch.setattr(server, "WAITING", 1)
    taken, go = threading.Event(), threading.Event()

    def work(bodies):
        taken.set()
        go.wait(30)
        return [{} for _ in bodies]

    port = serve(work, batch_size=1)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, port, b"1")
        assert taken.wait(30)
        others = [pool.submit(ask, port, b"2"), pool.submit(ask, port, b"3")]
        refused = next(as_completed(others, timeout=30)).result()
        go.set()
        found = [first.result(), *(other.result() for other in others)]
    assert refused == (503, {"error": "too many requests wait"})
    assert sorted(status for status, _ in found) == [200, 200, 503]


def test_signals_are_refused(tmp_path):
    save_signal_model(tmp_path)
    with pytest.raises(ValueError, match="images or texts, MHEXSignalForClassification is for signals"):
        server.explaining(*hf_mhex.load(tmp_path))


def test_it_says_its_address_at_once_and_ends_quietly(tmp_path):
    save_image_model(tmp_path / "model", tmp_path / "pictures")
    command = [sys.executable, server.__file__, str(tmp_path / "model"), "--port", "0"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would pass on SIG_IGN
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    with process:
        try:
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            time.sleep(0.3)  # until it serves
            process.send_signal(signal.SIGINT)
            assert "Traceback" not in process.communicate(timeout=30)[1] and process.returncode == 0
        finally:
            process.kill()
