"""How does a model leave PyTorch's eager mode, explanations included? As one graph: ONNX, torch.export, 8 bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import torch
from torch import nn

OUTPUTS = ("logits", "saliency", "block_logits")
OPTIONS = {"target", "blocks", "mode", "sign", "contrast", "decay", "sharpness", "normalize", "rollout"}
LARGEST_ERROR = 1e-4  # of an exported graph against PyTorch, relative to the largest value where that exceeds 1


class ImageGraph(nn.Module):
    """pixel_values [B, C, H, W] to logits [B, K], saliency [B, H, W] and block_logits [B, blocks, K]."""

    axes = {"pixel_values": {0: "batch", 2: "height", 3: "width"}}

    def __init__(self, model, options: dict):
        super().__init__()
        self.model, self.options = model, options

    def forward(self, pixel_values):
        """The outputs by name."""
        return self.explain(pixel_values=pixel_values)

    def explain(self, **inputs) -> dict[str, torch.Tensor]:
        """The named outputs of `generate_saliency` with the options that the graph is made for."""
        answer = self.model.generate_saliency(**inputs, **self.options)
        return {name: answer[name] for name in OUTPUTS}

    def example(self, batch: int = 2, size: tuple[int, int] = (96, 64), seed: int = 0) -> dict[str, torch.Tensor]:
        """Random images in the shape of the graph's inputs."""
        generator = torch.Generator().manual_seed(seed)
        return {"pixel_values": torch.randn(batch, self.model.config.num_channels, *size, generator=generator)}

    def cases(self) -> Iterator[dict[str, torch.Tensor]]:
        """Inputs of three sizes, batch 1 and 7."""
        for size in ((64, 64), (97, 61), (160, 128)):
            for batch in (1, 7):
                yield self.example(batch, size, seed=batch)


class TextGraph(ImageGraph):
    """input_ids, attention_mask and token_type_ids [B, T] to logits [B, K], saliency [B, T], block_logits."""

    axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask", "token_type_ids")}

    def forward(self, input_ids, attention_mask, token_type_ids):
        """The outputs by name."""
        return self.explain(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)

    def example(self, batch: int = 2, length: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
        """Random tokens; each row after the first is padded by three more."""
        config, generator = self.model.config, torch.Generator().manual_seed(seed)
        ids = torch.randint(1, config.vocab_size, (batch, length), generator=generator)
        kept = torch.tensor([max(1, length - 3 * row) for row in range(batch)])
        mask = (torch.arange(length) < kept[:, None]).long()
        padding = 0 if config.pad_token_id is None else config.pad_token_id
        ids = torch.where(mask.bool(), ids, padding)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}

    def cases(self) -> Iterator[dict[str, torch.Tensor]]:
        """Inputs of three lengths, batch 1 and 7 (padded)."""
        longest = self.model.config.max_position_embeddings
        for length in sorted({2, min(23, longest), min(128, longest)}):
            for batch in (1, 7):
                yield self.example(batch, length, seed=batch)


def graph_of(model, **options) -> ImageGraph:
    """The module that is exported: the model with its saliency, for one set of options.

    Args:
        model: an MHEX classifier in eval mode.
        options: arguments of `generate_saliency`: target (None or a class index), blocks, mode, sign, contrast, decay,
            sharpness, normalize, rollout.

    Raises ValueError or TypeError for a model in training mode and an option that a graph cannot have.
    """
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise TypeError(f"{unknown[0]!r} is no option of an exported graph; it takes {', '.join(sorted(OPTIONS))}.")
    target = options.get("target")
    if target is not None and type(target) is not int:
        raise ValueError(f"target must be None or a class index in an exported graph, got {target!r}.")
    if model.training:
        raise ValueError("model must be in eval mode; call model.eval() first.")
    graph = (ImageGraph if model.main_input_name == "pixel_values" else TextGraph)(model, options).eval()
    graph(**graph.example())  # refuses what cannot be before the long work
    return graph


def export_program(model, **options) -> torch.export.ExportedProgram:
    """`torch.export` of a model with its saliency; batch, image size and length stay free. Arguments: see `graph_of`.

    The program takes the inputs by name and returns a dict of `logits`, `saliency` and `block_logits`. Images need a
    last feature map of 2 x 2 at least (33 pixels at a total stride of 32), texts two tokens.
    """
    graph = graph_of(model, **options)
    free = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in graph.axes.items()}
    with torch.no_grad():
        return torch.export.export(graph, (), graph.example(), dynamic_shapes=free)


def export_onnx(model, path: str | PathLike, **options) -> Path:
    """Write a model with its saliency as ONNX, batch, image size and length free. Arguments: see `graph_of`.

    Inputs and outputs have the names of `ImageGraph` and `TextGraph`; labels and options stand in the file's metadata.
    Raises ValueError for a model that is not in float32.
    """
    if model.dtype != torch.float32:
        raise ValueError(f"model must be in float32 to become ONNX, got {model.dtype}; load it with dtype='float32'.")
    graph = graph_of(model, **options)
    with torch.no_grad():
        program = torch.onnx.export(
            graph,
            (),
            kwargs=graph.example(),
            input_names=list(graph.axes),
            output_names=list(OUTPUTS),
            dynamic_shapes=graph.axes,
            dynamo=True,
            verbose=False,
        )
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    program.model.metadata_props.update({"labels": json.dumps(labels), "saliency": json.dumps(options)})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path)
    return path


