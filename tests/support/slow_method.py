"""What does METHOD's mathematics say, step by step? `generate_saliency` derived again with loops, for comparison.

Everything is computed from each block's shortcut and branch, caught by hooks on the backbone's own sub-modules, with
Python loops over classes, channels and positions. Nothing of the library's arithmetic is used.
"""

import itertools
import math

import torch


def caught(model, inputs):
    """Per block (z [B, C, N], y [B, C, N], spatial shape); and valid [B, N], from hooks during one forward pass."""
    kept, hooks = [], []

    def keep(store, name, take=lambda output: output):
        return lambda _module, _args, output: store.__setitem__(name, take(output).detach().clone())

    def blocks_of(model):
        if hasattr(model, "bert"):
            return list(model.bert.encoder.layer)
        trunk = model.resnet.trunk
        return [block for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4) for block in stage]

    for block in blocks_of(model):
        store = {}
        kept.append(store)
        if hasattr(model, "bert"):
            hooks.append(block.attention.register_forward_hook(keep(store, "shortcut", lambda output: output[0])))
            hooks.append(block.output.dense.register_forward_hook(keep(store, "branch")))
        else:
            last = block.se if block.se is not None else getattr(block, "bn3", None) or block.bn2
            hooks.append(last.register_forward_hook(keep(store, "branch")))
            if block.downsample is not None:
                hooks.append(block.downsample.register_forward_hook(keep(store, "shortcut")))
            else:
                hooks.append(
                    block.register_forward_pre_hook(
                        lambda _module, args, store=store: store.__setitem__("shortcut", args[0].detach().clone())
                    )
                )
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    features = []
    for block, store in enumerate(kept):
        x, f = store["shortcut"], store["branch"]
        if hasattr(model, "bert"):
            x, f = x.transpose(1, 2), f.transpose(1, 2)
        features.append((x, f, model.base_model.gates[block].weight.detach(), model.heads[block].weight.detach()))
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
                  decay=None, sharpness=0.0):  # fmt: skip
    """logits [B, K], block_logits [B, blocks, K]; per row the block maps, the combined map and the targets' logit."""
    features, valid = caught(model, inputs)
    config, scale = model.config, model.config.gate_scale
    count = features[0][0].shape[0]
    depth = len(features)
    is_text = hasattr(model, "bert")
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
            gate = scale * torch.sigmoid(scores)
            y = z if is_text or config.rectified else (gate[:, None] * x[row].flatten(1) + f[row].flatten(1))
            spread.append((b, row, z, y, p, inside))
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
        size = inputs["pixel_values"].shape[-2:] if not is_text else None
        combined.append(sum(weighed) if is_text else sum(upsampled(map_, size) for map_ in weighed))
    block_maps = [torch.stack([maps[b, row] for row in range(count)]) for b in selected]
    return logits, block_logits, block_maps, torch.stack(combined)
