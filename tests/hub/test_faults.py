"""Publishing when the Hub fails, and what it refuses to send, against a stub Hub that can fail."""

import hashlib
import json
import shutil

import pytest

from hf_mhex.hub import publishing
from hub_models import Publisher, save_image_model
from stub_hub import TOKEN, stub_hub


@pytest.fixture(scope="module")
def server():
    with stub_hub() as server:
        yield server


@pytest.fixture(scope="module")
def publish(server, tmp_path_factory):
    publisher = Publisher(tmp_path_factory.mktemp("home"), server, TOKEN)
    yield publisher
    assert TOKEN not in publisher.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_image_model(folder / "model", folder / "pictures")
    (folder / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# A card\n")
    (folder / "model" / "saliency.png").write_bytes((folder / "pictures" / "0.png").read_bytes())
    return folder / "model"


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def repo_id(request):
    return "me/" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]


def state(folder):
    """Every file with its bytes and its time."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("method", "pattern", "status"),
    [
        ("POST", "/api/repos/create", 500),
        pytest.param("POST", "/api/repos/create", 429, marks=pytest.mark.slow),
        ("GET", "/api/models/", 500),
        ("POST", "/api/validate-yaml", 503),
        ("POST", "/preupload/", 429),
        ("POST", "/info/lfs/objects/batch", 500),
        pytest.param("PUT", "/lfs/", 500, marks=pytest.mark.slow),
        ("PUT", "/lfs/", 429),
        ("POST", "/commit/main", 500),
        pytest.param("POST", "/commit/main", 429, marks=pytest.mark.slow),
        ("POST", "/tag/", 500),
    ],
)
def test_a_server_that_fails_once_is_asked_again(publish, server, folder, repo_id, method, pattern, status):
    before = state(folder)
    server.objects.clear()
    server.fail(method, pattern, status)
    answer = publish(folder, repo_id)
    assert "found" in answer, answer
    assert not any(fault[3] for fault in server.faults)
    assert server.files(repo_id)["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert len(server.repositories[repo_id].messages) == 2 and state(folder) == before
    assert list(server.repositories[repo_id].tags) == [answer["found"]["tag"]]


@pytest.mark.parametrize(
    ("method", "pattern"), [("PUT", "/lfs/"), pytest.param("POST", "/commit/main", marks=pytest.mark.slow)]
)
def test_a_connection_cut_in_the_middle_leaves_nothing_half_done(publish, server, folder, repo_id, method, pattern):
    """Cut once, it goes on by itself; cut again and again, it says so, and the same publish completes it."""
    before = state(folder)
    server.objects.clear()
    server.fail(method, pattern, "cut", 1000)
    answer = publish(folder, repo_id)
    assert answer["error"] == "ConnectionError" and "repeat the same publish to complete it" in answer["text"]
    assert set(server.files(repo_id)) == {".gitattributes"} and state(folder) == before
    server.faults.clear()
    server.fail(method, pattern, "cut", 1)
    sent = len(server.moved())
    answer = publish(folder, repo_id)
    assert "found" in answer, answer
    assert server.files(repo_id)["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    if method == "POST":
        assert len(server.moved()) == sent  # what had arrived is not sent again
    assert len(server.repositories[repo_id].messages) == 2


@pytest.mark.parametrize(
    ("method", "pattern", "status", "kind", "message"),
    [
        ("POST", "/api/repos/create", 401, "PermissionError", "token was refused for"),
        ("POST", "/api/repos/create", 403, "PermissionError", "token may not write to"),
        ("POST", "/commit/main", 403, "PermissionError", "token may not write to"),
        ("PUT", "/lfs/", 507, "OSError", "no space left"),
        ("POST", "/info/lfs/objects/batch", 413, "OSError", "no space left"),
        ("POST", "/commit/main", 507, "OSError", "no space left"),
        ("POST", "/preupload/", 500, "ConnectionError", "the Hub failed for"),
        pytest.param("PUT", "/lfs/", 429, "ConnectionError", "the Hub failed for", marks=pytest.mark.slow),
    ],
)
def test_a_lasting_fault_is_named_and_then_completed(
    publish, server, folder, repo_id, method, pattern, status, kind, message
):
    before = state(folder)
    server.objects.clear()
    server.fail(method, pattern, status, 1000)
    answer = publish(folder, repo_id)
    assert answer["error"] == kind and message in answer["text"] and repo_id in answer["text"], answer
    assert "\n" not in answer["text"] and TOKEN not in answer["text"]
    held = server.repositories.get(repo_id)
    assert held is None or set(server.files(repo_id)) == {".gitattributes"}
    server.faults.clear()
    assert "found" in publish(folder, repo_id)
    assert state(folder) == before


def test_a_wrong_token(publish, server, folder, repo_id):
    wrong = "hf_" + "x" * 34
    answer = publish(folder, repo_id, token=wrong)
    assert answer["error"] == "PermissionError" and "hf auth login" in answer["text"]
    assert wrong not in answer["text"] and repo_id not in server.repositories


def test_rejected_metadata(publish, server, folder, repo_id):
    (folder / "README.md").write_text("---\nlicense: [1, 2]\n---\n\n# A card\n")
    before, sent = state(folder), len(server.moved())
    answer = publish(folder, repo_id)
    assert answer["error"] == "ValueError" and '"license" must be a string' in answer["text"]
    assert answer["text"].startswith("README.md: the Hub rejects the card's metadata")
    assert state(folder) == before and len(server.moved()) == sent
    assert set(server.files(repo_id)) == {".gitattributes"}


def test_metadata_that_only_the_commit_finds_wrong(publish, server, folder, repo_id):
    before = state(folder)
    server.fail("POST", "/commit/main", 400, said="Invalid metadata in README.md: base_model")
    answer = publish(folder, repo_id)
    assert answer["error"] == "ValueError" and "nothing was committed" in answer["text"]
    assert answer["text"].startswith("README.md: the Hub rejects the card's metadata (Invalid metadata in README.md")
    assert set(server.files(repo_id)) == {".gitattributes"} and state(folder) == before
    assert "found" in publish(folder, repo_id)


def test_a_second_publish_moves_only_what_changed(publish, server, folder, repo_id):
    first = publish(folder, repo_id)["found"]
    same = publish(folder, repo_id)["found"]
    assert same["sent"] == {} and same["commit"] == first["commit"]
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# A better card\n")
    asked = len(server.requests)
    second = publish(folder, repo_id)["found"]
    assert list(second["sent"]) == ["README.md"] and set(second["unchanged"]) == set(first["sent"]) - {"README.md"}
    assert not [path for method, path, _ in server.requests[asked:] if method == "PUT" or "lfs" in path]
    assert sum(size for _, path, size in server.requests[asked:] if "/commit/" in path) < 1000
    assert second["tag"] == first["tag"]  # the model itself is the same
    assert server.repositories[repo_id].tags == {first["tag"]: first["commit"]}
    assert first["commit"] != second["commit"]


def test_stale_weights_and_code_are_removed_with_the_same_commit(publish, server, folder, repo_id):
    publish(folder, repo_id)
    repository = server.repositories[repo_id]
    stale = {"model-00001-of-00002.safetensors": b"old", "old_code.py": b"", "notes.txt": b"kept"}
    repository.main = repository.commit(repository.main, {**server.files(repo_id), **stale}, "by hand")
    answer = publish(folder, repo_id)["found"]
    assert answer["removed"] == ["model-00001-of-00002.safetensors", "old_code.py"] and answer["sent"] == {}
    assert "notes.txt" in server.files(repo_id)


def test_a_pull_request_and_a_dry_run_leave_main_alone(publish, server, folder, repo_id):
    dry = publish(folder, repo_id, dry_run=True)["found"]
    assert repo_id not in server.repositories and dry["commit"] is None
    assert {"model.safetensors", "README.md", "config.json", "saliency.png", "mhex.py"} <= set(dry["sent"])
    answer = publish(folder, repo_id, create_pr=True)
    found = answer["found"]
    assert set(server.files(repo_id)) == {".gitattributes"} and found["pull_request"].endswith("/discussions/1")
    assert "model.safetensors" in server.files(repo_id, "refs/pr/1") and found["tag"] is None
    assert f'revision="{found["commit"]}"' in answer["snippet"]
    server.fail("GET", "/api/models/", "cut", 1000)
    unheard = publish(folder, repo_id, dry_run=True)
    assert unheard["error"] == "ConnectionError" and "a dry run compares with what " in unheard["text"], unheard
    assert unheard["text"].endswith("nothing was sent.")
    server.faults.clear()
    requests = len([1 for method, _, _ in server.requests if method != "GET"])
    assert publish(folder, repo_id, dry_run=True)["found"]["sent"] == dry["sent"]
    assert len([1 for method, _, _ in server.requests if method != "GET"]) == requests


def test_a_pull_request_s_card_loads_what_will_be_there(publish, server, folder, repo_id):
    """A tag is made by no pull request, so the card names none."""
    (folder / "README.md").unlink()
    answer = publish(folder, repo_id, create_pr=True)
    card = server.files(repo_id, "refs/pr/1")["README.md"].decode()
    assert 'revision="main"' in card and "Put\na commit in place" in card, answer
    assert not server.repositories[repo_id].tags
    assert "exclude each other" in publish(folder, repo_id, create_pr=True, tag="v1")["text"]
    (folder / "README.md").write_text('pipeline("image-saliency", revision="v1")')
    assert "a pull request's card loads 'main'" in publish(folder, repo_id, create_pr=True)["text"]


@pytest.mark.parametrize("how", ["lost", 500, "cut"])
def test_a_pull_request_that_may_be_open_is_not_opened_again(publish, server, folder, repo_id, how):
    server.fail("POST", "/commit/main", how)
    answer = publish(folder, repo_id, create_pr=True)
    assert answer["error"] == "ConnectionError" and "publish again only if it is not open" in answer["text"], answer
    assert repo_id in answer["text"] and "\n" not in answer["text"]
    assert len(server.repositories[repo_id].pull_requests) == (how == "lost")
    server.fail("POST", "/preupload/", 500)  # what opens nothing is repeated as ever
    assert "found" in publish(folder, repo_id, create_pr=True)


def test_an_error_that_the_caller_is_handling_is_not_taken_for_the_hub_s(monkeypatch, folder):
    class Broken:
        endpoint = "https://hub"

        def __init__(self, **unused):
            pass

        def create_repo(self, *unused, **named):
            raise LookupError("no room")

    monkeypatch.setattr(publishing, "HfApi", Broken)
    monkeypatch.setattr(publishing, "PATIENCE", 0.0)
    try:
        raise ConnectionError("of the caller")
    except ConnectionError:
        with pytest.raises(LookupError, match="no room"):
            publishing.publish(folder, "me/model")


def test_a_link_of_the_cache_says_that_it_was_left_out(folder, tmp_path):
    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    with pytest.raises(ValueError, match="model.safetensors is a link out of the folder, .* was left out; `mhex pull"):
        publishing.publish(folder, "me/model", dry_run=True)


def test_a_repository_that_is_not_seen_at_once_is_waited_for(publish, server, folder, repo_id):
    server.fail("GET", "/api/models/", 404)
    answer = publish(folder, repo_id)
    assert "found" in answer, answer
    assert "model.safetensors" in server.files(repo_id)


def test_tags_are_not_moved(publish, server, folder, repo_id):
    first = publish(folder, repo_id, tag="v1")["found"]
    assert server.repositories[repo_id].tags == {"v1": first["commit"]}
    assert publish(folder, repo_id, tag="v1")["found"]["commit"] == first["commit"]
    (folder / "README.md").write_text("# Another\n")
    answer = publish(folder, repo_id, tag="v1")
    assert answer["error"] == "ValueError" and "name a new tag" in answer["text"]
    assert "found" in publish(folder, repo_id, tag="v2")
    assert server.repositories[repo_id].tags["v1"] == first["commit"]


def test_another_model_is_not_overwritten(publish, server, folder, repo_id):
    publish(folder, repo_id)
    repository = server.repositories[repo_id]
    other = {"config.json": json.dumps({"model_type": "bert"}).encode()}
    repository.main = repository.commit(repository.main, other, "another model")
    answer = publish(folder, repo_id)
    assert answer["error"] == "ValueError" and "exists and holds a 'bert' model" in answer["text"]
    assert server.files(repo_id) == other


def test_what_does_not_belong_stays_behind(publish, server, folder, repo_id, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"not yours")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "a.pkl",
                 "pytorch_model.bin", "extra.py", ".env", "notes.txt", "events.out.tfevents.1"):  # fmt: skip
        (folder / name).write_bytes(b"private")
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "model.safetensors").write_bytes(b"private")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    found = publish(folder, repo_id)["found"]
    assert not any(b"private" in data or b"not yours" in data for data in server.files(repo_id).values())
    assert found["left_out"]["training_args.bin"] == "a pickle of the training's arguments"
    assert found["left_out"]["link.png"] == "a link out of the folder"
    assert {"optimizer.pt", "extra.py", ".env", "checkpoint-1/model.safetensors"} <= set(found["left_out"])


def test_local_paths_are_taken_out_or_stop_everything(publish, server, folder, repo_id):
    config = json.loads((folder / "preprocessor_config.json").read_text())
    local = {"is_local": True, "local_files_only": True, "name_or_path": str(folder)}
    (folder / "preprocessor_config.json").write_text(json.dumps({**config, **local}))
    before = state(folder)
    assert "found" in publish(folder, repo_id)
    sent = json.loads(server.files(repo_id)["preprocessor_config.json"])
    assert sent == config and state(folder) == before
    for name, text in (("README.md", f"# Made in {folder}\n"), ("results.json", '{"path": "/Users/me/data"}')):
        (folder / name).write_text(text)
        answer = publish(folder, repo_id)
        assert answer["error"] == "ValueError" and answer["text"].startswith(f"{name} holds the local path")
        (folder / name).unlink()


def test_a_token_in_a_file_stops_everything(publish, server, folder, repo_id):
    for token in (TOKEN, "hf_" + "aB" * 17):
        (folder / "README.md").write_text(f"# A card\n\nlogin with {token}\n")
        answer = publish(folder, repo_id)
        assert answer["error"] == "ValueError" and "README.md holds a Hub token" in answer["text"]
        assert token not in answer["text"]
    assert repo_id not in server.repositories


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", b"{", "config.json is no JSON"),
        ("config.json", b'{"model_type": "bert"}', "model_type='bert' is no MHEX model; near it is mhex_bert"),
        ("config.json", b"{}", "model_type=None is no MHEX model"),
        ("config.json", b'{"model_type": "mhex_resnet"}', "carries no code"),
        (
            "config.json",
            b'{"model_type": "mhex_resnet", "auto_map": {"AutoModel": "../../x.M"}}',
            "lacks the code file",
        ),
        ("mhex_maps.py", None, "lacks the code file 'mhex_maps.py'"),
        ("model.safetensors", None, "has no model.safetensors"),
        ("preprocessor_config.json", None, "lacks preprocessor_config.json; save its image processor"),
        ("model.safetensors.index.json", b'{"weight_map": {"w": "../../w.safetensors"}}', "lacks the weights"),
        ("README.md", b'pipeline("image-saliency", revision="v9")', "README.md loads revision='v9'"),
    ],
)
def test_a_folder_that_cannot_be_published_is_refused(publish, server, folder, repo_id, name, content, message):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    asked = len(server.requests)
    answer = publish(folder, repo_id)
    assert answer["error"] == "ValueError" and message in answer["text"], answer
    assert len(server.requests) == asked


def test_a_card_is_made_where_there_is_none(publish, server, folder, repo_id):
    """With the results of a demo in the folder above, which go along as the model's own."""
    (folder / "README.md").unlink()
    record = {"test_rows": 9, "accuracy": 0.875, "majority_class": 0.5, "completeness_error": 1e-7}
    record |= {"model": folder.name, "map_share_of_time": 0.25}
    (folder.parent / "results.json").write_text(json.dumps({"seed": 3, "models": [record]}))
    found = publish(folder, repo_id)["found"]
    card = server.files(repo_id)["README.md"].decode()
    assert f'revision="{found["tag"]}"' in card and not (folder / "README.md").exists()
    assert server.repositories[repo_id].tags[found["tag"]] == found["commit"]
    assert "| accuracy | 0.8750 |" in card and "Seed 3." in card
    assert json.loads(server.files(repo_id)["results.json"]) == {"seed": 3, **record}


