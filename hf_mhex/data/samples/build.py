"""How the embedded samples were made: from Debian's dataset-fashion-mnist and PyPI's vaderSentiment and chemotools.

apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb fashion
pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
pip download --no-deps chemotools==0.5.0
python -m hf_mhex.data.samples.build fashion/usr/share/datasets/fashion-mnist vaderSentiment-3.3.2.tar.gz \\
    chemotools-0.5.0-py3-none-any.whl
"""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import typer
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from hf_mhex.data.arrays import read_idx_folder
from hf_mhex.data.samples import FOLDER

GARMENTS = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
IMAGES_PER_CLASS = {"train": 220, "test": 60}
REVIEWS = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
CLEAR_OPINION = 0.5  # |mean rating| below which a sentence is left out
TEST_REVIEW_EVERY = 5
ORIGINS = ["Ethiopia", "Brasil", "Vietnam"]
TEST_SPECTRA = (2, 5, 8)  # last digits of the rows' numbers


def png(pixels: np.ndarray) -> dict:
    """A gray image [H, W] of bytes as `datasets` stores it."""
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return {"bytes": buffer.getvalue(), "path": None}


def fashion_mnist(folder: Path, split: str) -> Dataset:
    """The first images of each class of the official file for `split`, in the file's order."""
    found = read_idx_folder(folder)[split]
    images, labels = found["image"], found["label"]
    first = [np.flatnonzero(labels == label)[: IMAGES_PER_CLASS[split]] for label in range(len(GARMENTS))]
    chosen = np.sort(np.concatenate(first))
    rows = {"image": [png(image) for image in images[chosen]], "label": labels[chosen].tolist()}
    return Dataset.from_dict(rows, Features({"image": Image(), "label": ClassLabel(names=GARMENTS)}))


def read_member(archive: tarfile.TarFile, name: str) -> bytes:
    """A file of an archive; ValueError for what is no file."""
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file of the archive.")
    return file.read()


def product_reviews(archive: Path, split: str) -> Dataset:
    """Sentences with a clear opinion; every fifth review, whole, is for testing. A sentence stands here once."""
    with tarfile.open(archive) as outer:
        inner = read_member(outer, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        lines = read_member(tar, REVIEWS).decode().splitlines()
    rows: dict[str, list] = {"text": [], "label": [], "score": []}
    seen: set[str] = set()
    for line in lines:
        identity, score, text = line.split("\t")
        for_testing = int(identity.split("_")[0]) % TEST_REVIEW_EVERY == 0
        if abs(float(score)) < CLEAR_OPINION or text in seen:
            continue
        seen.add(text)
        if for_testing == (split == "test"):
            for column, value in zip(rows, (text.strip(), int(float(score) > 0), float(score))):
                rows[column].append(value)
    labels = ClassLabel(names=["negative", "positive"])
    return Dataset.from_dict(rows, Features({"text": Value("string"), "label": labels, "score": Value("float32")}))


def coffee(wheel: Path, split: str) -> Dataset:
    """Spectra in float16; three of ten consecutive rows are for testing."""
    with zipfile.ZipFile(wheel) as files:
        parts = (files.read(f"chemotools/datasets/data/coffee_{name}.csv").decode() for name in ("spectra", "labels"))
        spectra, labels = (text.splitlines()[1:] for text in parts)
    chosen = [row for row in range(len(labels)) if (row % 10 in TEST_SPECTRA) == (split == "test")]
    values = np.array([spectra[row].split(",") for row in chosen], dtype=np.float16)
    rows = {"signal": list(values), "label": [ORIGINS.index(labels[row].strip()) for row in chosen]}
    features = Features({"signal": List(Value("float16")), "label": ClassLabel(names=ORIGINS)})
    return Dataset.from_dict(rows, features)


def main(fashion: Path, vader: Path, chemotools: Path) -> None:
    """Write the Parquet files into the package from the sources."""
    for split in ("train", "test"):
        for name, data in (
            ("fashion_mnist", fashion_mnist(fashion, split)),
            ("product_reviews", product_reviews(vader, split)),
            ("coffee", coffee(chemotools, split)),
        ):
            path = FOLDER / f"{name}-{split}.parquet"
            data.to_parquet(path)
            typer.echo(f"{path.name}: {len(data)} rows, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(main)
