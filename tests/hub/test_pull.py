"""`mhex pull` over a stub Hub: the commit that was asked for, in the cache or a folder, and nothing half."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hub_models import Publisher, environment, save_text_model
from stub_hub import TOKEN, Repository, stub_hub

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with stub_hub() as server:
        yield server


@pytest.fixture(scope="module")
def published(server, tmp_path_factory):
    """Two releases of one model: their commits."""
    home = tmp_path_factory.mktemp("publisher")
    publish = Publisher(home, server, TOKEN)
    save_text_model(home / "model")
    first = publish(home / "model", "me/model", tag="v1")
    assert "found" in first, first
    (home / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# A second card\n")
    second = publish(home / "model", "me/model", tag="v2")
    publish.close()
    commits = [answer["found"]["commit"] for answer in (first, second)]
    files = dict(server.files("me/model", commits[1]))
    files["pytorch_model.bin"] = b"a pickle"
    repository = server.repositories["me/model"]
    repository.main = repository.commit(repository.main, files, "a pickle besides")
    return commits


@pytest.fixture
def stranger(server, published, tmp_path):
    """`stranger("pull", ..., HF_HUB_OFFLINE="1")`: what the command answers to somebody else."""

    def ask(*words, **variables):
        command = [sys.executable, "-m", "hf_mhex.cli", *map(str, words)]
        home = environment(tmp_path / "home", server) | variables
        return subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True)

    return ask


def test_into_a_folder_that_can_be_loaded(server, published, stranger, tmp_path):
    done = stranger("pull", "me/model", "--revision", "v1", "--output", "here", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["commit"] == published[0] and found["repo_id"] == "me/model" and found["folder"] == "here"
    held = server.files("me/model", "v1")
    assert {name: (tmp_path / "here" / name).read_bytes() for name in found["files"]} == held
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "home"]
    assert not any(path.is_symlink() for path in (tmp_path / "here").iterdir())
    answer = stranger("explain", "here", "good phone", "--json", HF_HUB_OFFLINE="1")
    assert json.loads(answer.stdout)["label"] in ("bad", "good", "unclear"), answer.stderr
    again = stranger("pull", "me/model", "--output", "here")
    assert again.returncode == 1 and "output='here' exists and is not empty; name a new folder." in again.stderr


def test_into_the_cache_pinned_and_again_without_a_network(server, published, stranger):
    done = stranger("pull", "me/model")
    newest = server.repositories["me/model"].main
    assert done.returncode == 0, done.stderr
    assert f"me/model at commit {newest}" in done.stdout and "pytorch_model.bin" not in done.stdout
    assert f'hf_mhex.load("me/model", revision="{newest}")' in done.stdout
    assert not any(path.endswith("pytorch_model.bin") for path in server.moved("GET"))
    again = stranger("pull", "me/model", HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout
    answer = stranger("explain", "me/model", "good phone", "--revision", newest, "--json", HF_HUB_OFFLINE="1")
    assert answer.returncode == 0, answer.stderr


def test_a_pickle_that_the_cache_holds_already_is_not_copied(server, published, stranger, tmp_path):
    found = json.loads(stranger("pull", "me/model", "--json").stdout)
    (Path(found["folder"]) / "pytorch_model.bin").write_bytes(b"a pickle")
    done = stranger("pull", "me/model", "--output", "here", "--json")
    assert "pytorch_model.bin" not in json.loads(done.stdout)["files"], done.stderr
    assert not (tmp_path / "here" / "pytorch_model.bin").exists()


def test_what_cannot_be_had_is_one_line(server, stranger, tmp_path):
    server.repositories["me/plain"] = plain = Repository("model", False)
    plain.main = plain.commit(plain.main, {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""}, "plain")
    for words, said in (
        (["me/none"], "me/none"),
        (["me/model", "--revision", "v9"], "v9"),
        (["me/plain"], "'bert' model; `mhex convert me/plain FOLDER` makes an MHEX of it"),
        (["home"], "is a folder of this machine"),
    ):
        done = stranger("pull", *words, "--output", "new")
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and said in done.stderr, done.stderr
        assert not (tmp_path / "new").exists()
    assert not any(path.endswith("plain/resolve/main/model.safetensors") for path in server.moved("GET"))
    server.fail("GET", "model.safetensors", "cut", 1000)
    done = stranger("pull", "me/model", "--output", "new")
    server.faults.clear()
    assert done.returncode == 1 and not (tmp_path / "new").exists(), done.stdout
    assert stranger("pull", "me/model", "--output", "new").returncode == 0
