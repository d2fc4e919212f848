"""The time that `mhex explain` takes from the shell to its answer, loading of the model included.

    python -m hf_mhex.training.studies.explain_time [ROUNDS]

prints one JSON row, kept in results/explain_time.json: the median over fresh processes, in seconds, for an image by an
MHEX-ResNet-50 and for a text by an MHEX-BERT made of MiniLM. The heads are new: time does not depend on what they say.
Beside them stands what `import torch` and transformers' BERT take alone, in the same turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from transformers import AutoTokenizer

from hf_mhex import convert, image_processor_for, load_sample
from hf_mhex.environment import environment
from hf_mhex.training.models import minilm_folder

IMPORTS = ["-c", "import torch, transformers.models.bert.modeling_bert"]


def seconds(arguments: list[str]) -> float:
    """Seconds of a Python process with these arguments."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - started


def main(rounds: int = 7) -> None:
    """Make both models, measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        image, text = Path(folder) / "image", Path(folder) / "text"
        model = convert("resnet50", num_labels=10)
        model.save_pretrained(image)
        image_processor_for(model.config).save_pretrained(image)
        convert(minilm_folder(), num_labels=2).save_pretrained(text)
        AutoTokenizer.from_pretrained(minilm_folder()).save_pretrained(text)
        picture = Path(folder) / "picture.png"
        load_sample("fashion_mnist")["test"][0]["image"].save(picture)
        sentence, verb = load_sample("product_reviews")["test"][0]["text"], ["-m", "hf_mhex.cli", "explain"]
        asked = {"image": [*verb, str(image), str(picture)], "text": [*verb, str(text), sentence], "imports": IMPORTS}
        turns = [{name: seconds(given) for name, given in asked.items()} for _ in range(rounds)]
        found = {name: [turn[name] for turn in turns] for name in asked}
    row = {name: round(statistics.median(values), 1) for name, values in found.items()}
    print(json.dumps({"seconds": row, "rounds": rounds, "environment": environment()}, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
