"""A classifier with its saliency as one module of plain tensors, and its `torch.export`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

OUTPUTS = ("logits", "saliency", "block_logits")
OPTIONS = ("target", "contrast", "blocks", "decay", "normalize", "rollout")


class Graph(nn.Module):
    """The inputs that a model reads to `logits` [B, K], `saliency` [B, H, W], [B, L] or [B, T],
    `block_logits` [B, blocks, K].

    The batch is free. Images are of any size, but for networks of patches, which keep the size that they are made for
    (timm computes their positions or windows from it). Texts are of any length; so are signals, unless the model has an
    axis. The `attention_mask` that networks of patches take is no input of the graph, which sees every patch.

    Args:
        model: an MHEX classifier. options: the arguments of `generate_saliency` that the graph is made for.
    """

    def __init__(self, model, options: dict):
        super().__init__()
        self.model, self.options = model, options
        patches = getattr(getattr(model.base_model, "trunk", None), "patch_embed", None)
        self.size: tuple[int, ...] | None = None if patches is None else tuple(patches.img_size)
        if self.is_signal and model.config.axis is not None:
            self.size = (len(model.config.axis),)

    @property
    def is_image(self) -> bool:
        """Whether the inputs are pixels."""
        return self.model.main_input_name == "pixel_values"

    @property
    def is_signal(self) -> bool:
        """Whether the inputs are points of signals."""
        return self.model.main_input_name == "input_values"

    @property
    def axes(self) -> dict[str, dict[int, str]]:
        """The inputs by name, and the names of their free axes."""
        if self.is_image:
            return {"pixel_values": {0: "batch"} | ({2: "height", 3: "width"} if self.size is None else {})}
        if self.is_signal:
            return {"input_values": {0: "batch"} | ({2: "length"} if self.size is None else {})}
        names = ["input_ids", "attention_mask"]
        if self.model.base_model.has_segments and self.model.config.type_vocab_size > 1:
            names.append("token_type_ids")
        return {name: {0: "batch", 1: "length"} for name in names}

    def forward(self, pixel_values=None, input_ids=None, attention_mask=None, token_type_ids=None, input_values=None):
        """The outputs by name; the arguments are written out because exporters name free axes by them."""
        inputs = {"pixel_values": pixel_values, "input_values": input_values, "input_ids": input_ids}
        inputs |= {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        given = {name: value for name, value in inputs.items() if value is not None}
        answer = self.model.generate_saliency(**given, **self.options)
        return {name: answer[name] for name in OUTPUTS}

    def example(self, batch: int = 2, sides: tuple[int, ...] | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
        """Random inputs; each text after the first is padded by three tokens more.

        Args:
            sides: (height, width) of images, (length,) of signals and texts.
        """
        config, generator = self.model.config, torch.Generator().manual_seed(seed)
        if self.is_image:
            height, width = self.size or sides or (96, 64)
            return {"pixel_values": torch.randn(batch, config.num_channels, height, width, generator=generator)}
        if self.is_signal:
            (length,) = self.size or sides or (96,)
            return {"input_values": torch.randn(batch, config.num_channels, length, generator=generator)}
        (length,) = sides or (12,)
        ids = torch.randint(1, config.vocab_size, (batch, length), generator=generator)
        kept = torch.tensor([max(1, length - 3 * row) for row in range(batch)])
        mask = (torch.arange(length) < kept[:, None]).long()
        ids = torch.where(mask.bool(), ids, config.pad_token_id or 0)
        found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        return {name: found[name] for name in self.axes}

    def cases(self) -> Iterator[dict[str, torch.Tensor]]:
        """Inputs of three sizes or lengths (one, where the size is fixed), batch 1 and 7."""
        sizes: list[tuple[int, ...]]
        if self.is_image:
            sizes = [self.size] if self.size else [(64, 64), (97, 75), (160, 128)]
        elif self.is_signal:
            sizes = [self.size] if self.size else [(64,), (97,), (250,)]
        else:
            longest = self.model.max_tokens
            sizes = [(length,) for length in sorted({2, min(23, longest), min(128, longest)})]
        for sides in sizes:
            for batch in (1, 7):
                yield self.example(batch, sides, seed=batch)


def graph_of(model, **options) -> Graph:
    """The module that is exported, for one set of options.

    Args:
        model: an MHEX classifier in eval mode.
        options: arguments of `generate_saliency`: target (None or a class index), contrast, blocks, decay, normalize,
            rollout.

    Raises ValueError or TypeError for a model in training mode and an option that a graph cannot have.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise TypeError(f"{unknown[0]!r} is no option of an exported graph; it takes {', '.join(OPTIONS)}.")
    target = options.get("target")
    if target is not None and type(target) is not int:
        raise ValueError(f"target must be None or a class index in an exported graph, got {target!r}.")
    if model.training:
        raise ValueError("model must be in eval mode; call model.eval() first.")
    graph = Graph(model, options).eval()
    graph(**graph.example())  # refuses what cannot be before the long work
    return graph


def export_program(model, **options) -> torch.export.ExportedProgram:
    """`torch.export` of a model with its saliency; which axes are free says `Graph`. Arguments: see `graph_of`.

    The program takes the inputs by name and returns a dict of `logits`, `saliency` and `block_logits`. Images need a
    last feature map of 2 x 2 at least (33 pixels at a total stride of 32; 64, where each stage halves by whole
    patches), texts two tokens.
    """
    graph = graph_of(model, **options)
    free = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in graph.axes.items()}
    with torch.no_grad():
        return torch.export.export(graph, (), graph.example(), dynamic_shapes=free)