def test_the_command_says_what_went_where(publish, server, folder, repo_id):
    """`mhex push`, first dry, then in earnest, then with nothing left to do, then as a pull request."""
    (folder / "optimizer.pt").write_bytes(b"private")
    said = []
    for options in (["--dry-run"], ["--tag", "v1", "--private"], ["--tag", "v1", "--json"], ["--pr"]):
        if options == ["--pr"]:
            (folder / "README.md").write_text("# Another card\n")
        done = publish.command("push", folder, repo_id, *options)
        assert done["code"] == 0 and TOKEN not in done["out"] + done["err"], done
        said.append(done["out"])
    assert "would send" in said[0] and "left here: optimizer.pt (a training's state)" in said[0]
    repository = server.repositories[repo_id]
    assert f"commit {repository.main}, tag v1" in said[1] and repository.private
    assert f'revision="{repository.main}", trust_remote_code=True' in said[1]
    assert json.loads(said[2])["sent"] == {} and json.loads(said[2])["commit"] == repository.main
    assert "pull request: " in said[3] and server.files(repo_id, "refs/pr/1")["README.md"] == b"# Another card\n"
    refused = publish.command("push", folder / "nothing", repo_id)
    assert refused["code"] == 1 and not refused["out"]
    assert refused["err"].startswith("mhex: folder=") and refused["err"].count("\n") == 1


