"""The time that `mhex explain` takes from the shell to its answer, loading of the model included.

    python -m hf_mhex.training.studies.explain_time [ROUNDS]

prints one JSON row, kept in results/explain_time.json: the median over fresh processes, in seconds of the clock and of
the processor (waiting, as for a shared machine, is not in these), for an image by an MHEX-ResNet-50 and for a text by
an MHEX-BERT made of MiniLM. The heads are new: time does not depend on what they say. Beside them stands what `import
torch` and transformers' BERT take alone, in the same turns. A first turn, not counted, leaves the bytecode that an
installed package has.
"""

from __future__ import annotations

import json
import os
import resource
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


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of the processor of a Python process with these arguments."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started, used = time.perf_counter(), processor_seconds()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True, env=variables)
    return time.perf_counter() - started, processor_seconds() - used


def processor_seconds() -> float:
    """What the processes that this one has started and waited for have used."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


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
        turns = [{name: seconds(given) for name, given in asked.items()} for _ in range(rounds + 1)][1:]
    row: dict = {}
    for place, kind in enumerate(("seconds", "processor_seconds")):
        row[kind] = {name: round(statistics.median(turn[name][place] for turn in turns), 1) for name in asked}
    print(json.dumps(row | {"rounds": rounds, "environment": environment()}, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
