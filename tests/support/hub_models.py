"""Which models do the Hub's tests publish? Two small ones with their tokenizer or image processor, saved."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoTokenizer

from hf_mhex import MHEXBertConfig, MHEXBertForSequenceClassification, image_processor_for
from minilm import MINILM
from networks import enliven, lively_resnet

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
    generator = torch.Generator().manual_seed(1)
    pictures.mkdir()
    paths = []
    for number in range(6):
        pixels = torch.randint(0, 256, (50, 44, 3), generator=generator, dtype=torch.uint8)
        paths.append(pictures / f"{number}.png")
        Image.fromarray(pixels.numpy()).save(paths[-1])
    inputs = processor([Image.open(path) for path in paths], return_tensors="pt")
    return [str(path) for path in paths], model.generate_saliency(**inputs)


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
