"""Files and folders that are there as a whole or not at all."""

import pytest

from hf_mhex.writing import whole, write_whole


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
