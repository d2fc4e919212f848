"""`mhex export`: a model with its saliency as ONNX or torch.export, checked against PyTorch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Contrast, Model, Revision, Target, label_options
from hf_mhex.cli.terminal import echo
from hf_mhex.writing import check_folder, whole


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' own warnings, about names of axes and versions; logging is then as it was."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(disabled, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(disabled)


def export(
    model: Model,
    output: Annotated[Path, typer.Argument(help="The file to write: .onnx, or .pt2 for torch.export.")],
    target: Target = None,
    contrast: Contrast = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also write NAME-int8.onnx and say what 8 bits change.")] = False,
    revision: Revision = None,
    json_: AsJson = False,
) -> None:
    """Write one graph with the outputs logits, saliency and block_logits; batch, image size and length stay free.

    Example: mhex export outputs/demo/mhex-resnet-fashion-mnist fashion.onnx --int8

    Example: mhex export outputs/demo/mhex-bert-product-reviews reviews.pt2 --contrast softmax

    The graph is run beside PyTorch on three sizes or lengths, batch 1 and 7, and must agree to 1e-4. What 8 bits change
    is measured on rows of the embedded sample, or on random inputs where the model cannot read those.
    """
    if output.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"OUTPUT must end in .onnx or .pt2, got {str(output)!r}.")
    if int8 and output.suffix != ".onnx":
        raise ValueError(f"--int8 quantises ONNX; name an OUTPUT that ends in .onnx, not {str(output)!r}.")
    check_folder(output.parent)
    import torch

    from hf_mhex import export as room
    from hf_mhex.loading import load

    network, processor = load(model, revision, dtype=torch.float32)
    options = label_options(network.config, target, contrast)
    found: dict = {"output": str(output)}
    with quiet(), whole(output) as place:
        if place.suffix == ".onnx":
            room.export_onnx(network, place, **options)
        else:
            torch.export.save(room.export_program(network, **options), place)
        checked = room.agreement(network, place, **options)
        found |= {"largest_error": checked.error, "maps": checked.rows, "maps_by_sum": checked.by_sum}
        if checked.error > room.LARGEST_ERROR:
            raise RuntimeError(f"the graph differs from PyTorch by {checked.error:.1e}; {output} is not made.")
    if not json_:
        echo(f"{output}: agrees with PyTorch to {checked.error:.1e} (1e-4 is allowed)")
    if checked.by_sum and not json_:
        echo(
            f"{checked.by_sum} of {checked.rows} maps were judged by their sums: a channel's mean is 0 up to rounding, "
            "and the graph rounds it to the other side"
        )
    if int8:
        small = output.with_name(f"{output.stem}-int8.onnx")
        with quiet(), whole(small) as place:
            batches, rows = room.comparison_rows(network, processor)
            changed = room.compare_quantised(output, room.quantize_onnx(output, place), batches)
        eight = room.as_record(changed)
        found |= {"int8": {"output": str(small), "rows": rows, **eight}}
        if not json_:
            echo(f"{small}: {eight['megabytes_before']} MB become {eight['megabytes_after']} MB; over {rows}")
            echo(f"logits change by up to {eight['logits']:.1%}, {eight['labels']:.1%} of the labels stay")
            echo(f"maps change by {eight['map']:.1%} and correlate by {eight['correlation']:.3f}")
    if json_:
        typer.echo(json.dumps(found))
