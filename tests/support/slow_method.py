"""The method's mathematics step by step: `generate_saliency` and `paper_saliency` derived again with loops.

Everything is computed from each block's shortcut and branch, caught by hooks on the backbone's own sub-modules, with
Python loops over classes, channels and positions. Nothing of the library's arithmetic is used.
"""

import itertools
import math

import torch

# Where a block's shortcut x and branch f pass: what a sub-module (None: the block) reads ("in") or answers ("out").
SUMMANDS = {
    "bert": (("out", "attention"), ("out", "output.dense")),
    "roberta": (("out", "attention"), ("out", "output.dense")),
    "deberta_v2": (("out", "attention"), ("out", "output.dense")),
    "distilbert": (("out", "sa_layer_norm"), ("out", "ffn")),
    "modernbert": (("in", "mlp_norm"), ("out", "mlp")),
    "vit": (("in", "norm2"), ("out", "drop_path2")),
    "swin": (("in", "norm2"), ("out", "drop_path2")),
    "convnext": (("out", "shortcut"), ("out", "drop_path")),
}


def summands_of(family, block):
    """Where x and f of a block pass; a ResNet's blocks differ."""
    if family not in ("resnet", "signal"):
        return SUMMANDS[family]
    last = "se" if getattr(block, "se", None) is not None else "bn3" if hasattr(block, "bn3") else "bn2"
    return ("in", None) if block.downsample is None else ("out", "downsample"), ("out", last)


