"""The demo: an image and a text model on the embedded data, trained, saved, loaded, explained and shown."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    TrainingArguments,
    set_seed,
)

from hf_mhex.benchmarks.explanations.loading import image_part, shuffled, text_part
from hf_mhex.benchmarks.explanations.parts import Images, Texts
from hf_mhex.benchmarks.explanations.summary import summarise_quality
from hf_mhex.conversion import convert
from hf_mhex.data.samples import load_sample
from hf_mhex.environment import environment, source_commit
from hf_mhex.evaluation.part_removal import part_removal, tokenizer_options
from hf_mhex.explaining.words import explain_words
from hf_mhex.families import KINDS, Kind
from hf_mhex.loading import load
from hf_mhex.pictures.maps import block_strip, overlay
from hf_mhex.pictures.words import words_html
from hf_mhex.processors import image_processor_for, restore_image
from hf_mhex.training.consistency import PartConsistency
from hf_mhex.training.inputs import mosaics_of
from hf_mhex.training.models import minilm_folder
from hf_mhex.training.progress import tell_by_epoch
from hf_mhex.training.trainer import MHEXTrainer
from hf_mhex.writing import whole, write_whole

SEED = 0
BATCH = 32
FROZEN = 2  # layers of the text model that stay as they are
STRANGER = Path(__file__).with_name("stranger.py")
JUDGED = 200  # test rows whose maps are measured
SHOWN = 8  # images and texts in the pictures
RECIPE = (  # what the results say of a training
    "num_train_epochs", "per_device_train_batch_size", "learning_rate", "lr_scheduler_type", "warmup_steps",
    "weight_decay", "optim", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One model in the demo: its kind of input, with the embedded sample of that kind, and its folder's name."""

    kind: Kind
    folder: str


IMAGES = Part(KINDS["image"], "mhex-resnet-fashion-mnist")
TEXTS = Part(KINDS["text"], "mhex-bert-product-reviews")


def label_names(data: DatasetDict) -> dict[int, str]:
    """The sample's labels, as a config's `id2label`."""
    return dict(enumerate(data["train"].features["label"].names))


def fit(
    model: PreTrainedModel, rows: Dataset, collate: Callable, folder: Path, device, parts=None, **arguments
) -> dict:
    """Fine-tune and save the model, with its code, into `folder`; the recipe as numbers."""
    trainer = MHEXTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=BATCH,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            save_strategy="no",
            logging_strategy="epoch",
            report_to="none",
            disable_tqdm=False,  # its default follows transformers' verbosity, which `mhex` lowers
            seed=SEED,
            use_cpu=device.type == "cpu",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            **arguments,
        ),
        train_dataset=rows,
        data_collator=collate,
        part_consistency=parts,
    )
    tell_by_epoch(trainer)
    trainer.train()
    model.save_pretrained(folder)
    used = trainer.args.to_dict()
    found = {"train_rows": len(rows)} | {name: used[name] for name in RECIPE}
    return found if parts is None else found | {"part_consistency": parts.weight, "part_share": parts.share}


def train_images(folder: Path, device: torch.device) -> dict:
    """A small ResNet of six blocks at 56 pixels, whose last maps keep 7 x 7 cells, from scratch on Fashion-MNIST."""
    set_seed(SEED)
    data = load_sample(IMAGES.kind.sample)
    architecture = {"layers": [1, 2, 2, 1], "channels": [32, 48, 64, 96], "output_stride": 8}
    model = convert("resnet18", id2label=label_names(data), architecture_kwargs=architecture)
    model.to(memory_format=torch.channels_last)  # a step takes about a tenth less time on a processor
    processor = image_processor_for(model.config, image_size=56, crop_pct=1.0, mean=(0.286,) * 3, std=(0.353,) * 3)
    processor.save_pretrained(folder)
    images = processor(list(data["train"]["image"]), return_tensors="pt")["pixel_values"]  # once, not every epoch
    epochs, steps = 10, math.ceil(len(images) / BATCH)
    joined = iter((torch.rand(epochs * steps) < 0.5) & (torch.arange(epochs * steps) < 7 * steps))  # in 7 epochs

    def collate(rows: list[dict]) -> dict:
        pixels = images[[row["row"] for row in rows]]
        mirrored = torch.rand(len(rows)) < 0.5
        pixels[mirrored] = pixels[mirrored].flip(-1)
        labels = torch.tensor([row["label"] for row in rows])
        pixels, labels = mosaics_of(pixels, labels) if next(joined) else (pixels, labels)
        return {"pixel_values": pixels, "labels": labels}

    rows = data["train"].remove_columns("image").add_column("row", list(range(len(images))))
    return fit(model, rows, collate, folder, device, learning_rate=1e-2, weight_decay=0.05, num_train_epochs=epochs)


