"""Links to explanations: what was written is read, and what was cut or changed is refused."""

import hashlib

import pytest
import torch

from hf_mhex.hub.app.links import LARGEST, Pinned, file_given, file_of, pinned, read_link, write_link
from networks import lively_resnet

MODEL = Pinned("me/clothes", "0123456789abcdef0123456789abcdef01234567")


@pytest.mark.parametrize("text", ["plain", "&label=b#?=+%26", "zwei\nZeilen\t", "نص 🙂", "<script>alert(1)</script>"])
def test_a_text_comes_back_as_it_was(text):
    link = write_link(MODEL, {"label": "*a & b*", "blocks": "0.2"}, {"text": text})
    assert link.isascii() and not set(link) & set(" <>\"'\n")
    expected = {"model": MODEL.name, "revision": MODEL.revision, "label": "*a & b*", "blocks": "0.2", "text": text}
    assert read_link(link) == expected


@pytest.mark.parametrize("size", [0, 1, LARGEST])
def test_a_small_file_comes_back_byte_by_byte(tmp_path, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "a b.png").write_bytes(data)
    assert file_of(read_link(write_link(MODEL, {}, file_given(str(tmp_path / "a b.png"))))) == data


def test_a_large_file_is_named_and_a_sample_numbered(tmp_path):
    data = bytes(LARGEST + 1)
    (tmp_path / "large.png").write_bytes(data)
    link = read_link(write_link(MODEL, {}, file_given(str(tmp_path / "large.png"))))
    assert link["name"] == "large.png" and link["sha256"] == hashlib.sha256(data).hexdigest()
    assert file_of(link) is None
    samples = [str(tmp_path / name) for name in ("one.png", "two.png")]
    for number, path in enumerate(samples):
        (tmp_path / path).write_bytes(bytes([number]))
    (tmp_path / "copy.png").write_bytes(bytes([1]))
    link = read_link(write_link(MODEL, {}, file_given(str(tmp_path / "copy.png"), samples)))
    assert link["sample"] == "1" and file_of(link, samples) == samples[1]


@pytest.mark.parametrize("fragment", ["", "#"])
def test_no_link_is_none(fragment):
    assert read_link(fragment) == {}


@pytest.mark.parametrize("fragment", ["#top", "#model=a", "#model=a&revision=b&other=c"])
def test_another_address_is_refused(fragment):
    with pytest.raises(ValueError, match="no link to an explanation"):
        read_link(fragment)


@pytest.mark.parametrize(
    "changed", [{"file": "AAA"}, {"file": "A!=="}, {"sample": "7"}, {"sample": "-1"}, {"sample": "x"}]
)
def test_a_link_that_was_cut_is_refused(changed):
    with pytest.raises(ValueError, match="cut or changed"):
        file_of(changed, ["one.png"])


def test_a_folder_is_pinned_by_its_weights(tmp_path):
    """Other weights are another revision, and the folder's place stays unsaid."""
    model = lively_resnet(torch.float32, 3)
    first = pinned(str(tmp_path), model)
    assert first == pinned(str(tmp_path), model) and first.name == tmp_path.name and "/" not in first.short
    with torch.no_grad():
        next(model.parameters()).flatten()[0].add_(1)
    assert pinned(str(tmp_path), model).revision != first.revision
    model.config._commit_hash = MODEL.revision
    assert pinned(MODEL.name, model) == MODEL and MODEL.short == "me/clothes at 0123456"
