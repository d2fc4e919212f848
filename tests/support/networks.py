"""Small networks of every registered family whose weights say something, and batches for them."""

import pytest
import torch

from hf_mhex import FAMILIES

ONE_GRAPH = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14),
    reason="one graph was tried with torch 2.14 and newer, and 2.6 breaks it up; pip install 'torch>=2.14'",
)

BERT = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
RESNET = {"architecture": "resnet18", "architecture_kwargs": {"layers": [1, 2, 1, 1], "channels": [8, 12, 16, 24]}}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "conv_kernel_size": 3,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
MODERNBERT = {name: number for number, name in enumerate(("pad_token_id", "cls_token_id", "sep_token_id"))}
VIT = {
    "img_size": 48,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
    "dynamic_img_size": True,
    "init_values": 0.5,
    "reg_tokens": 2,
}
SWIN = {
    "img_size": 48,
    "embed_dim": 12,
    "depths": [1, 2],
    "num_heads": [2, 2],
    "window_size": 3,
    "strict_img_size": False,
}
CONVNEXT = {"depths": [1, 2, 1, 1], "dims": [8, 12, 16, 24], "ls_init_value": 0.5}
FIELDS = {  # of a small network, by the family's name
    "bert": BERT,
    "roberta": BERT | {"pad_token_id": 1, "max_position_embeddings": 42},
    "modernbert": BERT | MODERNBERT | {"bos_token_id": 1, "eos_token_id": 2, "local_attention": 8},
    "distilbert": {
        "vocab_size": 120,
        "dim": 32,
        "n_layers": 3,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": 40,
    },
    "deberta_v2": BERT | DEBERTA,
    "resnet": RESNET,
    "convnext": {"architecture": "convnext_atto", "architecture_kwargs": CONVNEXT},
    "vit": {"architecture": "vit_tiny_patch16_224", "architecture_kwargs": VIT},
    "swin": {"architecture": "swin_tiny_patch4_window7_224", "architecture_kwargs": SWIN},
}
FIELDS["signal"] = {
    "widths": [8, 12, 16],
    "depths": [1, 2, 1],
    "strides": [1, 2, 2],
    "kernel_size": 5,
    "position_waves": 3,
}
NAMES = [family.name for family in FAMILIES.values()]
TEXTS = [family.name for family in FAMILIES.values() if family.kind == "text"]
IMAGES = [family.name for family in FAMILIES.values() if family.kind == "image"]
CONVERTED = [*TEXTS, *IMAGES]  # made from plain checkpoints of a library
SIGNALS = [family.name for family in FAMILIES.values() if family.kind == "signal"]
WHOLE_PATCHES = ("vit", "swin")  # take images of whole patches only


def family_named(name: str):
    """The registered family of that name."""
    return FAMILIES[f"mhex_{name}"]


def text_batch(batch=4, length=13, seed=0, pad=0, side="right"):
    """input_ids and attention_mask [batch, length]; rows keep 13, 9, 5, 1 ... tokens, the rest is padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, BERT["vocab_size"], (batch, length), generator=generator)
    kept = torch.tensor([max(1, length - 4 * row) for row in range(batch)])
    mask = (torch.arange(length) < kept[:, None]).long()
    mask = mask.flip(1) if side == "left" else mask
    return {"input_ids": torch.where(mask == 1, ids, pad), "attention_mask": mask}


def image_batch(batch=3, size=(41, 33), channels=3, seed=0, dtype=torch.float32):
    """pixel_values [batch, channels, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    return {"pixel_values": torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64).to(dtype)}


def signal_batch(batch=3, length=61, channels=1, seed=0, dtype=torch.float32):
    """input_values [batch, channels, L]."""
    generator = torch.Generator().manual_seed(seed)
    return {"input_values": torch.randn(batch, channels, length, generator=generator, dtype=torch.float64).to(dtype)}


def batch_for(name, dtype=torch.float32, **kwargs):
    """A batch that the small network of a family takes."""
    if family_named(name).kind == "text":
        return text_batch(**{"pad": FIELDS[name].get("pad_token_id", 0), **kwargs})
    if family_named(name).kind == "signal":
        return signal_batch(dtype=dtype, **kwargs)
    return image_batch(dtype=dtype, **{"size": (32, 48) if name in WHOLE_PATCHES else (41, 33), **kwargs})


@torch.no_grad()
def enliven(model, inputs, seed=0):
    """Random gates whose scores have size 1, heads whose logits have size 2, and non-zero norms; in eval mode."""
    torch.manual_seed(seed)
    model.eval()
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    for name, weight in model.base_model.named_parameters():
        if weight.ndim == 2 and "gate" not in name:  # larger weights, so that tokens differ
            weight.mul_(5)
    for block, gate in enumerate(model.base_model.gates):
        torch.nn.init.normal_(gate.weight)
        gate.weight.div_(model.base_model(**inputs).gate_scores[block].std() + 1e-9)
        head = model.heads[block]
        torch.nn.init.normal_(head.weight)
        head.weight.mul_(2 / model(**inputs).block_logits[:, block].std())
    return model


def small_config(name, **fields):
    """The configuration of a family's small network with four labels."""
    return family_named(name).config(**{**FIELDS[name], "num_labels": 4, **fields})


def checkpoint_activations(model, **options):
    """Compute activations again in the backward pass; the method got this name with transformers 5.24."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(options or None)


def lively(name, dtype=torch.float64, **fields):
    """The small classifier of a family, enlivened, in eval mode."""
    torch.manual_seed(0)
    config = small_config(name, **fields)
    model = family_named(name).classifier(config).to(torch.float64)
    channels = {"channels": config.num_channels} if hasattr(config, "num_channels") else {}
    return enliven(model, batch_for(name, torch.float64, **channels)).to(dtype)


def lively_bert(dtype=torch.float64, num_labels=4, **fields):
    """An MHEX-BERT of three layers."""
    return lively("bert", dtype, num_labels=num_labels, **fields)


def lively_resnet(dtype=torch.float64, num_labels=4, **fields):
    """An MHEX-ResNet of five blocks."""
    return lively("resnet", dtype, num_labels=num_labels, **fields)
