"""Files and folders that are there as a whole or not at all."""

import ast
from pathlib import Path

import pytest

from hf_mhex.writing import make_folder, whole, write_whole


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole(path) as place:
        place.write_text("one")
        place.with_name("a.txt.data").write_text("two")  # as ONNX writes beside its file
        assert not path.exists() and place.name == path.name
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.txt", "a.txt.data"] and path.read_text() == "one"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_ends_early_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    write_whole(path, "before")
    with pytest.raises(error), whole(path) as place:
        place.write_text("half")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "before"


def test_a_folder_replaces_an_empty_one_alone(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with whole(folder) as place:
        place.mkdir()
        (place / "config.json").write_text("{}")
    assert [p.name for p in folder.iterdir()] == ["config.json"]
    with pytest.raises(OSError), whole(folder) as place:
        place.mkdir()
    assert [p.name for p in tmp_path.iterdir()] == ["model"] and [p.name for p in folder.iterdir()] == ["config.json"]


ROOT = Path(__file__).parents[1]
WRITERS = {"write_text", "write_bytes", "save", "savefig", "savez_compressed", "to_parquet"}
PASSING = {  # files that write what nobody keeps, or what is there for a moment
    "hf_mhex/benchmarks/speed/memory.py": "a counter of the kernel",
    "hf_mhex/benchmarks/speed/runtime.py": "a temporary folder that is measured",
    "hf_mhex/data/samples/build.py": "the embedded samples, made once in a checkout",
    "hf_mhex/explaining/explanation.py": "a picture in memory",
    "hf_mhex/hub/app/page.py": "a temporary folder that the page serves",
    "training/stranger.py": "answers for the process that waits for them",
    "training/studies/engines.py": "a temporary folder that is measured",
    "training/studies/explain_time.py": "a temporary folder that is measured",
    "training/studies/situations.py": "a temporary folder that is tried",
}
FILES = sorted(path for room in ("hf_mhex", "training") for path in (ROOT / room).rglob("*.py"))


def names_in(*nodes):
    return {found.id for node in nodes for found in ast.walk(node) if isinstance(found, ast.Name)}


def written_at_once(tree):
    """Calls that write a file, but not to a path that `with whole(...) as path` gave."""
    given = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With):
            for item in node.items:
                if item.optional_vars is not None and "whole" in names_in(item.context_expr):
                    given |= names_in(item.optional_vars)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITERS:
            place = [node.func.value] if node.func.attr.startswith("write_") else node.args
            if not names_in(*place) & given:
                yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_that_users_keep_are_written_as_a_whole(path):
    """By write_whole or inside `with whole(...)`: Ctrl-C leaves the file of before, never half of a new one."""
    found = list(written_at_once(ast.parse(path.read_text())))
    assert bool(found) == (path.relative_to(ROOT).as_posix() in PASSING), found


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    file = tmp_path / "answers"
    file.write_text("kept")
    for folder in (file, file / "below"):
        with pytest.raises(ValueError, match=r"answers' is a file, and a folder is needed there; name another place"):
            make_folder(folder)
    with pytest.raises(ValueError, match="is a file, and a folder is needed"), whole(file / "a.txt"):
        pass
    assert file.read_text() == "kept"
