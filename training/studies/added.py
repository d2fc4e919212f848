"""Parameters that gates add to well-known networks: `python -m hf_mhex.training.studies.added results`.

Networks are made on the meta device from their configurations, so nothing is downloaded and no weights are made. The
page is results/added.md, which docs/measured.md shows (`python -m hf_mhex.training.studies.readme`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.environment import environment, ran_on
from hf_mhex.families import FAMILIES
from hf_mhex.training.studies.architectures import count
from hf_mhex.writing import write_whole

MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
DEBERTA = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "vocab_size": 128100, "type_vocab_size": 0, "relative_attention": True, "position_buckets": 256,
    "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
}  # fmt: skip
BODIES: dict[str, tuple[str, dict]] = {  # the family and what its configuration has beside the defaults
    "resnet18": ("resnet", {"architecture": "resnet18"}),
    "resnet50": ("resnet", {"architecture": "resnet50"}),
    "resnet50 with full gates": ("resnet", {"architecture": "resnet50", "gate_rank": None}),
    "resnext50_32x4d": ("resnet", {"architecture": "resnext50_32x4d"}),
    "convnext_tiny": ("convnext", {"architecture": "convnext_tiny"}),
    "vit_base_patch16_224": ("vit", {"architecture": "vit_base_patch16_224"}),
    "swin_tiny_patch4_window7_224": ("swin", {"architecture": "swin_tiny_patch4_window7_224"}),
    "BERT-base": ("bert", {}),
    "RoBERTa-base": ("roberta", ROBERTA),
    "ModernBERT-base": ("modernbert", {}),
    "DistilBERT-base": ("distilbert", {}),
    "DeBERTa-v3-base": ("deberta_v2", DEBERTA),
    "MiniLM-L6": ("bert", MINILM),
}


def parameters(family: str, settings: dict) -> tuple[int, int]:
    """Parameters of the gates and of all else below the heads."""
    entry = FAMILIES[f"mhex_{family}"]
    with torch.device("meta"):
        body = entry.body(entry.config(**settings))
    gates = sum(map(count, body.gates))
    return gates, count(body) - gates


def main(folder: Path) -> None:
    """Write `folder`/added.md."""
    rows = []
    for name, (family, settings) in BODIES.items():
        gates, rest = parameters(family, settings)
        rows.append([name, f"{gates / 1e6:.2f} M", f"{rest / 1e6:.2f} M", f"{100 * gates / rest:.1f} %"])
    table = markdown_table(["body", "gates", "rest", "added"], rows)
    footer = f"*By `python -m hf_mhex.training.studies.added results`, {ran_on([{'environment': environment()}])}.*"
    write_whole(folder / "added.md", f"# What gates add\n\n{table}\n\n{footer}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
