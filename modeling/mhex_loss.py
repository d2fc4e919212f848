"""Deep-supervision loss: the task's loss of the model's logits and of every block's head.

Source: Sun & Lio, "Multi-Head Explainer" (arXiv 2501.01311), deep supervision; weights and options are ours.
"""

import torch
import torch.nn.functional as F


def deep_supervision_loss(logits, block_logits, labels, config, num_items_in_batch=None, absent_losses=None):
    """The task loss of the model's logits [B, K] plus `deep_supervision_weight` * the sum over blocks [B, blocks, K].

    Cross-entropy, BCE or MSE by `config.problem_type`, which the first labels set where it is None. Averages over the
    labels that count, or divides their sum by `num_items_in_batch`, which makes the gradient independent of how a batch
    is split. `config.class_weights` weigh rows by their label or, with several labels, present ones. To a regression a
    target of -100 is a number like others; transformers' own Trainer leaves it out of its count.

    Args:
        absent_losses: what each head's label costs where it is absent [B, blocks, K], see `absent_loss`; None unless
            `config.instance_share` is above 0.

    Returns the loss [] and the blocks' losses [blocks]. Raises TypeError or ValueError for labels that do not fit, and
    for an `instance_share` of a loss that has no binary cross-entropy.
    """
    if config.problem_type is None:
        config.problem_type = problem_of(labels, logits.shape)
    labels = check_labels(labels.to(logits.device), logits.shape, config)
    single = config.problem_type == "single_label_classification"
    if config.instance_share and (config.problem_type == "regression" or (single and not config.binary_share)):
        raise ValueError(
            f"instance_share={config.instance_share} is a share of a binary cross-entropy, and the loss of "
            f"{config.problem_type} has none; set it to 0{', or binary_share above 0' if single else ''}."
        )
    stacked = torch.cat([logits[:, None], block_logits], dim=1)
    absent = None if absent_losses is None else torch.cat([F.softplus(logits)[:, None], absent_losses], dim=1)
    weights = None if config.class_weights is None else stacked.new_tensor(config.class_weights)
    if single:
        each = single_label_losses(stacked, labels, config, absent)
        if weights is not None:
            each = each * weights[labels.clamp(min=0)][:, None]
        count = (labels != -100).sum().clamp(min=1)
    else:
        if config.problem_type == "regression":
            goal = labels.to(stacked.dtype)[:, None].expand_as(stacked)
            each = F.mse_loss(stacked, goal, reduction="none").sum(-1)
        else:
            each = binary_losses(stacked, labels, config, weights, absent)
        count = logits.numel()
    if num_items_in_batch is not None:
        count = torch.as_tensor(num_items_in_batch).flatten()[0].clamp(min=1)  # [] or, over several GPUs, [1, 1]
    losses = each.sum(0) / count
    return losses[0] + config.deep_supervision_weight * losses[1:].sum(), losses[1:]


def problem_of(labels: torch.Tensor, shape: tuple[int, int]) -> str:
    """The problem type that labels mean beside logits of `shape` [B, K]; raises TypeError where they fit none.

    One label: regression. Integers [B] or [B, 1]: single labels. Floats [B, K]: several labels.
    """
    if shape[1] == 1:
        return "regression"
    if not labels.is_floating_point() and labels.dtype != torch.bool and labels.numel() == shape[0]:
        return "single_label_classification"
    if labels.is_floating_point() and tuple(labels.shape) == tuple(shape):
        return "multi_label_classification"
    raise TypeError(
        f"labels must be integers [{shape[0]}] (one label a row; use labels.long()) or floats {list(shape)} (several "
        f"labels a row; use labels.float()) for {shape[1]} labels, got {labels.dtype} {list(labels.shape)}."
    )