def train_texts(folder: Path, device: torch.device) -> dict:
    """MiniLM, converted, on the product reviews: the upper four of its six layers learn, and every head.

    A quarter of the rows pass once more without some of their words: removals then follow the maps better.
    """
    set_seed(SEED)
    data = load_sample(TEXTS.kind.sample)
    source = minilm_folder()
    model, report = convert(source, id2label=label_names(data), output_loading_info=True)
    print(f"MiniLM becomes {type(model).__name__}; {report}")
    for part in (model.base_model.embeddings, *model.base_model.encoder.layer[:FROZEN]):
        part.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(source, model_max_length=128)
    tokenizer.save_pretrained(folder)
    rows = data["train"].map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True)
    collate = DataCollatorWithPadding(tokenizer)
    rows = rows.remove_columns(["text", "score"])
    by_length = {"train_sampling_strategy": "group_by_length"}
    parts = PartConsistency(1.0, share=0.25)
    return fit(model, rows, collate, folder, device, parts, learning_rate=2e-4, num_train_epochs=2, **by_length)


def ask_stranger(part: Part, folder: Path, answers: Path, device: torch.device) -> tuple[dict, dict]:
    """Have a fresh process without hf_mhex load the folder and explain the test rows; its record and its tensors."""
    answers.mkdir(parents=True, exist_ok=True)
    rows = answers / "rows.parquet"
    with whole(rows) as place:
        load_sample(part.kind.sample)["test"].select_columns(part.kind.column).to_parquet(place)
    words = [part.kind.task, str(folder), str(rows), str(answers), str(device)]
    subprocess.run([sys.executable, "-I", str(STRANGER), *words], check=True)
    return json.loads((answers / "answers.json").read_text()), load_file(answers / "answers.safetensors")


def measure(part: Part, record: dict, tensors: dict) -> dict:
    """The row of the table: accuracy and majority class, completeness error, and the time that the map took."""
    data = load_sample(part.kind.sample)["test"]
    names = data.features["label"].names
    right = [names[label] == found for label, found in zip(data["label"], record["labels"])]
    logits = tensors["logits"].amax(-1)
    error = (tensors["saliency"].double().flatten(1).sum(1) - logits).abs() / logits.abs().clamp(min=1)
    return {
        "model": part.folder,
        "test_rows": len(right),
        "accuracy": sum(right) / len(right),
        "majority_class": max(Counter(data["label"]).values()) / len(right),
        "completeness_error": error.max().item(),
        "map_share_of_time": max(0.0, 1 - 1 / record["time_ratio"]),
    }


def judge(part: Part, folder: Path, device: torch.device) -> dict:
    """How good the maps are on test rows: the few measures that the model's card shows, and what they foretell."""
    data = load_sample(part.kind.sample)["test"]
    data = data.select(shuffled(len(data), SEED)[:JUDGED])
    model, processor = load(folder)
    model.to(device)
    rows: Images | Texts
    if part.kind.name == "image":
        rows = image_part(data["image"], data["label"], processor)
        inputs = ({"pixel_values": pixels} for _, pixels in rows.batches(32))
    else:
        rows = text_part(data["text"], data["label"], processor, processor.model_max_length)
        inputs = (dict(processor(text, truncation=True, return_tensors="pt")) for text in data["text"])
    found = part_removal(model, inputs, seed=SEED, **tokenizer_options(processor))
    return {"explanation": summarise_quality(model, rows, seed=SEED), "part_removal": found.as_dict()}


