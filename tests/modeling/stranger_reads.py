"""Run by path in a fresh process where hf_mhex cannot be imported: load a folder by its own code and answer.

python -I stranger_reads.py TASK FOLDER INPUTS ANSWERS RESAVED
"""

import json
import sys
from pathlib import Path

sys.modules["hf_mhex"] = None

import numpy
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

AUTO = {
    "image-classification": transformers.AutoModelForImageClassification,
    "text-classification": transformers.AutoModelForSequenceClassification,
    "audio-classification": transformers.AutoModelForAudioClassification,
}


def main(task, folder, inputs, answers, resaved):
    try:
        AUTO[task].from_pretrained(folder, trust_remote_code=False)
        refusal = None
    except ValueError as error:
        refusal = str(error)
    model = AUTO[task].from_pretrained(folder, trust_remote_code=True).eval()
    tensors = load_file(inputs / "inputs.safetensors")
    answer = model.generate_saliency(**tensors)
    every = model.generate_saliency(**tensors, target="all", contrast="softmax")
    refined = model.generate_saliency(**tensors, refine=2, mask_token_id=3 if "input_ids" in tensors else None)
    found = {"logits": answer.logits, "saliency": answer.saliency, "every": every.saliency, "refined": refined.saliency}
    found |= {f"block.{block}": values for block, values in enumerate(every.block_saliency)}
    save_file({name: value.contiguous() for name, value in found.items()}, answers / "answers.safetensors")

    pipe = transformers.pipeline(task, model=folder, trust_remote_code=True, device="cpu")
    items = json.loads((inputs / "items.json").read_text())
    if task == "image-classification":
        items = [Image.open(inputs / name) for name in items]
    if task == "audio-classification":
        items = [numpy.array(item, dtype="float32") for item in items]
    record = {
        "refusal": refusal,
        "body": type(transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)).__name__,
        "module": type(model).__module__,
        "one_by_one": [pipe(item, top_k=1) for item in items],
        "batched": pipe(items, batch_size=16, top_k=1),
        "modules": sorted(name for name in sys.modules if name.split(".")[0] in ("timm", "torchvision")),
    }
    (answers / "record.json").write_text(json.dumps(record))
    model.save_pretrained(resaved)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(Path, sys.argv[3:]))
