"""Run by path in an environment of an older transformers, where hf_mhex cannot be imported: open models and compare.

python -I stranger_of_old.py JOBS    (JOBS: a JSON list of objects of name, kind, folder, source and revision)

Prints a JSON object: the releases in use, and for each job by quantity the largest difference to what the folder
keeps, as a share of max(1, |value|), or the error.
"""

import json
import sys
from pathlib import Path

sys.modules["hf_mhex"] = None

import huggingface_hub
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

AUTO = {
    "image": (transformers.AutoModelForImageClassification, transformers.AutoImageProcessor),
    "text": (transformers.AutoModelForSequenceClassification, transformers.AutoTokenizer),
    "signal": (transformers.AutoModelForAudioClassification, transformers.AutoFeatureExtractor),
}


def off(found, expected):
    """The largest difference, as a share of max(1, |expected|)."""
    return ((found - expected).abs() / expected.abs().clamp(min=1)).max().item()


def differences(kind, source, revision, folder):
    """By quantity, how far what `source` says is from what `folder` keeps."""
    options = {"revision": revision, "trust_remote_code": True}
    expected, items = load_file(folder / "expected.safetensors"), json.loads((folder / "items.json").read_text())
    kept = {name[3:]: expected.pop(name) for name in list(expected) if name.startswith("in.")}
    auto_model, auto_processor = AUTO[kind]
    model = auto_model.from_pretrained(source, **options).eval()
    body = transformers.AutoModel.from_pretrained(source, **options).eval()
    answer = model.generate_saliency(**kept)
    found = {"logits": answer.logits, "maps": answer.saliency, "features": body(**kept)[0]}
    if "rollout" in expected:
        found["rollout"] = model.generate_saliency(**kept, rollout=True).saliency
    record = {name: off(found[name], value) for name, value in expected.items()}

    processor = auto_processor.from_pretrained(source, **options)
    ready = [Image.open(item) for item in items] if kind == "image" else items
    inputs = processor(ready, return_tensors="pt", **({} if kind == "image" else {"padding": True}))
    answer = model.generate_saliency(**inputs)
    record["inputs"] = off(answer.logits, expected["logits"])
    pipe = transformers.pipeline(f"{kind}-saliency", model=source, device="cpu", **options)
    said = [one[0] for one in pipe(items)]
    assert [one["target"] for one in said] == answer.target.tolist()
    record["pipeline"] = off(torch.tensor([one["explained"] for one in said]), answer.explained)
    return record


def main(jobs):
    records = []
    for job in json.loads(Path(jobs).read_text()):
        try:
            record = differences(job["kind"], job["source"], job["revision"], Path(job["folder"]))
        except Exception as error:
            record = {"error": f"{type(error).__name__}: {error}"}
        records.append(record)
    versions = {"transformers": transformers.__version__, "huggingface-hub": huggingface_hub.__version__}
    print(json.dumps({"versions": versions, "records": records}))


main(sys.argv[1])