def test_the_app_becomes_a_space(publish, server):
    assert "pinned revision" in publish(repo_id="me/why", space=True, models=["me/texts"])["text"]
    push = ["push", "me/texts@v1,me/images@v1", "me/why", "--space", "--json", "--message", "Why"]
    refused = publish.command(*push, "--tag", "v1")
    assert refused["code"] == 1 and "--tag 'v1' is for a model's release; a Space gets none" in refused["err"]
    done = publish.command(*push)
    assert server.repositories["me/why"].messages[-1] == "Why"
    found = json.loads(done["out"])
    files = server.files("me/why")
    assert server.repositories["me/why"].sdk == "gradio" and found["url"].endswith("/spaces/me/why")
    held = {"app.py", "README.md", "requirements.txt", "hf_mhex/hub/app/page.py", "hf_mhex/modeling/mhex.py"}
    assert held <= set(files)
    assert b"sdk: gradio" in files["README.md"] and b"'me/texts@v1', 'me/images@v1'" in files["app.py"]
    assert b"transformers>=" in files["requirements.txt"] and b"file:" not in files["requirements.txt"]
    assert b"datasets>=" in files["requirements.txt"] and b"gradio" not in files["requirements.txt"]
    for name, data in files.items():
        if name.endswith(".py"):
            compile(data, name, "exec")
