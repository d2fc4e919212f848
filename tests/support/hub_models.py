"""Small models that the Hub's tests publish, with their tokenizer or image processor, and who publishes and pulls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from hf_mhex import (
    MHEXBertConfig,
    MHEXBertForSequenceClassification,
    MHEXSignalConfig,
    MHEXSignalFeatureExtractor,
    MHEXSignalForClassification,
    convert,
    image_processor_for,
    load_sample,
)
from minilm import MINILM
from networks import FIELDS, enliven, family_named, lively_resnet

TESTS = Path(__file__).parents[1]
SENTENCES = ["good phone", "the battery is bad", "I like it, mostly.", "no", "unbelievably poor"]


def save_text_model(folder):
    """An MHEX-BERT of real vocabulary, above the LFS threshold of 10 MiB."""
    tokenizer = AutoTokenizer.from_pretrained(MINILM, model_max_length=128)
    batch = dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))
    torch.manual_seed(0)
    names = {0: "bad", 1: "good", 2: "unclear"}
    sizes = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    config = MHEXBertConfig(
        vocab_size=len(tokenizer), id2label=names, problem_type="single_label_classification", **sizes
    )
    model = enliven(MHEXBertForSequenceClassification(config).double(), batch).float()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.generate_saliency(**batch)


def save_image_model(folder, pictures):
    """An MHEX-ResNet, and six pictures in the folder `pictures`; their paths and what the model says of them."""
    names = {0: "a", 1: "b", 2: "c"}
    model = lively_resnet(torch.float32, 3, id2label=names, problem_type="single_label_classification")
    processor = image_processor_for(model.config, image_size=40)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    paths = save_pictures(pictures)
    inputs = processor([Image.open(path) for path in paths], return_tensors="pt")
    return paths, model.generate_saliency(**inputs)


def save_signal_model(folder, axis=None):
    """An MHEX-Signal on the embedded sample's spectra, or on another `axis`, and its feature extractor.

    Returns four spectra and what the model says of them.
    """
    rows = load_sample("coffee")["test"]
    axis = list(range(len(rows[0]["signal"]))) if axis is None else axis
    torch.manual_seed(0)
    config = MHEXSignalConfig(axis=axis, id2label={0: "a", 1: "b", 2: "c"}, **FIELDS["signal"])
    processor = MHEXSignalFeatureExtractor().fit(np.array(rows[:8]["signal"])[:, : len(axis)])
    model = MHEXSignalForClassification(config).double()
    items = np.array(rows[8:12]["signal"])[:, : len(axis)].tolist()
    batch = processor(items, return_tensors="pt")
    model = enliven(model, {"input_values": batch["input_values"].double()}).float()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return items, model.generate_saliency(**batch)


def save_pictures(folder):
    """Six pictures of noise; their paths."""
    generator = torch.Generator().manual_seed(1)
    folder.mkdir()
    paths = []
    for number in range(6):
        pixels = torch.randint(0, 256, (50, 44, 3), generator=generator, dtype=torch.uint8)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(pixels.numpy()).save(paths[-1])
    return paths


def save_converted(name, folder, pictures):
    """A small plain checkpoint of a family's source, converted with two default labels, enlivened and saved.

    Returns the items that it was tried with and its answer.
    """
    family, plain = family_named(name), folder.with_name(f"plain-{name}")
    plain.mkdir()
    torch.manual_seed(0)
    if family.kind == "image":
        architecture, kwargs = FIELDS[name]["architecture"], FIELDS[name]["architecture_kwargs"]
        save_file(timm.create_model(architecture, **kwargs).state_dict(), plain / "plain.safetensors")
        model = convert(plain / "plain.safetensors", architecture=architecture, architecture_kwargs=kwargs)
        processor = image_processor_for(model.config, image_size=48)
        items = save_pictures(pictures)
        batch = dict(processor([Image.open(path) for path in items], return_tensors="pt"))
    else:
        processor, items = AutoTokenizer.from_pretrained(MINILM, model_max_length=40), SENTENCES
        fields = FIELDS[name] | {"vocab_size": len(processor), "pad_token_id": processor.pad_token_id}
        AutoModel.from_config(AutoConfig.for_model(family.sources[0], **fields)).save_pretrained(plain)
        processor.save_pretrained(plain)
        model = convert(plain)
        batch = dict(processor(items, padding=True, return_tensors="pt"))
    double = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    model = enliven(model.double(), double).float()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return items, model.generate_saliency(**batch)


def check_pulled(record, answer):
    """A record of stranger_pulls.py against the answers of the model where it was made."""
    assert answer.logits.abs().max() > 0.5
    for found, expected in zip(record["logits"], answer.logits.tolist(), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    best = answer.logits.argmax(-1).tolist()
    for one, stock, label, logits in zip(record["answers"], record["stock"], best, record["logits"], strict=True):
        assert one[0]["target"] == label and len(one) == 2
        assert one[0]["label"] == stock["label"]
        assert one[0]["score"] == pytest.approx(stock["score"], abs=1e-5)
        assert one[0]["explained"] == pytest.approx(logits[label], abs=1e-4)
    assert all(name.startswith("transformers_modules") for name in record["classes"])
    assert "trust_remote_code=True" in record["refusal"]


def environment(home, server, token=None):
    """Variables for a process that talks to the stub Hub alone, with a home of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HF_")) and "proxy" not in k.lower()}
    own = {"HF_HOME": str(home), "HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return kept | own | quiet | ({"HF_TOKEN": token} if token else {})


def pull(job, home, server, token=None, python=sys.executable, **variables):
    """What stranger_pulls.py answers to a job."""
    home.mkdir(parents=True, exist_ok=True)
    command = [str(python), "-I", str(TESTS / "hub" / "stranger_pulls.py"), json.dumps({**job, "home": str(home)})]
    done = subprocess.run(
        command, env=environment(home, server, token) | variables, cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


class Publisher:
    """A process that publishes what it is told to (publisher.py)."""

    def __init__(self, home, server, token=None):
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "hub" / "publisher.py")],
            env=environment(home, server, token),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, folder=None, repo_id="me/model", **arguments):
        return self.ask({"repo_id": repo_id, **arguments} | ({"folder": str(folder)} if folder else {}))

    def command(self, *words):
        """What a `mhex` command answers."""
        return self.ask({"command": [str(word) for word in words]})

    def ask(self, given):
        """The answer to one line."""
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()[-4000:]
        return json.loads(line)

    def close(self):
        """End the process and give what it wrote to stderr."""
        return self.process.communicate(timeout=30)[1]
