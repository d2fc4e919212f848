"""The embedded samples are what SOURCES.md says, small, licensed, and split without overlap."""

import re
from collections import Counter

import numpy as np
import pytest

from hf_mhex import load_sample
from hf_mhex.data.samples import FOLDER, SAMPLES


def test_fashion_mnist():
    data = load_sample("fashion_mnist")
    assert Counter(data["train"]["label"]) == dict.fromkeys(range(10), 220)
    assert Counter(data["test"]["label"]) == dict.fromkeys(range(10), 60)
    assert data["test"].features["label"].names[9] == "Ankle boot"
    pictures = [np.asarray(image) for image in data["test"]["image"]]
    assert {picture.shape for picture in pictures} == {(28, 28)}
    assert 60 < np.mean(pictures) < 90
    seen = {image.tobytes() for image in data["train"]["image"]}
    assert not any(picture.tobytes() in seen for picture in pictures)


def test_product_reviews():
    data = load_sample("product_reviews")
    assert (len(data["train"]), len(data["test"])) == (2386, 591)
    for split in data.values():
        scores, labels = np.array(split["score"]), np.array(split["label"])
        assert (np.abs(scores) >= 0.5).all() and (labels == (scores > 0)).all()
        assert all(text and text == text.strip() for text in split["text"])
    assert not set(data["train"]["text"]) & set(data["test"]["text"])
    assert data["train"].features["label"].names == ["negative", "positive"]


@pytest.mark.parametrize("name", SAMPLES)
def test_size_licence_and_source(name):
    assert sum(path.stat().st_size for path in FOLDER.glob(f"{name}*.parquet")) < 1_500_000
    assert "MIT License" in (FOLDER / f"{name}.LICENSE").read_text()
    data = load_sample(name)
    stated = re.search(rf"`{name}` \| ([\d,]+), (\d+) \|", (FOLDER / "SOURCES.md").read_text())
    assert [int(count.replace(",", "")) for count in stated.groups()] == [len(data["train"]), len(data["test"])]


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of 'fashion_mnist', 'product_reviews'.*got 'mnist'"):
        load_sample("mnist")