def caught(model, inputs):
    """Per block (x, f, W1, W2), x and f [B, C, *shape]; and valid [B, N], from hooks during one forward pass."""
    family = model.config.model_type.removeprefix("mhex_")
    blocks = model.base_model.blocks
    kept, hooks, shapes = [{} for _ in blocks], [], {}

    def keep(store, name, side):
        def before(_module, args):
            store[name] = args[0].detach().clone()

        def after(_module, _args, output):
            store[name] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        return before if side == "in" else after

    for number, (block, store) in enumerate(zip(blocks, kept)):
        hooks.append(block.register_forward_pre_hook(lambda _m, args, n=number: shapes.update({n: args[0].shape[1:3]})))
        for name, (side, path) in zip("xf", summands_of(family, block)):
            module = block if path is None else block.get_submodule(path)
            register = module.register_forward_pre_hook if side == "in" else module.register_forward_hook
            hooks.append(register(keep(store, name, side)))
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()

    def laid_out(value, number):
        if family in ("resnet", "convnext", "signal"):
            return value
        value = value.transpose(1, 2)
        if family == "vit":  # patches line by line, behind the class and register tokens
            side = model.base_model.trunk.patch_embed.patch_size[0]
            height, width = (size // side for size in inputs["pixel_values"].shape[-2:])
            return value[:, :, -height * width :].unflatten(2, (height, width))
        return value.unflatten(2, tuple(shapes[number])) if family == "swin" else value

    features = []
    for number, store in enumerate(kept):
        w1, w2 = (part[number].weight.detach() for part in (model.base_model.gates, model.heads))
        features.append((laid_out(store["x"], number), laid_out(store["f"], number), w1, w2))
    valid = inputs.get("attention_mask")
    return features, None if valid is None else valid.bool()


def pooled(z, valid):
    """p [C] of one row's z [C, N] over its valid positions."""
    result = []
    for channel in z.tolist():
        values = [value for value, counts in zip(channel, valid) if counts]
        result.append(max(0.0, sum(values) / len(values)) if values else 0.0)
    return torch.tensor(result, dtype=z.dtype)


def weight_of_pixel(pixel, pixels, cell, cells):
    """Integral over an output pixel of a cell's share in the linear interpolant (edges continued), in 1-D."""

    def share(t):  # of `cell` at position t in [0, cells], cell centres at 0.5, 1.5, ...
        t = min(max(t - 0.5, 0.0), cells - 1.0)
        return max(0.0, 1.0 - abs(t - cell))

    low, high = pixel * cells / pixels, (pixel + 1) * cells / pixels
    bends = [low] + [k / 2 for k in range(2 * cells + 1) if low < k / 2 < high] + [high]
    return sum((b - a) * (share(a) + share(b)) / 2 for a, b in itertools.pairwise(bends))


def upsampled(map_, size):
    """One map [h, w] at [H, W]."""
    (h, w), (height, width) = map_.shape, size
    rows = [[weight_of_pixel(i, height, a, h) for a in range(h)] for i in range(height)]
    columns = [[weight_of_pixel(j, width, b, w) for b in range(w)] for j in range(width)]
    result = torch.zeros(height, width, dtype=map_.dtype)
    for i in range(height):
        for j in range(width):
            result[i, j] = sum(
                rows[i][a] * float(map_[a, b]) * columns[j][b]
                for a in range(h)
                for b in range(w)
                if rows[i][a] and columns[j][b]
            )
    return result


def resized(map_, size):
    """One map at `size` by the bilinear interpolant at the centres of the output pixels, edges continued."""

    def places(count, cells):
        for pixel in range(count):
            t = min(max((pixel + 0.5) * cells / count - 0.5, 0.0), cells - 1.0)
            yield int(t), min(int(t) + 1, cells - 1), t - int(t)

    (height, width), (h, w) = size, map_.shape
    result = torch.zeros(height, width, dtype=map_.dtype)
    for i, (top, bottom, down) in enumerate(places(height, h)):
        for j, (left, right, along) in enumerate(places(width, w)):
            above = (1 - along) * float(map_[top, left]) + along * float(map_[top, right])
            below = (1 - along) * float(map_[bottom, left]) + along * float(map_[bottom, right])
            result[i, j] = (1 - down) * above + down * below
    return result


def reference_weights(contrast, logits, target):
    """The weights w_k of the reference sum_k w_k logit_k; zeros without a contrast."""
    labels = len(logits)
    others = [k for k in range(labels) if k != target]
    weights = [0.0] * labels
    if contrast == "mean":
        for k in others:
            weights[k] = 1 / len(others)
    elif contrast == "runner_up":
        weights[max(others, key=lambda k: logits[k])] = 1.0
    elif contrast == "softmax":
        total = sum(math.exp(logits[k]) for k in others)
        for k in others:
            weights[k] = math.exp(logits[k]) / total
    elif contrast is not None:
        weights[contrast] = 1.0
    return weights


def rows_of_class(w_eq, target, weights, sign, sharpness):
    """The row of W_eq that explains `target`: contrast, then sharpness, then non-negativity."""
    labels, channels = w_eq.shape
    matrix = [[float(w_eq[k, ch]) for ch in range(channels)] for k in range(labels)]
    row = [matrix[target][ch] - sum(weights[k] * matrix[k][ch] for k in range(labels)) for ch in range(channels)]
    positive, negative = sharpness if isinstance(sharpness, tuple) else (sharpness, sharpness)
    result = []
    for ch, entry in enumerate(row):
        direction, threshold = (1, positive) if entry > 0 else (-1, negative)
        mine = max(0.0, direction * entry)
        total = mine + sum(max(0.0, direction * matrix[k][ch]) for k in range(labels) if k != target)
        share = mine / total if total > 0 else 1.0
        kept = entry if share >= threshold or threshold == 0 else 0.0
        result.append(max(0.0, kept) if sign == "positive" else kept)
    return result


def slow_saliency(model, inputs, *, target=None, blocks=None, mode="contribution", sign="signed", contrast=None,
                  decay=None, sharpness=0.0, enlarge=upsampled):  # fmt: skip
    """logits [B, K], block_logits [B, blocks, K]; per row the block maps, and the combined map.

    enlarge: `upsampled` keeps a map's sum, `resized` (the paper's) its values.
    """
    features, valid = caught(model, inputs)
    config = model.config
    count, depth = features[0][0].shape[0], len(features)
    given = inputs.get("pixel_values", inputs.get("input_values"))
    is_text = given is None
    block_logits = torch.zeros(count, depth, config.num_labels, dtype=torch.float64)
    spread = []
    for b, (x, f, w1, w2) in enumerate(features):
        for row in range(count):
            z = (x[row] + f[row]).flatten(1)
            if config.rectified:
                z = torch.where(z > 0, z, 0)
            inside = [True] * z.shape[1] if valid is None else valid[row].tolist()
            p = pooled(z, inside)
            scores = w1 @ p
            block_logits[row, b] = w2 @ scores
            gate = config.gate_scale * torch.sigmoid(scores)
            gated = gate[:, None] * x[row].flatten(1) + f[row].flatten(1)
            spread.append((b, row, z, z if is_text or config.rectified else gated, p, inside))
    logits = sum(config.head_decay ** (depth - 1 - b) * block_logits[:, b] for b in range(depth))
    selected = range(depth) if blocks is None else [b % depth for b in blocks]
    decay = config.head_decay if decay is None else decay
    maps = {}
    for b, row, z, y, p, inside in spread:
        chosen = int(logits[row].argmax()) if target is None else (target if isinstance(target, int) else target[row])
        weights = reference_weights(contrast, logits[row].tolist(), chosen)
        _, _, w1, w2 = features[b]
        entries = rows_of_class(w2 @ w1, chosen, weights, sign, sharpness)
        result = []
        for n in range(z.shape[1]):
            if not inside[n]:
                result.append(0.0)
            elif mode == "contribution":
                total = sum(entries[ch] * float(z[ch, n]) for ch in range(len(entries)) if float(p[ch]) > 0)
                result.append(total / sum(inside))
            else:
                result.append(sum(entries[ch] * float(y[ch, n]) for ch in range(len(entries))))
        maps[b, row] = torch.tensor(result, dtype=torch.float64).view(features[b][0].shape[2:])
    combined = []
    for row in range(count):
        weighed = [decay ** (max(selected) - b) * maps[b, row] for b in selected]
        if not is_text:
            size = (1, *given.shape[2:])[-2:]  # a signal is an image of one line
            weighed = [enlarge(map_.view(-1, map_.shape[-1]), size).view(given.shape[2:]) for map_ in weighed]
        combined.append(sum(weighed))
    block_maps = [torch.stack([maps[b, row] for row in range(count)]) for b in selected]
    return logits, block_logits, block_maps, torch.stack(combined)


def attention_of(model, inputs):
    """Per layer its attention's probabilities [B, H, T, T], values [B, T, C], W_O [C, C] and shortcut [B, T, C].

    Probabilities and shortcuts are transformers' own outputs; for timm's, which shows none, they are computed here.
    """
    family = model.config.model_type.removeprefix("mhex_")
    blocks = model.base_model.blocks
    if family == "vit":
        shortcuts = model(**inputs, output_hidden_states=True).hidden_states
    else:
        model.set_attn_implementation("eager")
        answer = model(**inputs, output_attentions=True, output_hidden_states=True)
        model.set_attn_implementation("sdpa")
        shortcuts = answer.hidden_states
    layers = []
    for number, (block, x) in enumerate(zip(blocks, shortcuts)):
        if family == "vit":
            query, key, value = block.attn.qkv(block.norm1(x)).chunk(3, -1)
            heads = [part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in (query, key)]
            weights = (heads[0] @ heads[1].mT * block.attn.head_dim**-0.5).softmax(-1)
            output = block.ls1.gamma[:, None] * block.attn.proj.weight
        else:
            weights = answer.attentions[number]
            if family == "modernbert":
                value = block.attn.Wqkv(block.attn_norm(x)).chunk(3, -1)[2]
                output = block.attn.Wo.weight
            elif family == "distilbert":
                value, output = block.attention.v_lin(x), block.attention.out_lin.weight
            else:
                value, output = block.attention.self.value(x), block.attention.output.dense.weight
        layers.append((weights, value, output, x))
    return layers
