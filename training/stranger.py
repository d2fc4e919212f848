"""A saved model as it is without hf_mhex: run in a fresh process that has transformers and timm alone.

    python -I stranger.py TASK MODEL ROWS ANSWERS DEVICE

TASK is "image-classification" or "text-classification", MODEL a saved folder, ROWS a Parquet file with a column `image`
or `text`; ANSWERS is a folder for answers.json (labels and scores of the stock pipeline, ratios of time) and
answers.safetensors: logits [N, K], maps of the logits, and maps of the leads over the mean of the other labels.
"""

import json
import statistics
import sys
import time
from pathlib import Path

sys.modules["hf_mhex"] = None  # type: ignore[assignment]  # an import of it, from anywhere in this process, now raises ImportError

import torch
import torch.nn.functional as F
from datasets import Dataset
from safetensors.torch import save_file
from transformers import pipeline

BATCH = 32  # more rows than any of the demo's models has blocks
LENGTH = 128  # tokens
ROUNDS = 15


def main(task: str, model: str, rows: Path, answers: Path, device: str) -> None:
    """Classify all rows by the stock pipeline, then explain them with the very model that the pipeline loaded."""
    pipe = pipeline(task, model=model, trust_remote_code=True, device=device)
    data = Dataset.from_parquet(str(rows))
    items = list(data["image" if task == "image-classification" else "text"])
    order = sorted(range(len(items)), key=lambda row: len(items[row]) if isinstance(items[row], str) else row)
    places = torch.tensor(order).argsort()  # texts go by length, so that little is padded, and back
    items = [items[row] for row in order]
    found = [answer[0] if isinstance(answer, list) else answer for answer in pipe(items, batch_size=BATCH, top_k=1)]

    def inputs_of(part: list) -> dict:
        if task == "image-classification":
            return pipe.image_processor(part, return_tensors="pt").to(device)
        read = pipe.tokenizer(part, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        return read.to(device)

    kept: dict[str, list] = {"logits": [], "saliency": [], "lead": [], "lead_saliency": []}
    for start in range(0, len(items), BATCH):
        inputs = inputs_of(items[start : start + BATCH])
        logit, lead = pipe.model.generate_saliency(**inputs), pipe.model.generate_saliency(**inputs, contrast="mean")
        for name, values in zip(kept, (logit.logits, logit.saliency, lead.explained, lead.saliency)):
            if task == "text-classification" and name.endswith("saliency"):
                values = F.pad(values, (0, LENGTH - values.shape[1]))
            kept[name].append(values.cpu())
    tensors = {name: torch.cat(values)[places] for name, values in kept.items()}
    first = pipe.model.generate_saliency(**inputs_of([items[places[0]]]), contrast="mean")
    tensors |= {f"block.{block}": found[0] for block, found in enumerate(first.block_saliency)}
    answers.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, answers / "answers.safetensors")
    record: dict = {
        "labels": [found[row]["label"] for row in places],
        "scores": [found[row]["score"] for row in places],
    }
    record["time_ratio"] = time_ratio(pipe.model, inputs_of(items[-BATCH:]))
    record["code"] = type(pipe.model).__module__
    (answers / "answers.json").write_text(json.dumps(record))


def time_ratio(model, inputs: dict) -> float:
    """Median over interleaved rounds of the time of prediction with map over the time of the prediction alone."""
    ratios = []
    for _ in range(ROUNDS):
        start = finished(model)
        with torch.inference_mode():
            model(**inputs)
        middle = finished(model)
        model.generate_saliency(**inputs)
        ratios.append((finished(model) - middle) / (middle - start))
    return statistics.median(ratios)


def finished(model) -> float:
    """The time when the model's device has done what it was asked."""
    if model.device.type != "cpu":
        torch.accelerator.synchronize(model.device)
    return time.perf_counter()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