def draw_images(folder: Path, record: dict, tensors: dict, output: Path) -> list[Path]:
    """One overlay of the lead for each shown image, all of them on one sheet, and the first one's blocks."""
    data = load_sample(IMAGES.kind.sample)["test"]
    processor = AutoImageProcessor.from_pretrained(folder)
    pictures, paths = [], []
    for row in range(SHOWN):
        pixels = processor(data[row]["image"], return_tensors="pt")["pixel_values"][0]
        title = (
            f"{record['labels'][row]} ({record['scores'][row]:.2f})\n{tensors['lead'][row]:+.2f} ahead of the others"
        )
        picture = overlay(restore_image(pixels, processor), tensors["lead_saliency"][row], title=title, size=224)
        pictures.append(picture)
        paths.append(output / f"overlay-{row}.png")
        with whole(paths[-1]) as place:
            picture.save(place)
    blocks = [tensors[f"block.{block}"] for block in range(6)]
    pixels = processor(data[0]["image"], return_tensors="pt")["pixel_values"][0]
    title = f"{record['labels'][0]}, block by block"
    strip = block_strip(restore_image(pixels, processor), blocks, title=title, columns=7, size=160)
    drawn = {output / "blocks.png": strip, output / "overlays.png": sheet(pictures, columns=4)}
    for path, picture in drawn.items():
        with whole(path) as place:
            picture.save(place)
    return [*paths, *drawn]


def sheet(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures side by side on white, `columns` to a line."""
    lines = [np.hstack([np.asarray(p) for p in pictures[i : i + columns]]) for i in range(0, len(pictures), columns)]
    return Image.fromarray(np.vstack(lines))


def draw_texts(folder: Path, record: dict, tensors: dict, output: Path) -> list[Path]:
    """One page with the shown texts, their words coloured."""
    data = load_sample(TEXTS.kind.sample)["test"]
    rows = range(0, len(data), len(data) // SHOWN)[:SHOWN]
    texts = [data[row]["text"] for row in rows]
    encoding = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    maps = tensors["lead_saliency"][list(rows), : encoding["input_ids"].shape[1]]
    names = data.features["label"].names
    other = dict(zip(names, reversed(names))).__getitem__
    entries = [
        (
            explained,
            f"{record['labels'][row]} ({record['scores'][row]:.2f}); rated as {names[data[row]['label']]}",
            tensors["lead"][row].item(),
            f"{tensors['lead'][row]:+.2f} ahead of {other(record['labels'][row])}; red speaks for "
            f"{record['labels'][row]}, blue against it",
        )
        for row, explained in zip(rows, explain_words(texts, encoding, maps))
    ]
    path = output / "words.html"
    write_whole(path, words_html(entries, title="Product reviews, word by word"))
    return [path]


def run(output: Path, device: torch.device) -> dict:
    """Do all of it on a device, into the folder `output`; return the record that results.json holds there.

    Raises RuntimeError where the demo extra is missing.
    """
    started, commit = time.perf_counter(), source_commit()
    minilm_folder()
    output.mkdir(parents=True, exist_ok=True)
    rows, pictures = [], []
    for part, train, draw in ((IMAGES, train_images, draw_images), (TEXTS, train_texts, draw_texts)):
        folder = output / part.folder
        print(f"Training {part.folder} ...", flush=True)
        recipe = train(folder, device)
        print(f"Loading {part.folder} in a fresh process without hf_mhex ...", flush=True)
        record, tensors = ask_stranger(part, folder, output / "answers" / part.folder, device)
        rows.append(measure(part, record, tensors) | judge(part, folder, device) | {"recipe": recipe})
        pictures += draw(folder, record, tensors, output)
    result = {"command": "mhex demo", "seed": SEED, "seconds": time.perf_counter() - started, "models": rows}
    result |= {"environment": environment(), "commit": commit}
    write_whole(output / "results.json", json.dumps(result, indent=2) + "\n")
    return result | {"pictures": [str(path) for path in pictures]}
