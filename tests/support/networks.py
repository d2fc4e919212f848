"""Which networks do the tests look at? Small ones of both families whose weights say something."""

import torch

from hf_mhex import (
    MHEXBertConfig,
    MHEXBertForSequenceClassification,
    MHEXResNetConfig,
    MHEXResNetForImageClassification,
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


def text_batch(batch=4, length=13, seed=0):
    """input_ids and attention_mask [batch, length]; rows keep 13, 9, 5, 1 ... tokens, the rest is padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, BERT["vocab_size"], (batch, length), generator=generator)
    kept = torch.tensor([max(1, length - 4 * row) for row in range(batch)])
    mask = (torch.arange(length) < kept[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def image_batch(batch=3, size=(41, 33), channels=3, seed=0, dtype=torch.float32):
    """pixel_values [batch, channels, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    return {"pixel_values": torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64).to(dtype)}


@torch.no_grad()
def enliven(model, inputs, seed=0):
    """Random gates whose scores have size 1, heads whose logits have size 2, and non-zero norms; in eval mode."""
    torch.manual_seed(seed)
    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    if hasattr(model, "bert"):  # larger weights, so that tokens differ
        for name, weight in model.bert.named_parameters():
            if weight.ndim == 2 and "gate" not in name:
                weight.mul_(5)
    for block, gate in enumerate(model.base_model.gates):
        torch.nn.init.normal_(gate.weight)
        gate.weight.div_(model.base_model(**inputs).gate_scores[block].std() + 1e-9)
        head = model.heads[block]
        torch.nn.init.normal_(head.weight)
        head.weight.mul_(2 / model(**inputs).block_logits[:, block].std())
    return model


def lively_bert(dtype=torch.float64, num_labels=4, **fields):
    """An MHEX-BERT of three layers."""
    torch.manual_seed(0)
    config = MHEXBertConfig(**{**BERT, "num_labels": num_labels, **fields})
    model = MHEXBertForSequenceClassification(config).to(torch.float64)
    return enliven(model, text_batch()).to(dtype)


def lively_resnet(dtype=torch.float64, num_labels=4, **fields):
    """An MHEX-ResNet of five blocks."""
    torch.manual_seed(0)
    config = MHEXResNetConfig(**{**RESNET, "num_labels": num_labels, **fields})
    model = MHEXResNetForImageClassification(config).to(torch.float64)
    return enliven(model, image_batch(channels=config.num_channels, dtype=torch.float64)).to(dtype)
