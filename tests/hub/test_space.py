"""A Space that we push serves the app: its own files, run where hf-mhex is not installed, on models of the Hub."""

import json
import subprocess
import time

import pytest

from browser import answers, free_port
from hub_models import SENTENCES, Publisher, environment, save_image_model, save_text_model
from stub_hub import TOKEN, stub_hub

pytest.importorskip("gradio", reason="the app needs gradio: pip install 'hf-mhex[app]'")
from hf_mhex.hub.app.explaining import NO_CONTRAST, PREDICTED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with stub_hub() as server:
        yield server


@pytest.fixture(scope="module")
def space(server, tmp_path_factory):
    """A folder with what `mhex push --space` sent, and the pictures that the image model was tried with."""
    home = tmp_path_factory.mktemp("publisher")
    save_text_model(home / "texts")
    pictures, _ = save_image_model(home / "images", home / "pictures")
    publish = Publisher(home, server, TOKEN)
    for name in ("texts", "images"):
        for tag in ("v1", "v2"):
            (home / name / "README.md").write_text(f"# Release {tag}\n")
            assert "found" in publish(home / name, f"me/{name}", tag=tag)
    done = publish.command("push", "me/images@v1,me/texts@v1", "me/why", "--space", "--json")
    publish.close()
    assert done["code"] == 0 and json.loads(done["out"])["url"].endswith("/spaces/me/why"), done
    folder = home / "space"
    for name, data in server.files("me/why").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder, pictures


@pytest.fixture(scope="module")
def address(space, server, bare_python, tmp_path_factory):
    folder, _ = space
    home, port = tmp_path_factory.mktemp("home"), free_port()
    variables = environment(home, server) | {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(home)}
    with (home / "log").open("w") as log:
        process = subprocess.Popen([bare_python(), "app.py"], env=variables, cwd=folder, stdout=log, stderr=log)
        try:
            while not answers(f"http://127.0.0.1:{port}"):
                assert process.poll() is None, (home / "log").read_text()
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def test_it_explains_images_and_texts_of_the_hub(address, space, server):
    """By the app's own interface for programs; the models came from the Hub at the pinned tag."""
    client = pytest.importorskip("gradio_client", reason="the app needs gradio: pip install 'hf-mhex[app]'")
    app = client.Client(address, verbose=False)
    _, pictures = space
    without, scores, line, *painted = app.predict(
        client.handle_file(pictures[0]), PREDICTED, NO_CONTRAST, [0, 1, 2, 3, 4], api_name="/explain_image"
    )
    assert scores["label"] in ("a", "b", "c") and "The map sums to" in line and len(painted) == 5
    without, scores, line, words, buttons, labels, by_block, link = app.predict(
        SENTENCES[1], PREDICTED, NO_CONTRAST, [0, 1, 2], api_name="/explain_text"
    )
    assert scores["label"] in ("bad", "good", "unclear") and "The map sums to" in line
    assert "battery" in words and all(framed.startswith("<iframe sandbox") for framed in (words, labels, by_block))
    assert without == "" and buttons.count("<button") == 4 and server.repositories["me/texts"].tags["v1"] in link
    asked = [path.split("/resolve/") for _, path, _ in server.requests if "/resolve/" in path]
    for name in ("texts", "images"):
        revisions = {file.split("/")[0] for repo_id, file in asked if repo_id == f"/me/{name}"}
        assert revisions and revisions <= {"v1", server.repositories[f"me/{name}"].tags["v1"]}  # main has moved on
    with pytest.raises(client.exceptions.AppError, match="Type a text first"):
        app.predict(" ", PREDICTED, NO_CONTRAST, [0], api_name="/explain_text")
