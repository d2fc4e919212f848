"""A model that we push comes back to a stranger: published to a stub Hub, pulled in fresh processes."""

import functools
import json
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from safetensors.torch import load_file

from hub_models import SENTENCES, Publisher, check_pulled, environment, pull, save_image_model, save_text_model
from stub_hub import LFS_THRESHOLD, TOKEN, Repository, stub_hub

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with stub_hub() as server:
        yield server


@pytest.fixture(scope="module")
def published(server, tmp_path_factory):
    """By task: the repository, its commit, the items, and what the model says of them where it was made."""
    home = tmp_path_factory.mktemp("publisher")
    publish = Publisher(home, server, TOKEN)
    texts, images = home / "texts", home / "images"
    expected = save_text_model(texts)
    paths, seen = save_image_model(images, home / "pictures")
    made = {}
    for task, folder, items, answer in (
        ("text-classification", texts, SENTENCES, expected),
        ("image-classification", images, paths, seen),
    ):
        if folder is texts:
            fail_in_the_middle(publish, server, folder)
        found = publish(folder, f"me/{folder.name}", message="First release", private=folder is images)
        assert "found" in found, found
        made[task] = {"folder": folder, "found": found["found"], "items": items, "answer": answer}
    for folder in (texts, images):
        pushed = publish.ask({"plainly": str(folder), "repo_id": f"plain/{folder.name}"})
        assert "error" not in pushed, pushed
    public = publish(texts, "me/texts", private=True)
    assert public["text"].startswith("private=True, but 'me/texts' exists and is public")
    errors = publish.close()
    assert TOKEN not in errors
    return made


def fail_in_the_middle(publish, server, folder):
    """Weights of more than the LFS threshold, whose upload breaks off again and again; the next publish has it once."""
    server.fail("PUT", "/lfs/", "cut", 1000)
    answer = publish(folder, f"me/{folder.name}")
    assert answer["error"] == "ConnectionError" and "repeat the same publish to complete it" in answer["text"], answer
    assert set(server.files(f"me/{folder.name}")) == {".gitattributes"}
    server.faults.clear()
    server.fail("PUT", "/lfs/", "cut", 1)


def job_of(task, published, **besides):
    found = published[task]["found"]
    shared = {"task": task, "repo_id": found["repo_id"], "revision": found["commit"], "items": published[task]["items"]}
    return {**shared, **besides}


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """By task, the home (with its cache) of the stranger who pulls the model first."""
    home = tmp_path_factory.mktemp("strangers")
    return {task: home / task for task in ("text-classification", "image-classification")}


@pytest.fixture(scope="module")
def pulled(server, published, homes):
    """By task, asked for once: what a stranger finds at the commit, who then pushes a fine-tune."""
    return functools.cache(
        lambda task: pull(job_of(task, published, fine_tuned=f"you/{task}"), homes[task], server, TOKEN)
    )


