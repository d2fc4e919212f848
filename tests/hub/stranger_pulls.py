"""Run by path in a fresh process where hf_mhex cannot be imported: pull a repository at a revision and use it.

python -I stranger_pulls.py JOB    (JOB: a JSON object with task, repo_id, revision, items, and what to do besides)

Prints one JSON object: logits and saliency sums by from_pretrained, the answers of the pipelines, the modules in use.
"""

import importlib.util
import json
import sys

job = json.loads(sys.argv[1])
installed = [name for name in job.get("absent", ()) if importlib.util.find_spec(name)]
sys.modules["hf_mhex"] = None

import torch
import transformers
from transformers import pipeline

AUTO = {
    "image-classification": (transformers.AutoModelForImageClassification, transformers.AutoImageProcessor),
    "text-classification": (transformers.AutoModelForSequenceClassification, transformers.AutoTokenizer),
}


def plain(answers):
    """Answers without their arrays and pictures."""
    left = ("saliency", "block_saliency", "overlay")
    return [[{name: value for name, value in a.items() if name not in left} for a in one] for one in answers]


def fine_tune(model, inputs, repo_id):
    """Two steps of gradient descent; then push as everybody does."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.05)
    for _ in range(2):
        model(**inputs, labels=torch.zeros(len(next(iter(inputs.values()))), dtype=torch.long)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().push_to_hub(repo_id)


def main():
    saliency_task = job["task"].replace("classification", "saliency")
    source = {"revision": job["revision"], "trust_remote_code": True}
    auto_model, auto_processor = AUTO[job["task"]]
    model = auto_model.from_pretrained(job["repo_id"], **source).eval()
    processor = auto_processor.from_pretrained(job["repo_id"], **source)
    items = job["items"]
    if job["task"] == "image-classification":
        pictures = [transformers.image_utils.load_image(item) for item in items]
        inputs = processor(pictures, return_tensors="pt")
    else:
        inputs = processor(items, padding=True, return_tensors="pt")
    found = model.generate_saliency(**inputs)
    record = {"found": installed, "logits": found.logits.tolist(), "sums": found.saliency.flatten(1).sum(1).tolist()}
    stock = pipeline(job["task"], model=job["repo_id"], device="cpu", **source)
    record["stock"] = [a[0] if isinstance(a, list) else a for a in stock(items, batch_size=4, top_k=1)]
    own = pipeline(saliency_task, model=job["repo_id"], device="cpu", **source)
    record["answers"] = plain(own(items, batch_size=4, top_k=2))
    record["classes"] = [type(model).__module__, type(own).__module__]
    try:
        pipeline(saliency_task, model=job["repo_id"], revision=job["revision"], trust_remote_code=False)
    except ValueError as error:
        record["refusal"] = str(error)
    record["modules"] = sorted({name.split(".")[0] for name, module in sys.modules.items() if module is not None})
    own.model.save_pretrained(job["home"] + "/resaved")  # what a pipeline loaded can be saved again
    if "fine_tuned" in job:
        fine_tune(model, inputs, job["fine_tuned"])
        processor.push_to_hub(job["fine_tuned"])
        record["logits_after"] = model(**inputs).logits.tolist()
    print(json.dumps(record))


main()
