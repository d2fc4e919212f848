"""Vision transformers of transformers (ViT, DeiT, DINOv2) as timm's network: its arguments, and the weights renamed."""

from __future__ import annotations

import re
from os import PathLike

import torch

from hf_mhex.processors import image_edges, preprocessing_of

ARCHITECTURES = {  # by model type the network of timm whose arguments are set
    "vit": "vit_base_patch16_224",
    "deit": "deit_base_patch16_224",
    "dinov2": "vit_base_patch14_dinov2",
    "dinov2_with_registers": "vit_base_patch14_reg4_dinov2",
}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}
NAMES = (  # patterns of transformers' names (of releases 4 and 5) and timm's
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.(distillation_token|register_tokens)$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^(encoder\.)?layers?\.(\d+)\.", r"blocks.\2."),
    (r"\.attention\.(attention\.)?(q_proj|query)\.", ".attn.qkv.0."),
    (r"\.attention\.(attention\.)?(k_proj|key)\.", ".attn.qkv.1."),
    (r"\.attention\.(attention\.)?(v_proj|value)\.", ".attn.qkv.2."),
    (r"\.attention\.(o_proj|output\.dense)\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
)


def read_plain(
    source: str | PathLike, revision: str | None = None, image_size=None
) -> tuple[dict, dict[str, torch.Tensor], list[str]]:
    """Fields of the configuration, timm's state dict, and the source's keys that have no place in it.

    A distillation token becomes a register token. Positions are those of `image_size` (an int, or height and width),
    else of the images that the source's processor makes, else of its configuration: where they differ from the
    configuration's, the source interpolates them here, since timm does it in another way.

    Raises ValueError for weights that are missing and for a network that timm's does not compute.
    """
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(source, revision=revision)
    kind = config.model_type
    if getattr(config, "use_swiglu_ffn", False) or config.hidden_act not in ACTIVATIONS:
        raise ValueError(
            f"source={str(source)!r} has hidden_act={config.hidden_act!r}, use_swiglu_ffn="
            f"{getattr(config, 'use_swiglu_ffn', False)}; convert takes {', '.join(ACTIVATIONS)} without gates."
        )
    pooling = {"add_pooling_layer": False} if kind in ("vit", "deit") else {}
    plain, info = AutoModel.from_pretrained(
        source, config=config, revision=revision, output_loading_info=True, dtype=torch.float32, **pooling
    )
    missing = sorted(key for key in info["missing_keys"] if "mask_token" not in key)
    if missing:
        raise ValueError(
            f"source={str(source)!r} lacks {len(missing)} of the body's weights, among them {', '.join(missing[:3])}."
        )
    state, unused = {}, sorted(info["unexpected_keys"])
    for key, value in plain.state_dict().items():
        name = key
        for pattern, new in NAMES:
            name = re.sub(pattern, new, name)
        if name == key:
            unused.append(key)
        else:
            state[name] = value
    preprocessing = preprocessing_of(source, revision)
    if image_size is not None:
        preprocessing.pop("input_size", None)
    own = image_edges(config.image_size)
    size = image_edges(image_size or preprocessing.get("input_size", [None, *own])[1:])
    if size != own:
        if own[0] != own[1]:
            raise ValueError(
                f"source={str(source)!r} has positions for images of {list(own)}, not {list(size)} pixels, and "
                f"interpolates square ones only; give architecture_kwargs={{'img_size': {list(own)}}}."
            )
        shaped = torch.empty(1, 0, config.hidden_size)  # no tokens: their number would say that nothing is to be done
        state["pos_embed"] = plain.embeddings.interpolate_pos_encoding(shaped, *size).detach()
    for name in [name for name in state if ".qkv.0." in name]:
        parts = [state.pop(name.replace(".qkv.0.", f".qkv.{part}.")) for part in range(3)]
        state[name.replace(".qkv.0.", ".qkv.")] = torch.cat(parts)
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    if kind == "dinov2_with_registers":  # timm's registers follow the class token without a position
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    arguments = {
        "img_size": list(size) if size[0] != size[1] else size[0],
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / config.hidden_size,
        "qkv_bias": config.qkv_bias,
        "init_values": getattr(config, "layerscale_value", None),
        "reg_tokens": registers,
        "no_embed_class": kind == "dinov2_with_registers",
        "dynamic_img_size": True,
        "act_layer": ACTIVATIONS[config.hidden_act],
        "drop_path_rate": getattr(config, "drop_path_rate", 0.0),
        "pos_drop_rate": config.hidden_dropout_prob,
        "proj_drop_rate": config.hidden_dropout_prob,
        "attn_drop_rate": config.attention_probs_dropout_prob,
    }
    fields = {
        "architecture": ARCHITECTURES[kind],
        "num_channels": config.num_channels,
        "layer_norm_eps": config.layer_norm_eps,
        "architecture_kwargs": arguments,
        "preprocessing": preprocessing,
        "id2label": config.id2label,
        "problem_type": config.problem_type,
    }
    return fields, state, unused