@pytest.mark.parametrize("task", ["text-classification", "image-classification"])
def test_a_stranger_pulls_what_we_pushed(task, server, published, pulled, tmp_path):
    """from_pretrained and all pipelines at the commit; then a fine-tune is pushed by the stranger and pulled again."""
    fine_tuned, record = f"you/{task}", pulled(task)
    check_pulled(record, published[task]["answer"])
    if task == "text-classification":
        assert "timm" not in record["modules"]
    assert record["logits_after"] != record["logits"]
    job = job_of(task, published) | {"repo_id": fine_tuned, "revision": server.repositories[fine_tuned].main}
    again = pull(job, tmp_path / "two", server, TOKEN)
    for found, expected in zip(again["logits"], record["logits_after"], strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    assert len(again["answers"]) == len(job["items"])


def test_the_weights_went_through_lfs(server, published):
    text = published["text-classification"]
    sizes = text["found"]["sent"]
    assert sizes["model.safetensors"] > LFS_THRESHOLD
    assert "model.safetensors" in server.repositories["me/texts"].lfs_paths
    files = server.files("me/texts")
    assert files["model.safetensors"] == (text["folder"] / "model.safetensors").read_bytes()
    assert set(files) == {*sizes, ".gitattributes"}
    assert server.repositories["me/texts"].messages == ["initial commit", "First release"]  # one commit


def test_text_needs_neither_timm_nor_torchvision(server, published, bare_python, tmp_path):
    """In a virtual environment that has everything of ours but these (and what needs them)."""
    job = job_of("text-classification", published, absent=["timm", "torchvision", "hf_mhex"])
    record = pull(job, tmp_path / "home", server, python=bare_python("timm", "torchvision"))
    check_pulled(record, published["text-classification"]["answer"])
    assert record["found"] == [] and not {"timm", "torchvision"} & set(record["modules"])


def test_from_the_cache_without_a_network(server, published, pulled, homes):
    online = pulled("text-classification")
    asked = len(server.requests)
    job = job_of("text-classification", published)
    offline = pull(job, homes["text-classification"], server, HF_HUB_OFFLINE="1")
    assert offline["logits"] == online["logits"] and len(server.requests) == asked


def test_push_to_hub_works_as_everywhere(server, published):
    """The model's own `push_to_hub`, in a process that has hf_mhex: the files that a stranger pulled and used above.

    The same names and bytes, but for the card, which is transformers' template there, and what the tokenizer's
    configuration says of the machine that it was loaded on.
    """
    for name in ("texts", "images"):
        plain, ours = server.files(f"plain/{name}"), server.files(f"me/{name}")
        assert {"model.safetensors", "config.json", "pipeline_mhex.py", "mhex.py"} <= set(plain)
        assert set(plain) == set(ours)
        differ = {path for path in ours if plain[path] != ours[path]}
        assert differ <= {"README.md", "tokenizer_config.json"}
        assert b"# Model Card for Model ID" in plain["README.md"] and b"## What completeness means" in ours["README.md"]
        if name == "texts":
            settings = [json.loads(files["tokenizer_config.json"]) for files in (plain, ours)]
            assert set(settings[0]) - set(settings[1]) <= {"is_local", "local_files_only"}
            assert settings[0] | settings[1] == settings[0]


LOAD = """
import json, sys, hf_mhex
for source, revision in json.loads(sys.argv[1]):
    model, processor = hf_mhex.load(source, revision=revision)
    assert not model.training
    print(type(model).__name__, type(processor).__name__, type(model).__module__.split(".")[0], model.config.num_labels)
"""


def test_load_returns_model_and_processor_ready_for_use(server, published, tmp_path):
    """By Hub id at a commit, a tag and the branch, from a folder, and again from the cache alone."""
    text, image = (published[task]["found"] for task in ("text-classification", "image-classification"))
    sources = [
        ["me/texts", text["commit"]],
        ["me/texts", text["tag"]],
        ["me/texts", None],
        ["me/images", image["commit"]],
    ]
    sources.append([str(published["image-classification"]["folder"]), None])
    command = [sys.executable, "-c", LOAD, json.dumps(sources)]
    lines = []
    for offline in ("0", "1"):
        variables = environment(tmp_path, server, TOKEN) | {"HF_HUB_OFFLINE": offline}
        done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=True)
        lines.append(done.stdout.splitlines())
    assert lines[0] == lines[1]
    assert [line.split()[0] for line in lines[0]] == ["MHEXBertForSequenceClassification"] * 3 + [
        "MHEXResNetForImageClassification"
    ] * 2
    assert all(line.split()[2] == "hf_mhex" for line in lines[0])


def test_a_private_repository_needs_the_token(server, published):
    """The image model's is private: all that is pulled of it here is pulled with the token."""
    address = f"{server.url}/me/images/resolve/main/config.json"
    assert server.repositories["me/images"].private and not server.repositories["me/texts"].private
    with pytest.raises(HTTPError, match="404"):
        urlopen(address)
    with urlopen(Request(address, headers={"Authorization": f"Bearer {TOKEN}"})) as answer:
        assert json.load(answer)["model_type"] == "mhex_resnet"


def test_what_was_pushed_is_what_was_saved(server, published):
    """Bit for bit, but for the JSON from which this machine's traces are taken."""
    for task, name in (("text-classification", "me/texts"), ("image-classification", "me/images")):
        folder, files = published[task]["folder"], server.files(name)
        for path in folder.iterdir():
            if path.name != "tokenizer_config.json":
                assert files[path.name] == path.read_bytes(), path.name
        assert load_file(folder / "model.safetensors")
    sent = json.loads(server.files("me/texts")["tokenizer_config.json"])
    assert not {"is_local", "local_files_only"} & set(sent)


HOSTILE = """
import sys, hf_mhex
for source in sys.argv[1:]:
    try:
        hf_mhex.load(source)
        print("loaded")
    except Exception as error:
        print("refused", type(error).__name__, *str(error).splitlines()[:1])
"""


def test_a_hostile_repository_gets_nowhere(server, published, tmp_path):
    """Weights that are said to lie outside the folder, and weights that are a pickle."""
    files = dict(server.files("me/texts", published["text-classification"]["found"]["commit"]))
    weights, outside = files.pop("model.safetensors"), "../../../../../../outside.safetensors"
    index = json.dumps({"weight_map": {"w": outside}}).encode()
    hostile = {
        "me/path": {**files, outside: weights, "model.safetensors.index.json": index},
        "me/pickle": {**files, "pytorch_model.bin": b"not even looked at"},
    }
    for name, held in hostile.items():
        server.repositories[name] = repository = Repository("model", False)
        repository.main = repository.commit(repository.main, held, "hostile")
    home = tmp_path / "a" / "b" / "home"
    home.mkdir(parents=True)
    command = [sys.executable, "-c", HOSTILE, *hostile]
    done = subprocess.run(command, env=environment(home, server), cwd=home, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["refused", "refused"], done.stdout
    assert not list(tmp_path.rglob("*outside*")) and not list(home.rglob("pytorch_model.bin"))
