"""The README's example of a Trainer, as printed, on the reader's own files."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer

from hf_mhex import load
from schemas import small_bert, texts, write_csv

ROOT = Path(__file__).parents[2]
MARKED = re.compile(r"<!-- trainer -->\s*```python\n(.*?)```", re.S)


def test_as_printed(tmp_path):
    """In a folder with a train.csv and a BERT under the name that the example asks for."""
    code = MARKED.search((ROOT / "README.md").read_text())[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    torch.manual_seed(0)
    small_bert(tmp_path / "bert-base-uncased")
    found, labels = texts(64)
    write_csv(tmp_path / "train.csv", {"text": found, "label": [label % 2 for label in labels]})
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    model, tokenizer = load(tmp_path / "my-model")
    assert isinstance(tokenizer, type(AutoTokenizer.from_pretrained(tmp_path / "bert-base-uncased")))
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert "block_losses" not in done.stdout and "phone" in done.stdout