def run_onnx(session, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The outputs by name of a session, see `open_onnx`."""
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {name: value.numpy() for name, value in inputs.items()})))


def open_onnx(path: str | PathLike):
    """An onnxruntime session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(fspath(path), providers=["CPUExecutionProvider"])


def largest_error(model, path: str | PathLike, **options) -> float:
    """How far an exported file (.onnx or .pt2) is from PyTorch: the largest difference of any output over three sizes
    or lengths and batch 1 and 7, relative to the output's largest value where that exceeds 1.

    Args:
        model, options: what was exported.
    """
    graph = graph_of(model, **options)
    if Path(path).suffix == ".pt2":
        program = torch.export.load(path).module()
    else:
        session = open_onnx(path)

        def program(**inputs):
            return {name: torch.from_numpy(found) for name, found in run_onnx(session, inputs).items()}

    error = 0.0
    with torch.no_grad():
        for inputs in graph.cases():
            found = program(**inputs)
            for name, value in graph(**inputs).items():
                size = max(1.0, value.abs().max().item())
                error = max(error, (found[name] - value).abs().max().item() / size)
    return error


@dataclass(frozen=True)
class Quantisation:
    """What 8 bits changed, over some rows, and what they saved.

    `logits` is the largest change relative to the largest logit, `labels` the share of rows with the same label,
    `map` the mean over rows of |change of the map| / |map| (Euclidean), `correlation` the mean correlation of the two
    maps, and `completeness` the largest |sum of the 8-bit map - its own logit| relative to the largest logit.
    """

    megabytes_before: float
    megabytes_after: float
    logits: float
    labels: float
    map: float
    correlation: float
    completeness: float


def quantize_onnx(path: str | PathLike, output: str | PathLike) -> Path:
    """Dynamic 8-bit quantisation of an exported file's weights, by onnxruntime; gates and heads are left out.

    So the maps still add up to the quantised network's logits. Matrices get a scale a channel; convolutions, of which
    onnxruntime's dynamic kernels want unsigned weights with one scale, get smaller, not faster.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(fspath(path)).graph
    convolutions = any(node.op_type == "Conv" for node in graph.node)
    quantize_dynamic(
        fspath(path),
        fspath(output),
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        weight_type=QuantType.QUInt8 if convolutions else QuantType.QInt8,
        per_channel=not convolutions,
        nodes_to_exclude=_own_nodes(graph),
    )
    return Path(output)


def compare_quantised(before: str | PathLike, after: str | PathLike, batches) -> Quantisation:
    """Run two exported files on `batches` (dicts of inputs) and say what changed; maps should be raw and signed."""
    sessions = [open_onnx(path) for path in (before, after)]
    pairs = [[run_onnx(session, inputs) for session in sessions] for inputs in batches]
    logits = [np.concatenate([pair[which]["logits"] for pair in pairs]) for which in (0, 1)]
    maps = [[row.ravel() for pair in pairs for row in pair[which]["saliency"]] for which in (0, 1)]
    size = np.abs(logits[0]).max()
    changes = [np.linalg.norm(two - one) / np.linalg.norm(one) for one, two in zip(*maps)]
    alike = [np.corrcoef(one, two)[0, 1] for one, two in zip(*maps)]
    sums = np.array([found.sum(dtype=np.float64) for found in maps[1]])
    return Quantisation(
        megabytes_before=Path(before).stat().st_size / 1e6,
        megabytes_after=Path(after).stat().st_size / 1e6,
        logits=float(np.abs(logits[1] - logits[0]).max() / size),
        labels=float((logits[0].argmax(-1) == logits[1].argmax(-1)).mean()),
        map=float(np.mean(changes)),
        correlation=float(np.mean(alike)),
        completeness=float(np.abs(sums - logits[1].max(-1)).max() / size),
    )


def sample_batches(model, processor, rows: int = 32) -> list[dict[str, torch.Tensor]]:
    """Inputs of a graph from the embedded samples' test rows, in batches of 8, for `compare_quantised`."""
    from hf_mhex.data.samples import load_sample
    from hf_mhex.data.source import Row
    from hf_mhex.explaining import batches

    is_image = model.main_input_name == "pixel_values"
    data = load_sample("fashion_mnist" if is_image else "product_reviews")["test"]["image" if is_image else "text"][
        :rows
    ]
    prepare = batches.prepare_images if is_image else batches.prepare_texts
    good = list(
        prepare([Row(number, str(number), value) for number, value in enumerate(data)], processor, model.config)
    )
    if is_image:
        return [batches.collate_images(batch, processor) for batch in batches.image_batches(good, 8)]
    found = [batches.collate_texts(batch, processor) for batch in batches.text_batches(good, 8)]
    return [{name: batch.get(name, torch.zeros_like(batch["input_ids"])) for name in TextGraph.axes} for batch in found]


def _own_nodes(graph) -> list[str]:
    """Names of the nodes that read a gate's or a head's weight, directly or turned around.

    The quantiser first makes a MatMul of each Gemm, and names it anew.
    """
    ours = {tensor.name for tensor in graph.initializer if ".gate." in tensor.name or ".heads." in tensor.name}
    names = []
    for node in graph.node:
        if ours.intersection(node.input):
            names += [node.name, f"{node.name}_MatMul"]
            if node.op_type in ("Transpose", "Cast", "Identity"):
                ours.update(node.output)
    return names


def as_record(found: Quantisation) -> dict[str, float]:
    """The figures by name, to three digits."""
    return {name: float(f"{value:.3g}") for name, value in asdict(found).items()}
