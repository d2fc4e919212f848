"""Generated data for the training tests, in the very form of the sets that the recipes name."""

import csv
import gzip
import json

import numpy as np
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

TOPICS = {
    "World": ["president", "war", "election", "treaty", "border", "minister"],
    "Sports": ["match", "goal", "coach", "season", "player", "league"],
    "Business": ["market", "profit", "shares", "bank", "stocks", "trade"],
    "Sci/Tech": ["software", "planet", "internet", "chip", "virus", "rocket"],
}
FILLER = ["the", "a", "of", "and", "to", "in", "with", "for", "after", "new", "says"]


def texts(rows, seed=0, topics=TOPICS):
    """Texts of a topic's words among filler, and the numbers of their topics."""
    generator = np.random.default_rng(seed)
    names, found, labels = list(topics), [], []
    for row in range(rows):
        label = row % len(names)
        words = [*generator.choice(topics[names[label]], 3), *generator.choice(FILLER, generator.integers(2, 9))]
        found.append(" ".join(generator.permutation(words)))
        labels.append(label)
    return found, labels


def write_csv(path, columns):
    """Columns by name as a CSV with a header."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))
    return path


def small_bert(folder, layers=2, **fields):
    """A folder with a plain BERT of random weights whose tokenizer knows the topics' words."""
    words = [word for topic in TOPICS.values() for word in topic] + FILLER
    vocabulary = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    marks = {
        name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    }
    BertTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 40}
    config = BertConfig(vocab_size=len(vocabulary), num_hidden_layers=layers, initializer_range=0.1, **sizes, **fields)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def patches(labels, size, classes, colour, seed=0, several=False):
    """Images [N, size, size(, 3)] of noise with a bright patch whose place tells the class (or, each of several)."""
    generator = np.random.default_rng(seed)
    shape = (len(labels), size, size, 3) if colour else (len(labels), size, size)
    images = generator.integers(0, 60, shape, dtype=np.uint8)
    grid = int(np.ceil(np.sqrt(classes)))
    side = size // grid
    for image, label in zip(images, labels):
        for k in np.flatnonzero(label) if several else [int(label)]:
            x, y = divmod(int(k), grid)  # the first two lie one above the other, so that a mirror keeps them apart
            image[y * side : (y + 1) * side, x * side : (x + 1) * side] += np.uint8(150)
    return images


def write_medmnist(path, classes, colour, size=28, counts=(96, 32, 32), several=False, seed=0):
    """A file in MedMNIST's form: uint8 images, labels [N, 1], or [N, classes] of 0 and 1 for several."""
    arrays = {}
    for number, (split, rows) in enumerate(zip(("train", "val", "test"), counts)):
        generator = np.random.default_rng(seed + number)
        if several:
            labels = (generator.random((rows, classes)) < 0.3).astype(np.uint8)
            labels[np.arange(rows), np.arange(rows) % classes] = 1
            labels[np.arange(rows), (np.arange(rows) + 1) % classes] = 0
        else:
            labels = (np.arange(rows) % classes).astype(np.uint8)
        arrays[f"{split}_images"] = patches(labels, size, classes, colour, seed + number, several)
        arrays[f"{split}_labels"] = labels if several else labels[:, None]
    np.savez(path, **arrays)
    return path


def write_idx(folder, classes=10, size=28, counts=(120, 40), packed=True, seed=0):
    """The four files of MNIST's form: images [N, size, size] and labels [N] of bytes behind their headers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (stem, rows) in enumerate(zip(("train", "t10k"), counts)):
        labels = (np.arange(rows) % classes).astype(np.uint8)
        images = patches(labels, size, classes, colour=False, seed=seed + number)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">u4").tobytes()
            path = folder / f"{stem}-{kind}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(header + values.tobytes()))
            else:
                path.write_bytes(header + values.tobytes())
    return folder


def write_image_folder(folder, classes=3, rows=12, size=40, splits=("train", "validation"), seed=0):
    """folder/split/class/number.png, colour."""
    for number, split in enumerate(splits):
        labels = np.arange(rows) % classes
        for row, (image, label) in enumerate(zip(patches(labels, size, classes, True, seed + number), labels)):
            place = folder / split / f"class_{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{row}.png")
    return folder


def read_log(output):
    """The logged entries of a run."""
    return json.loads((output / "log.json").read_text())