def single_label_losses(logits: torch.Tensor, labels: torch.Tensor, config, absent=None) -> torch.Tensor:
    """Cross-entropy of logits [B, H, K] by H heads for labels [B], [B, H]; 0 for rows labelled -100.

    `config.binary_share` of it is the binary cross-entropy of all labels instead, with `absent` as `binary_losses` has.
    """
    heads, num_labels = logits.shape[1:]
    spread = labels.repeat_interleave(heads)
    smoothing = config.label_smoothing
    each = F.cross_entropy(logits.flatten(0, 1), spread, label_smoothing=smoothing, reduction="none").view(-1, heads)
    if config.binary_share:
        present = F.one_hot(labels.clamp(min=0), num_labels)
        binary = binary_losses(logits, present, config, absent=absent).masked_fill((labels == -100)[:, None], 0)
        each = (1 - config.binary_share) * each + config.binary_share * binary
    return each


def binary_losses(logits: torch.Tensor, labels: torch.Tensor, config, weights=None, absent=None) -> torch.Tensor:
    """Binary cross-entropy of logits [B, H, K] for labels [B, K] in [0, 1], summed over the labels, [B, H].

    absent: [B, H, K], what `config.instance_share` of softplus(logits) becomes where a label is 0.
    """
    goal = labels.to(logits.dtype) * (1 - config.label_smoothing) + 0.5 * config.label_smoothing
    goal = goal[:, None].expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, goal, pos_weight=weights, reduction="none")
    if absent is not None:
        more = (1 - goal) * (absent - F.softplus(logits))
        each = each + config.instance_share * more * (labels == 0)[:, None]
    return each.sum(-1)


def absent_loss(maps: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """The mean over positions of softplus(N * map) for maps [B, K, N] that sum to the logits, [B, K].

    The binary loss of an absent label is softplus(logit). softplus is convex, so this is at least as much, and equal
    where all positions say the same: a label that is absent is absent at every position, while one that is present need
    not be everywhere, which is how multiple-instance learning reads a bag by its instances.
    valid [B, N]: positions that count.
    """
    counts = torch.ones_like(maps[:, :1]) if valid is None else valid[:, None].to(maps.dtype)
    total = counts.sum(-1, keepdim=True).clamp(min=1)
    return (F.softplus(total * maps) * counts / total).sum(-1)


def check_labels(labels: torch.Tensor, shape: tuple[int, int], config) -> torch.Tensor:
    """Labels as [B] (single label) or [B, K]; TypeError or ValueError if they do not fit `config.problem_type`."""
    rows, num_labels = shape
    look = labels.device.type == "cpu" and not torch.compiler.is_compiling()
    if config.problem_type == "single_label_classification":
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise TypeError(
                f"labels must be integers for {config.problem_type}, got {labels.dtype}; use labels.long()."
            )
        labels = labels.flatten().long()
        wrong = labels[((labels < 0) | (labels >= num_labels)) & (labels != -100)] if look else None
        expected: tuple[int, ...] = (rows,)
        allowed = f"lie in [0, {num_labels - 1}] or be -100 (ignored); set num_labels or map them"
    else:
        if not labels.is_floating_point():
            raise TypeError(f"labels must be floats for {config.problem_type}, got {labels.dtype}; use labels.float().")
        if num_labels == 1:
            labels = labels.view(-1, 1)
        if config.problem_type == "regression":
            if config.label_smoothing:
                raise ValueError(
                    f"label_smoothing={config.label_smoothing} has no meaning for regression; set it to 0."
                )
            wrong, allowed = (
                labels[~labels.isfinite()] if look else None,
                "be finite; drop or fill rows without a label",
            )
        else:
            wrong, allowed = labels[~((labels >= 0) & (labels <= 1))] if look else None, "lie in [0, 1]"
        expected = (rows, num_labels)
    if tuple(labels.shape) != expected:
        raise ValueError(
            f"labels must have shape {list(expected)} for {config.problem_type}, got {list(labels.shape)}."
        )
    if wrong is not None and wrong.numel():
        raise ValueError(f"labels must {allowed}; got {wrong[0].item()}.")
    return labels
